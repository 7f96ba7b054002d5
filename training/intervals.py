"""The interval around a prediction, and how many held-out rows such intervals hold."""

import math
from dataclasses import dataclass

import numpy as np

from model_store.manifest import ResidualQuantiles
from training.residuals import Residuals, magnitudes, scaled, tails
from training.splits import Mask
from training.uncertainty import COVERAGE

TENTHS = 10


def interval_around(held_out: Residuals, own: Residuals) -> ResidualQuantiles | None:
    """The interval around a model's predictions, from residuals (actual - predicted) in any unit.

    `held_out` (n,) are of rows that the model of their fold had not seen, `own` (m,) of the rows that the
    model itself was fitted on. Each tail is bounded by the held-out residual of rank (n + 1)(1 - a) with
    a = (1 - coverage) / 2, or by that of the magnitudes where n is too small for tails of their own. None
    where it is too small for either. Rows count alike, whatever they weigh.

    For one fold this is the split-conformal interval of Lei et al., Distribution-Free Predictive Inference
    for Regression (2018), around a model that was fitted on all rows in place of some; for more, the
    jackknife's with rows left out by folds (Barber, Candès, Ramdas and Tibshirani, Predictive Inference with
    the Jackknife+, 2021, section 1). Its coverage holds for new rows where such models differ little from
    that of all rows (Steinberger and Leeb, Conditional Predictive Inference for Stable Algorithms, 2023). So
    it is no narrower than what bounds as many of the model's own residuals, and it holds its prediction.

    Where one width would hold too many rows of some predictions and too few of others, residuals are divided
    by a scale that depends on the prediction (Lei et al., section 5.2; Papadopoulos, Vovk and Gammerman,
    Regression Conformal Prediction with Nearest Neighbours, 2011).
    """
    quantiles = quantiles_of(held_out)
    if quantiles is None:
        return None
    tail, scale = (1 - COVERAGE) / 2, quantiles.scale
    values = own.values / scale.at(own.outputs) if scale else own.values
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return quantiles.model_copy(
        update={"lower": min(quantiles.lower, low, 0.0), "upper": max(quantiles.upper, high, 0.0)}
    )


def quantiles_of(residuals: Residuals) -> ResidualQuantiles | None:
    """What bounds residuals of n held-out rows; None for fewer than 9."""
    divided = scaled(residuals)
    values = divided.values if divided else residuals.values
    bounds = tails(values) or magnitudes(values)
    return bounds and ResidualQuantiles(
        coverage=COVERAGE,
        lower=bounds[0],
        upper=bounds[1],
        method="cross-validation" if residuals.in_folds else "split conformal",
        scale=divided.scale if divided else None,
    )


@dataclass(frozen=True)
class Tenth:
    """A tenth of the held-out rows, by what was predicted: from `least` to `most`, as the network gives it.

    `held` is the share of its rows that lie in intervals which were made without them, `error` the binomial
    standard deviation of what it would be if each held a row as often as it claims.
    """

    least: float
    most: float
    rows: int
    held: float
    error: float


def coverage_by_tenth(residuals: Residuals) -> tuple[Tenth, ...]:
    """How many held-out rows lie in the intervals that other folds make; empty for fewer than 100 rows."""
    if residuals.rows < TENTHS * TENTHS:
        return ()
    is_held, outputs = np.zeros(residuals.rows, np.bool_), residuals.outputs
    for rows, others in residuals.parts():
        quantiles = quantiles_of(residuals.take(others))
        if quantiles:
            is_held[rows] = held_by(quantiles, residuals.take(rows))
    return tuple(
        Tenth(
            least=float(outputs[rows[0]]),
            most=float(outputs[rows[-1]]),
            rows=len(rows),
            held=float(is_held[rows].mean()),
            error=math.sqrt(COVERAGE * (1 - COVERAGE) / len(rows)),
        )
        for rows in np.array_split(np.argsort(outputs, kind="stable"), TENTHS)
    )


def held_by(quantiles: ResidualQuantiles, residuals: Residuals) -> Mask:
    """Which of n rows lie in their intervals: (n,)."""
    lower, upper = quantiles.bounds(residuals.outputs)
    actual = residuals.outputs + residuals.values
    held: Mask = (lower <= actual) & (actual <= upper)
    return held
