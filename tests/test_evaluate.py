import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from training.evaluate import conformal_interval, score, score_beside_baselines


def test_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=100)
    predicted = actual + rng.normal(size=100) / 2
    scores = score(actual, predicted)
    assert scores.mse == pytest.approx(mean_squared_error(actual, predicted), rel=1e-13)
    assert scores.rmse == pytest.approx(mean_squared_error(actual, predicted) ** 0.5, rel=1e-13)
    assert scores.mae == pytest.approx(mean_absolute_error(actual, predicted), rel=1e-13)
    assert scores.r2 == pytest.approx(r2_score(actual, predicted), rel=1e-13)


def test_the_model_stands_beside_the_line_and_the_mean_of_the_rows_it_saw() -> None:
    rng = np.random.default_rng(1)
    actual = rng.normal(size=20)
    metrics = score_beside_baselines(actual, actual + 1, actual + 2, mean=3.0)
    assert metrics.rows == 20
    assert metrics.model.mae == pytest.approx(1)
    assert metrics.least_squares.mae == pytest.approx(2)
    assert metrics.predict_the_mean.mse == pytest.approx(np.mean((actual - 3) ** 2), rel=1e-12)


def test_the_interval_covers_new_rows_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    trials, fresh, covered = 400, 50, 0
    for _ in range(trials):
        interval = conformal_interval(rng.gamma(2.0, size=99))
        assert interval is not None
        new = rng.gamma(2.0, size=fresh)
        covered += int(np.sum((new >= interval.lower) & (new <= interval.upper)))
    # Ranks 5 and 95 of 99 bound exactly 0.9 on average. A trial's own coverage is Beta(90, 10), variance
    # 0.09 / 101; its 50 fresh rows add a binomial 0.09 / 50. Five standard errors are allowed.
    error = (0.09 / 101 + 0.09 / fresh) ** 0.5 / trials**0.5
    assert covered / (trials * fresh) == pytest.approx(0.9, abs=5 * error)


def test_the_interval_is_left_out_when_the_residuals_are_too_few() -> None:
    assert conformal_interval(np.arange(18.0)) is None
    interval = conformal_interval(np.arange(19.0))
    assert interval is not None
    assert (interval.lower, interval.upper) == (0.0, 18.0)
