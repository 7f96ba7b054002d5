"""Bounds of scores that hold the population's as often as they say."""

from statistics import NormalDist

import numpy as np
import pytest
from sklearn.metrics import r2_score

from model_store.columns import Matrix
from model_store.manifest import Uncertainty
from training import uncertainty as subject


def uncertainty(
    actual: Matrix, predicted: Matrix, weights: Matrix | None = None, groups: Matrix | None = None
) -> Uncertainty:
    """The bounds, which are there."""
    bounds = subject.uncertainty(actual, predicted, weights, groups)
    assert bounds is not None
    return bounds


def drawn(rows: int, seed: int) -> tuple[Matrix, Matrix]:
    """Targets and predictions whose R² in the population is 1 - 0.25 / 1.25."""
    rng = np.random.default_rng(seed)
    predicted = rng.normal(size=rows)
    return predicted + 0.5 * rng.normal(size=rows), predicted


def test_the_bounds_of_scores_are_percentiles_of_rows_drawn_with_replacement() -> None:
    actual, predicted = drawn(150, seed=0)
    rng = np.random.default_rng(1)
    orders = rng.integers(150, size=(4000, 150))
    # As far out as Student's t with 149 degrees of freedom: 1.6551 standard deviations, times √(150 / 149).
    tail = NormalDist().cdf(-1.6551 * (150 / 149) ** 0.5)
    oracle = np.quantile([r2_score(actual[rows], predicted[rows]) for rows in orders], [tail, 1 - tail])
    bounds = uncertainty(actual, predicted)
    # A percentile of a thousand drawings errs by about a fifteenth of the bounds' distance at most.
    assert [bounds.lower.r2, bounds.upper.r2] == pytest.approx(oracle, abs=np.ptp(oracle) / 12)
    errors = np.quantile([np.mean(np.abs(actual - predicted)[rows]) for rows in orders], [tail, 1 - tail])
    assert [bounds.lower.mae, bounds.upper.mae] == pytest.approx(errors, abs=np.ptp(errors) / 12)
    assert bounds.lower.rmse == pytest.approx(bounds.lower.mse**0.5, rel=1e-6)


def test_fewer_than_twenty_rows_or_groups_have_no_bounds() -> None:
    assert subject.uncertainty(*drawn(19, seed=0)) is None
    assert subject.uncertainty(*drawn(20, seed=0)) is not None
    actual, predicted = drawn(200, seed=0)
    assert subject.uncertainty(actual, predicted, groups=np.arange(200.0) % 19) is None


@pytest.mark.parametrize("rows", [25, 200, 3000])
def test_the_bounds_hold_the_populations_score_as_often_as_they_say(rows: int) -> None:
    trials, held = 100, 0
    for seed in range(trials):
        bounds = uncertainty(*drawn(rows, seed))
        held += bounds.lower.r2 <= 0.8 <= bounds.upper.r2
    # Percentiles of few rows are a little narrow: three points, and three binomial standard errors.
    assert held / trials == pytest.approx(0.9, abs=0.03 + 3 * (0.09 / trials) ** 0.5)


def test_rows_that_belong_together_are_drawn_together() -> None:
    actual, predicted = drawn(100, seed=3)
    alone = uncertainty(actual, predicted)
    copies, groups = np.repeat([actual, predicted], 20, axis=1), np.repeat(np.arange(100.0), 20)
    together = uncertainty(copies[0], copies[1], groups=groups)
    assert together.lower.r2 == pytest.approx(alone.lower.r2, abs=1e-12)
    assert together.upper.r2 == pytest.approx(alone.upper.r2, abs=1e-12)
    apart = uncertainty(copies[0], copies[1])
    assert apart.upper.r2 - apart.lower.r2 < 0.5 * (together.upper.r2 - together.lower.r2)


def test_weights_count_beside_one_another() -> None:
    actual, predicted = drawn(60, seed=4)
    weighted = uncertainty(actual, predicted, np.full(60, 2.0))
    assert weighted == uncertainty(actual, predicted)
    assert uncertainty(actual, predicted, np.where(np.arange(60) < 30, 3.0, 1.0)) != weighted


def test_one_row_that_decides_the_score_makes_it_uncertain() -> None:
    actual, predicted = drawn(300, seed=5)
    plain = uncertainty(actual, predicted)
    predicted[0] += 30
    wide = uncertainty(actual, predicted)
    assert wide.lower.r2 < 0
    assert wide.upper.r2 > 0.7
    assert plain.lower.r2 > 0.7
