"""From a fitted model to a version in the store."""

import csv
import io
import math
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from model_store import dates
from model_store.answers import Answerer
from model_store.columns import Column, Columns, Matrix
from model_store.manifest import (
    FEWEST_GOLDEN_ROWS,
    HISTORY,
    RECIPE,
    REPORT,
    SCHEMA_VERSION,
    Description,
    GoldenRow,
    Linear,
    Manifest,
    ResidualQuantiles,
    Training,
)
from model_store.predictor import Predictor, dump_weights
from model_store.store import Store
from training.data import Table
from training.evaluate import HeldOut
from training.recipe import Recipe, RecipeFile
from training.recipe_toml import recipe_toml
from training.remarks import Findings
from training.report import Evidence, report_html
from training.statistics import sampled
from training.train import Model
from training.weights import rank_warning, weights_of

LIBRARIES = ("numpy", "pandas", "torch")
MOST_RANDOM_ROWS = 10_000
MOST_PICTURED = 200_000


@dataclass(frozen=True)
class Learned:
    """A model, fitted by a recipe on all rows of a table, and the interval around its predictions.

    `held_out` is how models like it did on rows they had not seen.
    """

    recipe: Recipe
    table: Table
    model: Model
    held_out: HeldOut | None
    interval: ResidualQuantiles | None
    findings: Findings


def publish(store: Store, file: RecipeFile, learned: Learned, command: str | None) -> Manifest:
    """Write what was learned as the next version.

    `file` says its name and what was decided of it. `command` is what the report gives for making it again,
    if there is one. Raises StoreError.
    """
    recipe, table, model, held_out = learned.recipe, learned.table, learned.model, learned.held_out
    sample = sampled(table.blocks)
    columns, tensors = table.columns(sample), model.fitted.network.tensors()
    description = Description(
        schema_version=SCHEMA_VERSION,
        name=file.name,
        target=model.target,
        features=model.features,
        network=recipe.network,
        training=describe_training(learned),
        metrics=held_out.metrics if held_out else None,
        interval=learned.interval,
        golden=golden_rows(model, columns, recipe.schedule.seed),
    )
    evidence = Evidence(
        history=model.fitted.history,
        optimum=model.line.cost,
        actual=thinned(held_out.actual) if held_out else None,
        predicted=thinned(held_out.predicted) if held_out else None,
        inputs=columns,
        target=sample[:, -1],
        answers=Answerer(Predictor(description, tensors)).answer(columns),
        findings=learned.findings,
        command=command,
        weights=weights_of(model),
        rank_warning=rank_warning(model),
    )
    return store.publish(
        description,
        dump_weights(tensors),
        lambda number: {
            HISTORY: history_csv(model.fitted.history),
            REPORT: report_html(description, number, evidence),
            RECIPE: recipe_toml(file, learned.findings.decisions),
        },
    )


def describe_training(learned: Learned) -> Training:
    """How the weights came about."""
    recipe, table, model = learned.recipe, learned.table, learned.model
    schedule, folds = recipe.schedule, learned.held_out and learned.held_out.metrics.folds
    is_line = isinstance(recipe.network, Linear)
    libraries = {library: version(library) for library in LIBRARIES}
    return Training(
        optimizer=schedule.optimizer,
        learning_rate=schedule.learning_rate,
        epochs=model.fitted.epochs,
        batch_size=None if schedule.optimizer in {"gd", "exact"} else schedule.batch_size,
        seed=schedule.seed,
        normalize=schedule.normalize,
        holdout=recipe.holdout or 0.0,
        split=recipe.split,
        cross_validate=folds.count if folds else None,
        weight=recipe.weight,
        missing=recipe.missing,
        dropped=table.dropped,
        rows=table.rows,
        cost=model.fitted.cost,
        optimum=model.line.cost,
        rank=model.line.rank if is_line else None,
        condition=model.line.condition if is_line else None,
        data_sha256=table.sha256,
        form=table.form,
        libraries={"python": platform.python_version(), **libraries},
    )


def golden_rows(model: Model, columns: Columns, seed: int) -> tuple[GoldenRow, ...]:
    """Some raw rows of columns (n,), with torch's predictions: where each number is least and greatest,
    where each category comes first, and others at random. A table with fewer rows gives some more than once.
    """
    telling = [row for values in columns.values() for row in telling_rows(values)]
    count = len(next(iter(columns.values())))
    others = np.random.default_rng(seed).permutation(count)[:MOST_RANDOM_ROWS]
    distinct = np.array(list(dict.fromkeys([*telling, *others.tolist()])), dtype=np.intp)
    rows: list[int] = np.resize(distinct, max(FEWEST_GOLDEN_ROWS, len(set(telling)))).tolist()
    kinds = {feature.name: feature.kind for feature in model.features}
    chosen = {name: [plain(values[row], kinds[name]) for row in rows] for name, values in columns.items()}
    predictions = model.predict(chosen)
    return tuple(
        GoldenRow(
            inputs={name: values[index] for name, values in chosen.items()}, prediction=float(prediction)
        )
        for index, prediction in enumerate(predictions)
    )


def telling_rows(values: Column) -> list[int]:
    """Which rows of a column (n,) have to be there, or its statistics could be wrong unseen."""
    if isinstance(values, np.ndarray):
        return [
            int(np.nanargmin(values)),
            int(np.nanargmax(values)),
            *np.flatnonzero(np.isnan(values))[:1].tolist(),
        ]
    first: dict[object, int] = {}
    for row, value in enumerate(values):
        first.setdefault(value, row)
    return [row for _, row in sorted(first.items(), key=lambda item: str(item[0]))]


def thinned(values: Matrix) -> Matrix:
    """At most 200,000 of the values (n,), evenly spaced, which is more than a picture can show."""
    return values[:: math.ceil(len(values) / MOST_PICTURED)]


def plain(value: Any, kind: str) -> float | str | bool | None:
    """A value of a column as JSON has it, a missing one as None."""
    if isinstance(value, str) or value is None:
        return value
    if np.isnan(value):
        return None
    if kind == "date":
        return dates.as_text(float(value))
    return bool(value) if kind == "boolean" else float(value)


def history_csv(history: tuple[float, ...]) -> bytes:
    """The bytes of `history.csv`: the cost after 0, 1, 2 … epochs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "cost"])
    writer.writerows((epoch, repr(cost)) for epoch, cost in enumerate(history))
    return text.getvalue().encode()
