"""Scores with their bounds, and intervals that hold as many new rows as they say."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import r2_score

from model_store.columns import Matrix
from model_store.manifest import ResidualQuantiles, Uncertainty
from training import uncertainty as subject
from training.blocks import Blocks
from training.data import Table
from training.evaluate import claimed_interval, evaluate, own_rows
from training.recipe import make_recipe
from training.train import train
from training.uncertainty import interval_around

NO_ROWS_OF_ITS_OWN = np.zeros(1)


def uncertainty(
    actual: Matrix, predicted: Matrix, weights: Matrix | None = None, groups: Matrix | None = None
) -> Uncertainty:
    """The bounds, which are there."""
    bounds = subject.uncertainty(actual, predicted, weights, groups)
    assert bounds is not None
    return bounds


def test_the_interval_covers_new_rows_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    trials, fresh, covered = 400, 50, 0
    for _ in range(trials):
        interval = interval_around(rng.normal(size=99), NO_ROWS_OF_ITS_OWN, folds=1)
        assert interval is not None
        new = rng.normal(size=fresh)
        covered += int(np.sum((new >= interval.lower) & (new <= interval.upper)))
    # Ranks 5 and 95 of 99 bound exactly 0.9 on average. A trial's own coverage is Beta(90, 10), variance
    # 0.09 / 101; its 50 fresh rows add a binomial 0.09 / 50. Five standard errors are allowed.
    error = (0.09 / 101 + 0.09 / fresh) ** 0.5 / trials**0.5
    assert covered / (trials * fresh) == pytest.approx(0.9, abs=5 * error)


@pytest.mark.parametrize(
    ("rows", "bounds"),
    [(8, None), (9, (-8.0, 8.0)), (18, (-17.0, 17.0)), (19, (0.0, 18.0)), (39, (0.0, 37.0))],
)
def test_few_residuals_bound_both_sides_alike_and_fewer_none(
    rows: int, bounds: tuple[float, float] | None
) -> None:
    interval = interval_around(np.arange(float(rows)), NO_ROWS_OF_ITS_OWN, folds=5)
    assert (interval and (interval.lower, interval.upper)) == bounds


def test_an_interval_holds_its_prediction_and_as_many_of_the_models_own_residuals() -> None:
    held_out = np.linspace(3, 4, 99)
    interval = interval_around(held_out, NO_ROWS_OF_ITS_OWN, folds=5)
    assert interval == ResidualQuantiles(
        coverage=0.9, lower=0.0, upper=float(held_out[94]), method="cross-validation"
    )
    own = np.linspace(-10, 10, 1001)
    wider = interval_around(held_out, own, folds=1)
    assert wider is not None
    assert (wider.lower, wider.upper, wider.method) == (-9.0, 9.0, "split conformal")


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


def rows_of(count: int, inputs: int, rng: np.random.Generator) -> Matrix:
    """Encoded rows of a noisy line, the target last and far from zero."""
    x = rng.normal(size=(count, inputs))
    return np.column_stack([x, 500 + 40 * x[:, 0] + 20 * rng.normal(size=count)])


def coverage(rows: int, inputs: int, trials: int, **fields: Any) -> tuple[float, int]:
    """How many of fresh rows the served interval holds, and how often none was claimed."""
    names = [f"x{index}" for index in range(inputs)]
    recipe = make_recipe({"target": {"name": "y"}, "features": [{"name": name} for name in names], **fields})
    held, none = [], 0
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        table = Table("t.csv", recipe, Blocks([rows_of(rows, inputs, rng)], inputs + 1), {}, {}, {}, "")
        model, held_out = train(recipe, table), evaluate(recipe, table)
        interval = claimed_interval(model, own_rows(model, table), held_out)
        if interval is None:
            none += 1
            continue
        assert interval.lower <= 0 <= interval.upper
        fresh = rows_of(400, inputs, rng)
        errors = fresh[:, -1] - model.predict(dict(zip(names, fresh.T, strict=False)))
        held.append(np.mean((errors >= interval.lower) & (errors <= interval.upper)))
    return (float(np.mean(held)) if held else 1.0), none


@pytest.mark.parametrize(
    ("rows", "inputs", "fields"),
    [
        (12, 2, {}),
        (30, 3, {}),
        (100, 3, {}),
        (100, 60, {}),
        (100, 75, {}),
        (60, 3, {"schedule": {"optimizer": "adam", "epochs": 5}}),
        (60, 3, {"schedule": {"optimizer": "adam", "learning_rate": 1.0, "epochs": 30}}),
        (60, 3, {"schedule": {"optimizer": "gd", "learning_rate": 0.001, "epochs": 50}}),
        (60, 3, {"holdout": 0.5}),
    ],
    ids=str,
)
def test_the_interval_of_the_served_model_holds_nine_of_ten_new_rows(
    rows: int, inputs: int, fields: dict[str, Any]
) -> None:
    trials = 20
    held, none = coverage(rows, inputs, trials, **fields)
    assert none == 0
    # A trial's coverage spreads like that of `rows` residuals' quantiles, and its fresh rows binomially.
    assert held > 0.9 - 3 * ((0.09 / rows + 0.09 / 400) / trials) ** 0.5


@pytest.mark.parametrize("inputs", [79, 95, 120])
def test_a_line_with_as_many_weights_as_rows_claims_no_interval(inputs: int) -> None:
    assert coverage(100, inputs, trials=3) == (1.0, 3)
