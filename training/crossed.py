"""Networks that are fitted so that each row is left out once: a ridge line, and an ensemble.

What they gave for the rows left out scores them, chooses their settings and makes their interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.columns import Feature, Matrix, Measured
from model_store.manifest import Linear, Mlp
from training.additive import Additive, Layout, fit_additive
from training.blocks import Blocks
from training.descent import Fitted, OnEpoch, nothing
from training.ensemble import Ensemble, as_tensors, fit_ensemble, mixed
from training.network import FeedForward
from training.recipe import EnsembleNetwork, Recipe

GoOn: TypeAlias = Callable[[], bool]


def always() -> bool:
    """Go on, however long it takes."""
    return True


@dataclass(frozen=True)
class Crossed(Fitted):
    """A network, and what it gives for each row where that was left out: `out_of_fold` (rows,).

    `history` is the cost on the rows left out. `strength` is the ridge penalty of the line or of the additive
    model, whose share in an ensemble of `members` is `share`.
    """

    out_of_fold: Matrix
    strength: float
    members: int = 0
    share: float = 1.0


def fit_crossed(
    recipe: Recipe,
    features: Sequence[Feature],
    data: Blocks,
    labels: NDArray[np.intp],
    *,
    on_epoch: OnEpoch = nothing,
    go_on: GoOn = always,
) -> Crossed:
    """Fit the recipe's ridge line or ensemble to encoded rows, the target in their last column.

    `labels` (rows,) are the folds. An ensemble stops when `go_on` says so, with the best epoch so far.
    """
    rows, layouts = np.concatenate(list(data)), [layout(feature) for feature in features]
    inputs, target = rows[:, :-1], rows[:, -1]
    line = fit_additive(inputs, target, layouts, labels, data.weights)
    if not isinstance(recipe.network, EnsembleNetwork):
        return ridge(line, target, data.weights)
    nets = fit_ensemble(
        inputs,
        target,
        layouts,
        labels,
        seed=recipe.schedule.seed,
        weights=data.weights,
        epochs=recipe.network.epochs,
        on_epoch=on_epoch,
        go_on=go_on,
    )
    return blend(line, nets, mixed(line, nets, target, data.weights), members=int(labels.max()) + 1)


def settled(recipe: Recipe, fitted: Fitted) -> Recipe:
    """The recipe that gives again what was fitted, whatever stopped it: an ensemble's with its epochs."""
    if not isinstance(recipe.network, EnsembleNetwork):
        return recipe
    return recipe.model_copy(update={"network": EnsembleNetwork(epochs=fitted.epochs)})


def layout(feature: Feature) -> Layout:
    """What the encoded columns of an input are."""
    if not isinstance(feature, Measured):
        return Layout(others=feature.width)
    knots = tuple(knot / feature.std for knot in feature.knots)
    return Layout(scores=1, knots=knots, others=feature.width - 1 - len(knots))


def ridge(line: Additive, target: Matrix, weights: Matrix | None) -> Crossed:
    """The line as a network; its costs are those of the mean and of the line, on the rows left out."""
    network = FeedForward(Linear(), len(line.weights), 0)
    network.load({"layers.0.weight": line.weights[np.newaxis], "layers.0.bias": np.array([line.bias])})
    costs = [
        float(np.average((target - predicted) ** 2, weights=weights))
        for predicted in (np.average(target, weights=weights), line.out_of_fold)
    ]
    return Crossed(network, tuple(costs), line.out_of_fold, line.strength)


def blend(line: Additive, nets: Ensemble, share: float, members: int) -> Crossed:
    """Both as one network."""
    tensors = as_tensors(nets, line, share)
    network = FeedForward(Mlp(hidden=tensors["layers.0.bias"].shape), len(line.weights), 0)
    network.load(tensors)
    out_of_fold = share * line.out_of_fold + (1 - share) * nets.out_of_fold
    return Crossed(network, nets.history, out_of_fold, line.strength, members, share)
