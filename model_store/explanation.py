"""What each input adds to a prediction, in the target's unit.

Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017): the
gradient along the straight line from the average training row to the row, times the distance. Baseline and
contributions add up to the prediction. For a linear model that is weight · (x - mean).

Linear models and ReLU networks are explained exactly, but for rounding: their output is straight between the
kinks on the way, so the integral, of an exponential too, is a finite sum. For tanh it is found by quadrature,
to about 1e-10 of the sizes of the parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.columns import Columns, Matrix, encode
from model_store.manifest import Mlp
from model_store.predictor import Predictor

SATURATED = 20.0  # tanh gives ±1 in float64 from here on
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(16)
TOLERANCE, ROUNDING = 1e-10, 1e-13
MOST_HALVED = 1024


@dataclass(frozen=True)
class Explanation:
    """A prediction taken apart: what the average training row would get, and what each input adds."""

    baseline: float
    contributions: dict[str, float]

    @property
    def is_finite(self) -> bool:
        """Whether there is a number for each of the parts."""
        return all(map(isfinite, (self.baseline, *self.contributions.values())))


@dataclass(frozen=True)
class Line:
    """The way from the average row to a row, as the sums of a network's first layer see it.

    At s, from 0 to `length`, the sums are start + s · rates, both (units,); `layers` are the weights and
    biases after the first layer. The prediction is the output, or its exponential if `is_log`. `moves`,
    (units,), is how much the inputs move each sum, not balanced against one another.
    """

    start: Matrix
    rates: Matrix
    moves: Matrix
    length: float
    layers: Sequence[tuple[Matrix, Matrix]]
    is_log: bool


def explain(predictor: Predictor, columns: Columns) -> Explanation:
    """Explain the prediction for one row, given as columns (1,); raises KeyError for a missing one.

    Contributions that float64 cannot hold, or has too few digits for, are infinite or NaN: see `is_finite`.
    """
    average = average_row(predictor)
    network, weight = predictor.description.network, predictor.weights["layers.0.weight"]
    with np.errstate(all="ignore"):
        distances = encode(predictor.description.features, columns)[0] - average
        length = float(np.abs(distances).max())
        direction = distances / (length or 1.0)
        line = line_through(predictor, average, direction, length)
        is_smooth = isinstance(network, Mlp) and network.activation == "tanh"
        slopes = smooth_integral(line) if is_smooth else piecewise_integral(line)
        contributions = by_feature(predictor, slopes @ weight * direction)
    baseline = predictor.predict_encoded(average[np.newaxis])[0]
    return Explanation(float(baseline), contributions)


def average_row(predictor: Predictor) -> Matrix:
    """The mean of the encoded training rows, (width,)."""
    return np.concatenate([feature.baseline for feature in predictor.description.features])


def line_through(predictor: Predictor, average: Matrix, direction: Matrix, length: float) -> Line:
    """The line from the encoded row `average`, (width,), `length` times the `direction`, (width,)."""
    (weight, bias), *layers = (
        (predictor.weights[f"layers.{index}.weight"], predictor.weights[f"layers.{index}.bias"])
        for index in range(len(predictor.description.network.layers))
    )
    is_log = predictor.description.target.transform == "log"
    moves = np.abs(weight) @ np.abs(direction)
    return Line(weight @ average + bias, weight @ direction, moves, length, layers, is_log)


def piecewise_integral(line: Line) -> Matrix:
    """The prediction's gradient by the first layer's sums, (units,), integrated over a line of ReLUs.

    Each piece of the line is straight in a layer's inputs; it is cut where one of the layer's sums crosses 0.
    """
    values, rates = line.start[np.newaxis], line.rates[np.newaxis]
    starts, lengths = np.zeros(1), np.array([line.length])
    active: list[NDArray[np.bool_]] = []
    for weight, bias in line.layers:
        pieces, offsets = cut(values, rates, lengths)
        values, rates = values[pieces] + offsets[:, np.newaxis] * rates[pieces], rates[pieces]
        starts = starts[pieces] + offsets
        lengths = np.diff(starts, append=line.length)
        active = [units[pieces] for units in active]
        active.append(values + rates * lengths[:, np.newaxis] / 2 > 0)
        values = np.where(active[-1], values, 0.0) @ weight.T + bias
        rates = np.where(active[-1], rates, 0.0) @ weight.T
    integrals = exponential_integrals(values[:, 0], rates[:, 0], lengths) if line.is_log else lengths
    total: Matrix = slopes_back(line, integrals, active).sum(axis=0)
    return total


def cut(values: Matrix, rates: Matrix, lengths: Matrix) -> tuple[NDArray[np.intp], Matrix]:
    """Cut pieces of a line, with sums of `values` + s · `rates`, (pieces, units), where a sum crosses 0.

    Gives for each new piece, in order, the number of the one it is of, and how far in that it starts.
    """
    crossings, ends = -values / rates, lengths[:, np.newaxis]
    inner = np.where((crossings > 0) & (crossings < ends), crossings, ends)
    offsets = np.sort(np.hstack([np.zeros_like(ends), inner]), axis=1)
    kept = offsets < ends
    return np.nonzero(kept)[0], offsets[kept]


def exponential_integrals(values: Matrix, rates: Matrix, lengths: Matrix) -> Matrix:
    """The integrals of exp(value + s · rate) for s from 0 to length: all (pieces,)."""
    highest = values + np.maximum(rates * lengths, 0.0)
    steep = np.abs(rates)
    return np.exp(highest) * np.where(steep * lengths > 0, -np.expm1(-steep * lengths) / steep, lengths)


def smooth_integral(line: Line) -> Matrix:
    """The prediction's gradient by the first layer's sums, (units,), integrated over a line of tanhs.

    By Gauss and Legendre's rule on panels, each halved while its halves give something else than the whole,
    or do not explain how the prediction changes over it. NaN if more than `MOST_HALVED` panels are: weights
    are then so large that float64 has too few digits.
    """
    starts, ends = first_panels(line)
    total, scale, halved = np.zeros_like(line.start), 0.0, 0
    while starts.size:
        middles = starts + (ends - starts) / 2
        halves = panel_integrals(line, starts, middles) + panel_integrals(line, middles, ends)
        scale = max(scale, float((np.abs(halves) @ line.moves).sum()))
        rough = is_rough(line, starts, ends, halves, scale)
        total += halves[~rough].sum(axis=0)
        halved += int(rough.sum())
        if halved > MOST_HALVED:
            return np.full_like(total, np.nan)
        starts, ends = np.hstack([starts[rough], middles[rough]]), np.hstack([middles[rough], ends[rough]])
    return total


def first_panels(line: Line) -> tuple[Matrix, Matrix]:
    """Starts and ends, (panels,), of panels that end soon after a tanh of the first layer saturates.

    So however long the line, what changes near its start does not fall between the nodes of a rule. They end
    at powers of two, for there to be few.
    """
    crossings = np.hstack([(limit - line.start) / line.rates for limit in (-SATURATED, SATURATED)])
    _, exponents = np.frexp(crossings[(crossings > 0) & (crossings < line.length)])
    powers = np.ldexp(1.0, exponents)
    edges = np.unique([0.0, *powers[powers < line.length], line.length])
    return edges[:-1], edges[1:]


def is_rough(line: Line, starts: Matrix, ends: Matrix, halves: Matrix, scale: float) -> NDArray[np.bool_]:
    """Whether the `halves`, (panels, units), are too far from the integrals over panels: (panels,).

    Halves and whole may both miss a step between their nodes; the predictions at the ends show it. `scale`
    is the size of all parts.
    """
    doubts = np.abs(halves - panel_integrals(line, starts, ends)) @ line.moves
    (before, _), (after, _) = forward(line, starts), forward(line, ends)
    gaps = np.abs(after - before - halves @ line.rates)
    rounding = ROUNDING * np.maximum(np.abs(before), np.abs(after))
    rough: NDArray[np.bool_] = (doubts > TOLERANCE * scale) | (gaps > TOLERANCE * scale + rounding)
    return rough


def panel_integrals(line: Line, starts: Matrix, ends: Matrix) -> Matrix:
    """The prediction's gradient by the first layer's sums, by one rule on each panel: (panels, units)."""
    radii = (ends - starts)[:, np.newaxis] / 2
    points, weights = starts[:, np.newaxis] + radii * (1 + NODES), radii * NODE_WEIGHTS
    values, derivatives = forward(line, points.ravel())
    slopes = slopes_back(line, weights.ravel() * values if line.is_log else weights.ravel(), derivatives)
    integrals: Matrix = slopes.reshape(*points.shape, -1).sum(axis=1)
    return integrals


def forward(line: Line, points: Matrix) -> tuple[Matrix, list[Matrix]]:
    """The predictions, (n,), at points (n,) of a line of tanhs, and every layer's derivatives, (n, units)."""
    values, derivatives = line.start + points[:, np.newaxis] * line.rates, []
    for weight, bias in line.layers:
        active = np.tanh(values)
        derivatives.append(1 - active**2)
        values = active @ weight.T + bias
    outputs = values[:, 0]
    return np.exp(outputs) if line.is_log else outputs, derivatives


def slopes_back(line: Line, slopes: Matrix, derivatives: Sequence[NDArray[Any]]) -> Matrix:
    """Gradients by the first layer's sums, (n, units), from those by the output, (n,).

    `derivatives` are those of each hidden layer's activation by its sums, (n, units).
    """
    gradients = slopes[:, np.newaxis]
    for (weight, _), derivative in zip(reversed(line.layers), reversed(derivatives), strict=True):
        gradients = gradients @ weight * derivative
    return gradients


def by_feature(predictor: Predictor, parts: Matrix) -> dict[str, float]:
    """The parts of the encoded columns, (width,), summed over the columns of each feature."""
    features = predictor.description.features
    ends = np.cumsum([feature.width for feature in features])[:-1]
    return {
        feature.name: float(part.sum()) for feature, part in zip(features, np.split(parts, ends), strict=True)
    }
