"""From a fitted model to a version in the store."""

import csv
import io
import math
import platform
from importlib.metadata import version

from model_store.answers import Answerer
from model_store.columns import Matrix
from model_store.manifest import (
    HISTORY,
    RECIPE,
    REPORT,
    SCHEMA_VERSION,
    Description,
    Manifest,
    Training,
)
from model_store.predictor import Predictor, dump_weights
from model_store.store import Store
from training.data import Table
from training.evaluate import HeldOut
from training.golden import golden_rows
from training.recipe import Recipe, RecipeFile
from training.recipe_toml import recipe_toml
from training.remarks import Findings
from training.report import Evidence, report_html
from training.statistics import sampled
from training.train import Model

LIBRARIES = ("numpy", "pandas", "torch")
MOST_PICTURED = 200_000


def publish(
    store: Store,
    file: RecipeFile,
    table: Table,
    model: Model,
    held_out: HeldOut | None,
    findings: Findings,
    command: str | None,
) -> Manifest:
    """Write the model, which was fitted on all rows of `table`, as the next version.

    `file` says its name and what was decided of it. `command` is what the report gives for making it again,
    if there is one. Raises StoreError.
    """
    description = describe(file, table, model, held_out)
    sample, tensors = sampled(table.blocks), model.fitted.network.tensors()
    columns = table.columns(sample)
    evidence = Evidence(
        history=model.fitted.history,
        optimum=model.line.cost,
        actual=thinned(held_out.actual) if held_out else None,
        predicted=thinned(held_out.predicted) if held_out else None,
        inputs=columns,
        target=sample[:, -1],
        answers=Answerer(Predictor(description, tensors)).answer(columns),
        findings=findings,
        command=command,
    )
    return store.publish(
        description,
        dump_weights(tensors),
        lambda number: {
            HISTORY: history_csv(model.fitted.history),
            REPORT: report_html(description, number, evidence),
            RECIPE: recipe_toml(file, findings.decisions),
        },
    )


def describe(file: RecipeFile, table: Table, model: Model, held_out: HeldOut | None) -> Description:
    """All that training knows of the model, which was fitted on all rows of `table`."""
    recipe, columns = file.recipe, table.columns(sampled(table.blocks))
    interval = held_out.interval if held_out else None
    return Description(
        schema_version=SCHEMA_VERSION,
        name=file.name,
        target=model.target,
        features=model.features,
        network=recipe.network,
        training=describe_training(recipe, table, model),
        metrics=held_out.metrics if held_out else None,
        interval=interval,
        golden=golden_rows(model, recipe.network, interval, columns, recipe.schedule.seed),
    )


def describe_training(recipe: Recipe, table: Table, model: Model) -> Training:
    """How the weights came about."""
    schedule = recipe.schedule
    return Training(
        optimizer=schedule.optimizer,
        learning_rate=schedule.learning_rate,
        epochs=len(model.fitted.history) - 1,
        batch_size=None if schedule.optimizer in {"gd", "exact"} else schedule.batch_size,
        seed=schedule.seed,
        normalize=schedule.normalize,
        holdout=recipe.holdout,
        split=recipe.split,
        cross_validate=recipe.cross_validate,
        weight=recipe.weight,
        missing=recipe.missing,
        dropped=table.dropped,
        rows=table.rows,
        cost=model.fitted.cost,
        optimum=model.line.cost,
        data_sha256=table.sha256,
        form=table.form,
        libraries=library_versions(),
    )


def library_versions() -> dict[str, str]:
    """The versions of what decides the bits of the weights."""
    return {"python": platform.python_version(), **{library: version(library) for library in LIBRARIES}}


def thinned(values: Matrix) -> Matrix:
    """At most 200,000 of the values (n,), evenly spaced, which is more than a picture can show."""
    return values[:: math.ceil(len(values) / MOST_PICTURED)]


def history_csv(history: tuple[float, ...]) -> bytes:
    """The bytes of `history.csv`: the cost after 0, 1, 2 … epochs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "cost"])
    writer.writerows((epoch, repr(cost)) for epoch, cost in enumerate(history))
    return text.getvalue().encode()
