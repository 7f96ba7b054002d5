"""From a fitted model to a version in the store."""

import csv
import io
import platform
from importlib.metadata import version

import numpy as np

from model_store.manifest import (
    FEWEST_GOLDEN_ROWS,
    HISTORY,
    SCHEMA_VERSION,
    Description,
    GoldenRow,
    Manifest,
    Metrics,
    ResidualQuantiles,
    Training,
)
from model_store.predictor import dump_weights
from model_store.store import Store
from training.data import Table, describe_target
from training.fit import Recipe
from training.model import Model

LIBRARIES = ("numpy", "pandas", "torch")


def publish(
    store: Store,
    name: str,
    recipe: Recipe,
    table: Table,
    model: Model,
    metrics: Metrics | None,
    interval: ResidualQuantiles | None,
) -> Manifest:
    """Write the model, which was fitted on all rows of `table`, as the next version of `name`."""
    description = Description(
        schema_version=SCHEMA_VERSION,
        name=name,
        target=describe_target(table),
        features=model.features,
        network=recipe.network,
        training=describe_training(recipe, table),
        metrics=metrics,
        interval=interval,
        golden=golden_rows(model, table, recipe.seed),
    )
    weights = dump_weights(model.fitted.network.tensors())
    history = history_csv(model.fitted.history)
    return store.publish(description, weights, lambda _number: {HISTORY: history})


def describe_training(recipe: Recipe, table: Table) -> Training:
    """How the weights came about."""
    libraries = {library: version(library) for library in LIBRARIES}
    return Training(
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        epochs=recipe.epochs,
        seed=recipe.seed,
        rows=table.rows,
        data_sha256=table.sha256,
        libraries={"python": platform.python_version(), **libraries},
    )


def golden_rows(model: Model, table: Table, seed: int) -> tuple[GoldenRow, ...]:
    """Raw rows with torch's predictions: where each input is least and greatest, and others at random.

    A table with fewer rows gives some of them more than once.
    """
    extremes = [row for values in table.columns.values() for row in (values.argmin(), values.argmax())]
    others = np.random.default_rng(seed).permutation(table.rows)
    rows = np.array(list(dict.fromkeys([*extremes, *others])), dtype=np.intp)
    chosen = table.take(np.resize(rows, max(FEWEST_GOLDEN_ROWS, len(extremes))))
    return tuple(
        GoldenRow(
            inputs={name: float(values[row]) for name, values in chosen.columns.items()},
            prediction=float(prediction),
        )
        for row, prediction in enumerate(model.predict(chosen))
    )


def history_csv(history: tuple[float, ...]) -> bytes:
    """The bytes of `history.csv`: the cost after 0, 1, 2 … epochs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "cost"])
    writer.writerows((epoch, repr(cost)) for epoch, cost in enumerate(history))
    return text.getvalue().encode()
