"""From a fitted model to a version in the store."""

import csv
import io
import math
import platform
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

from model_store.answers import Answerer
from model_store.columns import Matrix
from model_store.manifest import (
    HISTORY,
    RECIPE,
    REPORT,
    SCHEMA_VERSION,
    Description,
    Linear,
    Manifest,
    ResidualQuantiles,
    Training,
)
from model_store.predictor import Predictor, dump_weights
from model_store.store import Store
from training.crossed import Crossed
from training.data import Table
from training.ensemble import LEARNING_RATE
from training.evaluate import HeldOut, Own
from training.golden import golden_rows
from training.importance import curves, permutation_importance
from training.intervals import coverage_by_tenth
from training.recipe import Recipe, RecipeFile
from training.recipe_toml import recipe_toml
from training.remarks import Findings
from training.report import Evidence, report_html
from training.statistics import sampled
from training.train import Model
from training.weights import rank_warning, weights_of

LIBRARIES = ("numpy", "pandas", "torch")
MOST_PICTURED = 200_000


@dataclass(frozen=True)
class Learned:
    """A model, fitted by a recipe on all rows of a table, and the interval around its predictions.

    `held_out` is how models like it did on rows they had not seen, `own` how it does on its own.
    """

    recipe: Recipe
    table: Table
    model: Model
    own: Own
    held_out: HeldOut | None
    interval: ResidualQuantiles | None
    findings: Findings

    @property
    def is_worse_than_the_mean(self) -> bool:
        """Whether predicting the mean errs less, beyond what is uncertain, or even on its own rows."""
        metrics = self.held_out and self.held_out.metrics
        return self.own.is_worse_than_the_mean or bool(metrics and metrics.is_worse_than_the_mean)

    @cached_property
    def importance(self) -> dict[str, float]:
        """How much the model leans on each input, the greatest first, as `permutation_importance` says."""
        return permutation_importance(self.model, self.table)


def publish(store: Store, file: RecipeFile, learned: Learned, command: str | None) -> Manifest:
    """Write what was learned as the next version.

    `file` says its name and what was decided of it. `command` is what the report gives for making it again,
    if there is one. Raises StoreError.
    """
    model, held_out, description = learned.model, learned.held_out, describe(file.name, learned)
    sample, tensors = sampled(learned.table.blocks), model.fitted.network.tensors()
    columns = learned.table.columns(sample)
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
        importance=learned.importance,
        curves=curves(model, columns),
        tenths=coverage_by_tenth(held_out.residuals) if held_out and learned.interval else (),
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


def describe(name: str, learned: Learned) -> Description:
    """All that training knows of what was learned, by the name that the model is to have."""
    recipe, model, held_out = learned.recipe, learned.model, learned.held_out
    columns = learned.table.columns(sampled(learned.table.blocks))
    return Description(
        schema_version=SCHEMA_VERSION,
        name=name,
        target=model.target,
        features=model.features,
        network=model.fitted.network.shape,
        training=describe_training(learned),
        metrics=held_out.metrics if held_out else None,
        interval=learned.interval,
        golden=golden_rows(model, learned.interval, columns, recipe.schedule.seed),
    )


def describe_training(learned: Learned) -> Training:
    """How the weights came about."""
    recipe, table, model = learned.recipe, learned.table, learned.model
    schedule, folds = recipe.schedule, learned.held_out and learned.held_out.metrics.folds
    is_line = isinstance(recipe.network, Linear)
    training = Training(
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
        libraries=library_versions(),
    )
    return of_crossed(training, model.fitted, learned.own) if isinstance(model.fitted, Crossed) else training


def of_crossed(training: Training, fitted: Crossed, own: Own) -> Training:
    """How the weights of a ridge line or of an ensemble came about, whose history is of rows left out."""
    ridge = {"optimizer": "ridge", "batch_size": None, "ridge": fitted.strength, "cost": own.cost}
    descent = {"optimizer": "adamw", "learning_rate": LEARNING_RATE}
    mixed = {"members": fitted.members, "additive_share": fitted.share}
    return training.model_copy(update={**ridge, **descent, **mixed} if fitted.members else ridge)


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
