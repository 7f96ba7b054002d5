"""From a table in memory to a model: the statistics, the encoded rows, the descent, and when to stop it."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from model_store.columns import Columns, Feature, Matrix, encode
from model_store.manifest import Linear, Mlp, Target
from training.blocks import Blocks
from training.data import Table
from training.descent import Fitted, OnEpoch, descend, nothing
from training.encoding import encode_table, encoded_moments
from training.least_squares import Line, solve
from training.network import FeedForward
from training.recipe import Recipe, Schedule
from training.splits import hold_out_rows
from training.stability import diagnosed
from training.statistics import describe_columns, moments_of_columns

WATCHED = 0.1


@dataclass(frozen=True)
class Model:
    """A network for encoded rows, the exact least-squares line beside it, and the statistics that encode.

    All of it comes from the same rows.
    """

    features: tuple[Feature, ...]
    target: Target
    fitted: Fitted
    line: Line

    def predict(self, columns: Columns) -> Matrix:
        """torch's predictions for n raw rows, (n,), in the target's unit.

        Raises what `model_store.columns.encode` does for columns that do not fit the features.
        """
        return self.predictions(self.fitted.network.outputs(encode(self.features, columns)))

    def predictions(self, outputs: Matrix) -> Matrix:
        """Predictions (n,) in the target's unit from a network's outputs (n,), which may be logarithms."""
        return torch.tensor(outputs).exp().numpy() if self.target.transform == "log" else outputs


def train(recipe: Recipe, table: Table, *, on_epoch: OnEpoch = nothing) -> Model:
    """Take the table's statistics, encode its rows with them and fit a network.

    The same arguments give the same weights, bit for bit, as long as torch uses as many threads; in the
    pipeline it uses one. Raises DataError for a column that does not vary and Unstable for a training that
    diverges.
    """
    features, target = describe_columns(table)
    data = encode_table(recipe, features, table)
    line = solve_line(recipe, features, table, data)
    if isinstance(recipe.network, Mlp):
        fitted = train_mlp(recipe, features, data, on_epoch=on_epoch)
    elif recipe.schedule.optimizer == "exact":
        fitted = line
    else:
        fitted = train_line(recipe, features, data, on_epoch)
    if recipe.schedule.normalize == "none" and fitted is not line:
        fitted.network.rescale_inputs(*encoded_moments(features))
    return Model(features, target, fitted, line)


def solve_line(recipe: Recipe, features: tuple[Feature, ...], table: Table, data: Blocks) -> Line:
    """The least-squares line of z-scores, even where `data`, the encoded rows to descend on, are not."""
    if recipe.schedule.normalize == "none":
        schedule = recipe.schedule.model_copy(update={"normalize": "z-score"})
        data = encode_table(recipe.model_copy(update={"schedule": schedule}), features, table)
    return solve(FeedForward(Linear(), data.width - 1, recipe.schedule.seed), data)


def train_line(recipe: Recipe, features: tuple[Feature, ...], data: Blocks, on_epoch: OnEpoch) -> Fitted:
    """Descend to a line on encoded rows; raises Unstable."""

    def attempt(schedule: Schedule, on_epoch: OnEpoch = nothing) -> Fitted:
        return descend(new_network(recipe, data), schedule, data, on_epoch=on_epoch)

    with diagnosed(recipe, features, data, attempt):
        return attempt(recipe.schedule, on_epoch)


def train_mlp(
    recipe: Recipe,
    features: tuple[Feature, ...],
    data: Blocks,
    *,
    watch: Blocks | None = None,
    on_epoch: OnEpoch = nothing,
) -> Fitted:
    """Descend with the target z-scored, so that its unit does not matter to the learning rate.

    `data` and `watch` are encoded rows, in their last column the target in its own unit, whose square is the
    unit of the costs. Raises Unstable.
    """
    moments = moments_of_columns(data)[-1]
    mean, std = moments.mean, math.sqrt(moments.squares / moments.count)

    def scaled(rows: Blocks) -> Blocks:
        shift, divide = np.zeros(rows.width), np.ones(rows.width)
        shift[-1], divide[-1] = mean, std
        return Blocks(((block - shift) / divide for block in rows), rows.width, rows.weights)

    def tell(epoch: int, cost: float) -> None:
        on_epoch(epoch, cost * std**2)

    rows, watched = scaled(data), scaled(watch) if watch else None

    def attempt(schedule: Schedule, on_epoch: OnEpoch = nothing) -> Fitted:
        return descend(new_network(recipe, data), schedule, rows, watch=watched, on_epoch=on_epoch)

    with diagnosed(recipe, features, data, attempt):
        fitted = attempt(recipe.schedule, tell)
    fitted.network.rescale_outputs(mean, std)
    return replace(fitted, history=tuple(cost * std**2 for cost in fitted.history))


def new_network(recipe: Recipe, data: Blocks) -> FeedForward:
    """The network before training, for encoded rows with the target in the last column."""
    return FeedForward(recipe.network, data.width - 1, recipe.schedule.seed)


def stop_early(recipe: Recipe, table: Table) -> Recipe:
    """The same recipe with as many epochs as do best on rows left out, as `best_epochs` finds them.

    The rows that `hold_out` scores on take no part, so that its scores stay honest. A cross-validation finds
    the epochs of each fold by itself, so here all rows take part. Raises what `best_epochs` does.
    """
    if not recipe.cross_validate:
        table = table.take(hold_out_rows(table, recipe.holdout, recipe.schedule.seed).seen)
    return best_epochs(recipe, table)


def best_epochs(recipe: Recipe, table: Table) -> Recipe:
    """The same recipe with as many epochs as do best on a tenth of the rows when the others are fitted.

    The tenth is held out in the way that the recipe splits. A recipe for a line stays as it is. Raises
    DataError for a column that does not vary in the rows left, and Unstable.
    """
    if not isinstance(recipe.network, Mlp):
        return recipe
    fold = hold_out_rows(table, WATCHED, recipe.schedule.seed + 1)
    seen, watched = table.take(fold.seen), table.take(fold.held)
    features, _ = describe_columns(seen)
    data, watch = (encode_table(recipe, features, rows) for rows in (seen, watched))
    best = train_mlp(recipe, features, data, watch=watch).best_epoch
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"epochs": best})})
