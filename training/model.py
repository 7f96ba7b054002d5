"""A model as training holds it: a network together with the statistics of the rows it was fitted on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from model_store.columns import Columns, Feature, Matrix, NumericFeature, encode
from model_store.manifest import Linear, Metrics, Mlp, ResidualQuantiles, Target
from training.blocks import Blocks
from training.data import DataError, Table, split
from training.evaluate import compare, conformal_interval
from training.fit import Fitted, OnEpoch, fit, nothing, solve
from training.network import FeedForward
from training.recipe import Recipe
from training.stability import check_batches, explained
from training.statistics import describe, moments_of_columns

FEWEST_HELD_OUT = 2
WATCHED = 0.1


@dataclass(frozen=True)
class Model:
    """A network for encoded rows, the exact least-squares line beside it, and the statistics that encode."""

    features: tuple[Feature, ...]
    target: Target
    fitted: Fitted
    line: Fitted

    def predict(self, columns: Columns) -> Matrix:
        """torch's predictions for n raw rows, in the target's unit, (n,)."""
        return self.in_unit(self.fitted.network.outputs(encode(self.features, columns)))

    def in_unit(self, outputs: Matrix) -> Matrix:
        """Predictions from what a network gives, (n,)."""
        return torch.tensor(outputs).exp().numpy() if self.target.transform == "log" else outputs


@dataclass(frozen=True)
class HeldOut:
    """What a model said of rows it had not seen: scores, interval, and the target beside the prediction."""

    metrics: Metrics
    interval: ResidualQuantiles | None
    actual: Matrix
    predicted: Matrix


def train(recipe: Recipe, table: Table, *, on_epoch: OnEpoch = nothing) -> Model:
    """Take the table's statistics, encode its rows with them and fit a network.

    Raises DataError for a column that does not vary and Unstable for a training that diverges.
    """
    torch.set_num_threads(1)
    features, target = describe(table)
    data = encode_table(recipe, features, table)
    line = solve(FeedForward(Linear(), data.width - 1, recipe.schedule.seed), data)
    if isinstance(recipe.network, Mlp):
        fitted = fit_mlp(recipe, features, data, on_epoch=on_epoch)
    elif recipe.schedule.optimizer == "exact":
        fitted = line
    else:
        fitted = fit_line(recipe, features, data, on_epoch)
    if recipe.schedule.normalize == "none":
        for network in {fitted.network, line.network}:
            network.rescale_inputs(*encoded_moments(features))
    return Model(features, target, fitted, line)


def fit_line(recipe: Recipe, features: tuple[Feature, ...], data: Blocks, on_epoch: OnEpoch) -> Fitted:
    """Descend to a line; raises Unstable, before the first step where that is certain."""
    check_batches(recipe, features, data)
    with explained(recipe, features, data):
        return fit(new_network(recipe, data), recipe.schedule, data, on_epoch=on_epoch)


def fit_mlp(
    recipe: Recipe,
    features: tuple[Feature, ...],
    data: Blocks,
    *,
    watch: Blocks | None = None,
    on_epoch: OnEpoch = nothing,
) -> Fitted:
    """Descend with the target z-scored, so that its unit does not matter to the learning rate."""
    moments = moments_of_columns(data)[-1]
    mean, std = moments.mean, math.sqrt(moments.squares / moments.count)

    def scaled(rows: Blocks) -> Blocks:
        shift, divide = np.zeros(rows.width), np.ones(rows.width)
        shift[-1], divide[-1] = mean, std
        return Blocks(((block - shift) / divide for block in rows), rows.width)

    def tell(epoch: int, cost: float) -> None:
        on_epoch(epoch, cost * std**2)

    with explained(recipe, features, data):
        fitted = fit(
            new_network(recipe, data),
            recipe.schedule,
            scaled(data),
            watch=scaled(watch) if watch else None,
            on_epoch=tell,
        )
    fitted.network.rescale_outputs(mean, std)
    return replace(fitted, history=tuple(cost * std**2 for cost in fitted.history))


def new_network(recipe: Recipe, data: Blocks) -> FeedForward:
    """The network before training, for encoded rows with the target in the last column."""
    return FeedForward(recipe.network, data.width - 1, recipe.schedule.seed)


def stop_early(recipe: Recipe, table: Table) -> Recipe:
    """The same recipe with as many epochs as do best on a tenth of the rows when the others are fitted.

    The rows that `hold_out` scores on take no part, so that its scores stay honest.
    """
    table = table.take(~split(table.rows, recipe.holdout, recipe.schedule.seed))
    watched = split(table.rows, WATCHED, recipe.schedule.seed + 1)
    seen = table.take(~watched)
    features, _ = describe(seen)
    data, watch = (encode_table(recipe, features, rows) for rows in (seen, table.take(watched)))
    best = fit_mlp(recipe, features, data, watch=watch).best_epoch
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"epochs": best})})


def hold_out(recipe: Recipe, table: Table) -> HeldOut:
    """Fit on some rows and score on the others, the recipe's share `holdout`.

    Raises DataError when the held-out rows are too few or too alike to score on.
    """
    held_out = split(table.rows, recipe.holdout, recipe.schedule.seed)
    held, seen = table.take(held_out), table.take(~held_out)
    actual = held.target()
    if min(held.rows, seen.rows) < FEWEST_HELD_OUT or actual.min() == actual.max():
        message = (
            f"holding out {held.rows} of the {table.rows} rows of {table.source} leaves too few to fit or to "
            "score on. Give more rows, or --holdout 0 to go without scores"
        )
        raise DataError(message)
    model = train(recipe, seen)
    outputs, line = np.concatenate(
        [
            [network.outputs(rows) for network in (model.fitted.network, model.line.network)]
            for rows in (encode(model.features, held.columns(block)) for block in held.blocks)
        ],
        axis=1,
    )
    if not np.isfinite(model.in_unit(outputs)).all():
        message = (
            f"a held-out row of {table.source} is so far outside that its prediction overflows. "
            "Look for an outlier, or take --holdout 0 to go without scores"
        )
        raise DataError(message)
    metrics = compare(actual, model.in_unit(outputs), model.in_unit(line), model.target.mean)
    residuals = (np.log(actual) if model.target.transform == "log" else actual) - outputs
    return HeldOut(metrics, conformal_interval(residuals), actual, model.in_unit(outputs))


def encode_table(recipe: Recipe, features: tuple[Feature, ...], table: Table) -> Blocks:
    """The table as the network sees it, its target, or that's logarithm, in the last column."""
    if recipe.schedule.normalize == "none":
        features = tuple(as_raw(feature) for feature in features)
    width = sum(feature.width for feature in features) + 1
    return Blocks(encoded(recipe, features, table), width)


def encoded(recipe: Recipe, features: tuple[Feature, ...], table: Table) -> Iterator[Matrix]:
    """Each block of the table, encoded."""
    for block in table.blocks:
        target = np.log(block[:, -1]) if recipe.target.transform == "log" else block[:, -1]
        yield np.column_stack([encode(features, table.columns(block)), target])


def as_raw(feature: Feature) -> Feature:
    """The feature with statistics that leave its numbers as they are."""
    if isinstance(feature, NumericFeature):
        return feature.model_copy(update={"mean": 0.0, "std": 1.0})
    return feature


def encoded_moments(features: tuple[Feature, ...]) -> tuple[Matrix, Matrix]:
    """The mean and std that `encode` takes off each of its columns, each (total width,)."""
    moments = [
        (feature.mean, feature.std) if isinstance(feature, NumericFeature) else (0.0, 1.0)
        for feature in features
        for _ in range(feature.width)
    ]
    mean, std = np.array(moments).T
    return mean, std
