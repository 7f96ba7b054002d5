"""From a table in memory to a model: the statistics, the encoded rows, the descent, and when to stop it."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from model_store.columns import Columns, Feature, Matrix, encode
from model_store.manifest import Linear, Mlp, Target
from training.blocks import Blocks
from training.crossed import GoOn, always, fit_crossed
from training.data import Table
from training.descent import Fitted, OnEpoch, descend, nothing
from training.encoding import as_raw, as_z_score, encode_table, encoded_moments
from training.least_squares import Line, solve
from training.network import FeedForward
from training.recipe import EnsembleNetwork, Recipe, RidgeNetwork, Schedule
from training.rows import Rows
from training.splits import Mask, crossed_folds
from training.stability import diagnosed
from training.statistics import describe_columns, moments_of_columns


@dataclass(frozen=True)
class Model:
    """A network for encoded rows, the exact least-squares line beside it, and the statistics that encode.

    All of it comes from the same rows. The line sees them as the `line_features` encode them: as the network
    does or, beside one that was fitted to curves, as z-scores.
    """

    features: tuple[Feature, ...]
    target: Target
    fitted: Fitted
    line: Line
    line_features: tuple[Feature, ...]

    @property
    def weights(self) -> int:
        """How many weights the network has, biases included."""
        return sum(tensor.size for tensor in self.fitted.network.tensors().values())

    def predict(self, columns: Columns) -> Matrix:
        """torch's predictions for n raw rows, (n,), in the target's unit.

        Raises what `model_store.columns.encode` does for columns that do not fit the features.
        """
        return self.predictions(self.fitted.network.outputs(encode(self.features, columns)))

    def predictions(self, outputs: Matrix) -> Matrix:
        """Predictions (n,) in the target's unit from a network's outputs (n,), which may be logarithms."""
        return torch.tensor(outputs).exp().numpy() if self.target.transform == "log" else outputs


def train(
    recipe: Recipe,
    table: Table,
    *,
    watched: Mask | None = None,
    on_epoch: OnEpoch = nothing,
    go_on: GoOn = always,
) -> Model:
    """Take the table's statistics, encode its rows with them and fit a network.

    A descent does not learn from the rows `watched` (rows,): it stops when it does no better on them. An
    ensemble ends with the best so far when `go_on` says so. The
    same arguments give the same weights, bit for bit, as long as torch uses as many threads; in the pipeline
    it uses one. Raises DataError for a column that does not vary and Unstable for a training that diverges.
    """
    features, target = describe_columns(table)
    data = scores = encode_table(recipe, features, table)
    line_features = features
    is_crossed = isinstance(recipe.network, RidgeNetwork | EnsembleNetwork)
    if is_crossed:
        line_features = tuple(map(as_z_score, features))
        scores = encode_table(recipe, line_features, table)
    line = solve(FeedForward(Linear(), scores.width - 1, recipe.schedule.seed), scores)
    fitted: Fitted = line
    if is_crossed:
        fitted = fit_crossed(recipe, features, data, crossed_folds(table), on_epoch=on_epoch, go_on=go_on)
    elif recipe.schedule.optimizer != "exact":
        is_raw = recipe.schedule.normalize == "none"
        rows = encode_table(recipe, tuple(map(as_raw, features)), table) if is_raw else data
        fitted = train_by_descent(recipe, features, rows, watched, on_epoch)
    if recipe.target.predicts == "mean":
        smearing = smear(line.network, scores)
        smearing = smearing if fitted is line else smear(fitted.network, data)
        target = target.model_copy(update={"smearing": smearing})
    return Model(features, target, fitted, line, line_features)


def train_by_descent(
    recipe: Recipe, features: tuple[Feature, ...], rows: Blocks, watched: Mask | None, on_epoch: OnEpoch
) -> Fitted:
    """Descend on rows that are encoded for it, the target in their last column; costs are in its unit.

    For an mlp, and for optimizers whose steps do not grow with the gradient, the target is z-scored in the
    meantime, so that its unit does not matter to the learning rate. Raises Unstable.
    """
    mean, std = moments_of_target(rows) if sees_z_scores(recipe) else (0.0, 1.0)
    data, watch = rescaled(rows, mean, std), None
    if watched is not None:
        data, watch = data.take(~watched), data.take(watched)

    def tell(epoch: int, cost: float) -> None:
        on_epoch(epoch, cost * std**2)

    def attempt(schedule: Schedule, on_epoch: OnEpoch = nothing) -> Fitted:
        return descend(new_network(recipe, data), schedule, data, watch=watch, on_epoch=on_epoch)

    with diagnosed(recipe, features, data, attempt):
        fitted = attempt(recipe.schedule, tell)
    fitted.network.rescale_outputs(mean, std)
    if recipe.schedule.normalize == "none":
        fitted.network.rescale_inputs(*encoded_moments(features))
    return replace(fitted, history=tuple(cost * std**2 for cost in fitted.history))


def sees_z_scores(recipe: Recipe) -> bool:
    """Whether the target is z-scored while it is descended to."""
    return isinstance(recipe.network, Mlp) or recipe.schedule.optimizer in {"rmsprop", "adam"}


def moments_of_target(data: Blocks) -> tuple[float, float]:
    """Mean and std of the last column."""
    moments = moments_of_columns(data)[-1]
    return moments.mean, math.sqrt(moments.squares / moments.count)


def rescaled(rows: Blocks, mean: float, std: float) -> Blocks:
    """The rows with the last column as (y - mean) / std."""
    if (mean, std) == (0.0, 1.0):
        return rows
    shift, divide = np.zeros(rows.width), np.ones(rows.width)
    shift[-1], divide[-1] = mean, std
    return Blocks(((block - shift) / divide for block in rows), rows.width, rows.weights)


@torch.no_grad()
def smear(network: FeedForward, data: Blocks) -> float:
    """Turn a network for medians of encoded rows, the target's logarithm last, into one for means.

    Returns the factor between them: the mean of the residuals' exponentials (Duan, Smearing Estimate: A
    Nonparametric Retransformation Method, 1983), weighted as the rows are.
    """
    factor = math.fsum(
        share * part.mean((part.target - network(part.inputs)).exp()).item()
        for part, share in Rows(data).slices()
    )
    network.rescale_outputs(math.log(factor), 1.0)
    return factor


def new_network(recipe: Recipe, data: Blocks) -> FeedForward:
    """The network before training, for encoded rows with the target in the last column."""
    assert isinstance(recipe.network, Linear | Mlp)
    return FeedForward(recipe.network, data.width - 1, recipe.schedule.seed)
