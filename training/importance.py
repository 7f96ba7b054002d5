"""How much a model leans on each of its inputs, and along which curve an additive one follows them."""

import math

import numpy as np
import torch
from torch import Tensor

from model_store.columns import Columns, Matrix, Measured, encode
from training.data import Table
from training.statistics import sampled
from training.train import Model

MOST_ROWS, SHUFFLES, MOST_POINTS = 2000, 5, 200


@torch.no_grad()
def permutation_importance(model: Model, table: Table) -> dict[str, float]:
    """By how much the root mean squared error grows when an input is shuffled among rows, by input.

    In the target's unit, the mean of five shuffles of at most 2,000 of the table's rows, which count alike,
    the greatest first (Breiman, Random Forests, 2001, section 10; Fisher, Rudin and Dominici, All Models are
    Wrong, but Many are Useful, 2019).
    """
    rng = np.random.default_rng(table.recipe.schedule.seed)
    sample = sampled(table.blocks)
    rows = sample[rng.permutation(len(sample))[:MOST_ROWS]]
    inputs, target = torch.tensor(encode(model.features, table.columns(rows))), rows[:, -1]
    first, _ = model.fitted.network.ends
    widths, sums = [feature.width for feature in model.features], first(inputs)
    least, grown = error(model, sums, target), {}
    split = (torch.split(tensor, widths, dim=1) for tensor in (inputs, first.weight))
    for feature, part, weight in zip(model.features, *split, strict=True):
        own = part @ weight.T
        others = sums - own
        errors = [error(model, others + own[rng.permutation(len(own))], target) for _ in range(SHUFFLES)]
        grown[feature.name] = math.fsum(errors) / SHUFFLES - least
    return dict(sorted(grown.items(), key=lambda item: -item[1]))


def error(model: Model, sums: Tensor, target: Matrix) -> float:
    """The root mean squared error for a target (n,), from what the first layer gives, (n, its units)."""
    network = model.fitted.network
    for layer in network.layers[1:]:
        sums = layer(network.activation(sums))
    return math.dist(model.predictions(sums[:, 0].numpy()), target) / math.sqrt(len(target))


def curves(model: Model, columns: Columns) -> dict[str, Matrix]:
    """What an additive model adds for a number or a date beside its average, by input: (points, 2).

    A point is an x, in the input's unit, and what is added for it, in that of the network's output. Points
    are close where the raw rows of `columns` (n,) are. What a date's month, weekday and hour add is left out,
    and what a missing value does. Empty for a network whose inputs act on one another, and without an input
    that has knots.
    """
    network = model.fitted.network
    if network.hidden:
        return {}
    ends = np.cumsum([feature.width for feature in model.features])
    weights = np.split(network.tensors()["layers.0.weight"][0], ends[:-1])
    return {
        feature.name: curve(feature, part, feature.column(columns[feature.name]))
        for feature, part in zip(model.features, weights, strict=True)
        if isinstance(feature, Measured) and feature.knots
    }


def curve(feature: Measured, weights: Matrix, values: Matrix) -> Matrix:
    """The curve of one input with these weights, (width,), over the training range: (points, 2).

    Its points are spread evenly, and as the values (n,) are.
    """
    shares, (low, high) = np.linspace(0, 1, MOST_POINTS), (feature.minimum, feature.maximum)
    x = np.unique([*np.linspace(low, high, MOST_POINTS), *np.nanquantile(values, shares), *feature.knots])
    own = slice(1 + len(feature.knots))
    return np.column_stack([x, weights[own] @ (feature.encode(x)[own] - feature.baseline[own, np.newaxis])])
