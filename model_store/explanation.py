"""What each input adds to a prediction, in the target's unit.

Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017): the
gradient along the straight line from the average training row to the row, times the distance. Baseline and
contributions add up to the prediction. For a linear model that is weight · (x - mean), exactly.
"""

from dataclasses import dataclass

import numpy as np

from model_store.columns import Columns, Matrix, encode
from model_store.manifest import Mlp
from model_store.predictor import Predictor, activate, affine

STEPS = 512


@dataclass(frozen=True)
class Explanation:
    """A prediction taken apart: what the average training row would get, and what each input adds."""

    baseline: float
    contributions: dict[str, float]


def explain(predictor: Predictor, columns: Columns) -> Explanation:
    """Explain the prediction for one row, given as columns (1,); raises KeyError for a missing one."""
    row = encode(predictor.description.features, columns)[0]
    average = average_row(predictor)
    fractions = (np.arange(STEPS) + 0.5) / STEPS
    path = average + fractions[:, np.newaxis] * (row - average)
    parts = gradients(predictor, path).mean(axis=0) * (row - average)
    baseline, prediction = predictor.predict_encoded(np.stack([average, row]))
    parts += remainder(parts, prediction - baseline, row - average)
    return Explanation(float(baseline), by_feature(predictor, parts))


def average_row(predictor: Predictor) -> Matrix:
    """The mean of the encoded training rows, (width,)."""
    return np.concatenate([feature.baseline for feature in predictor.description.features])


def gradients(predictor: Predictor, encoded: Matrix) -> Matrix:
    """The gradient of the prediction, in the target's unit, at encoded rows (n, width); same shape."""
    network, weights = predictor.description.network, predictor.weights
    inputs, layers = [encoded.T], len(network.layers)
    for index in range(layers):
        outputs = affine(weights[f"layers.{index}.weight"], weights[f"layers.{index}.bias"], inputs[-1])
        inputs.append(
            activate(network, outputs) if isinstance(network, Mlp) and index < layers - 1 else outputs
        )
    slope = (
        np.ones((1, 1))
        if predictor.description.target.transform == "none"
        else predictor.description.target.untransformed(inputs[-1])
    )
    for index in reversed(range(layers)):
        slope = weights[f"layers.{index}.weight"].T @ slope
        if isinstance(network, Mlp) and index:
            active = inputs[index]
            slope = slope * (active > 0 if network.activation == "relu" else 1 - active**2)
    gradient: Matrix = np.broadcast_to(slope, encoded.T.shape).T
    return gradient


def remainder(parts: Matrix, total: float, distances: Matrix) -> Matrix:
    """What the sum of `parts` (width,) lacks of `total`, the error of a sum of finitely many steps.

    Shared by the parts' sizes; if no step saw a slope, by the `distances` (width,) that the inputs are moved.
    """
    sizes = np.abs(parts if parts.any() else distances)
    shared: Matrix = (total - parts.sum()) * (sizes / sizes.sum() if sizes.any() else sizes)
    return shared


def by_feature(predictor: Predictor, parts: Matrix) -> dict[str, float]:
    """The parts of the encoded columns, (width,), summed over the columns of each feature."""
    features = predictor.description.features
    ends = np.cumsum([feature.width for feature in features])[:-1]
    return {
        feature.name: float(part.sum()) for feature, part in zip(features, np.split(parts, ends), strict=True)
    }
