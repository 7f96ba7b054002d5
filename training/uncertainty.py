"""How sure the scores are."""

import math
from statistics import NormalDist

import numpy as np

from model_store.columns import Matrix
from model_store.manifest import Scores, Uncertainty

COVERAGE = 0.9
RESAMPLES, MOST_PARTS = 1000, 500
FEWEST_DRAWN = 20


def uncertainty(
    actual: Matrix, predicted: Matrix, weights: Matrix | None = None, groups: Matrix | None = None
) -> Uncertainty | None:
    """Bounds of the scores on endlessly many rows like these, of n predictions; each (n,).

    The percentiles of the scores of rows drawn with replacement, of `groups` whole ones, somewhat further out
    the fewer there are (Hesterberg, What Teachers Should Know About the Bootstrap, 2015, section 3.4: the
    expanded percentile interval). More than 500 rows are put at random into as many parts, which are drawn
    whole. A drawing of equal rows has no R² and does not count there. None for fewer than 20 rows or groups,
    whose scores could be anything.
    """
    sums = sums_of_parts(actual - np.average(actual, weights=weights), actual - predicted, weights, groups)
    if len(sums) < FEWEST_DRAWN:
        return None
    draws = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    weight, total, squares, errors, error_squares = (draws @ sums).T
    mse, variance = error_squares / weight, squares / weight - (total / weight) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - mse / np.where(variance > 0, variance, np.nan)
    drawn = np.array([mse, np.sqrt(mse), errors / weight, r2])
    tail = expanded((1 - COVERAGE) / 2, len(sums))
    lower, upper = np.nanquantile(drawn, [tail, 1 - tail], axis=1).tolist()
    bounds = [Scores(**dict(zip(Scores.model_fields, bound, strict=True))) for bound in (lower, upper)]
    return Uncertainty(coverage=COVERAGE, lower=bounds[0], upper=bounds[1])


def expanded(tail: float, count: int) -> float:
    """The share of drawings of `count` parts to leave out on a side for about `tail` of the scores.

    A t-distribution's, whose quantile is expanded in that of the normal distribution (Abramowitz and Stegun,
    Handbook of Mathematical Functions, 1964, formula 26.7.5, its first two terms).
    """
    normal = NormalDist()
    z = normal.inv_cdf(tail)
    return normal.cdf(math.sqrt(count / (count - 1)) * (z + (z**3 + z) / (4 * (count - 1))))


def sums_of_parts(actual: Matrix, residuals: Matrix, weights: Matrix | None, groups: Matrix | None) -> Matrix:
    """For each part of the rows, the weighted sums that scores are made from: (parts, 5).

    They are those of 1, the target, its square, the residual's magnitude and its square. A part is a row, a
    group or, of more than 500 of them, some drawn at random.
    """
    weights = np.ones(len(actual)) if weights is None else weights
    labels = np.arange(len(actual)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(labels.max()) + 1
    if count > MOST_PARTS:
        labels = np.random.default_rng(0).permutation(count)[labels] % MOST_PARTS
    values = (np.ones(len(actual)), actual, actual**2, np.abs(residuals), residuals**2)
    return np.column_stack([np.bincount(labels, weights * value) for value in values])
