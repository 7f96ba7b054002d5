"""Intervals that hold as many new rows as they say, of all predictions and of the least and the greatest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model_store.columns import Matrix
from model_store.manifest import ResidualQuantiles
from training.blocks import Blocks
from training.data import Table
from training.evaluate import claimed_interval, evaluate, own_rows
from training.intervals import coverage_by_tenth, interval_around
from training.recipe import make_recipe
from training.residuals import Residuals
from training.train import train


def alike(residuals: Matrix, folds: int = 1) -> Residuals:
    """Residuals of predictions that are all the same."""
    return Residuals(np.zeros(len(residuals)), residuals, np.arange(len(residuals)) % folds)


NO_ROWS_OF_ITS_OWN = alike(np.zeros(1))


def test_the_interval_covers_new_rows_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    trials, fresh, covered = 400, 50, 0
    for _ in range(trials):
        interval = interval_around(alike(rng.normal(size=99)), NO_ROWS_OF_ITS_OWN)
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
    interval = interval_around(alike(np.arange(float(rows)), 5), NO_ROWS_OF_ITS_OWN)
    assert (interval and (interval.lower, interval.upper)) == bounds


def test_an_interval_holds_its_prediction_and_as_many_of_the_models_own_residuals() -> None:
    held_out = np.linspace(3, 4, 99)
    interval = interval_around(alike(held_out, 5), NO_ROWS_OF_ITS_OWN)
    assert interval == ResidualQuantiles(
        coverage=0.9, lower=0.0, upper=float(held_out[94]), method="cross-validation"
    )
    own = np.linspace(-10, 10, 1001)
    wider = interval_around(alike(held_out), alike(own))
    assert wider is not None
    assert (wider.lower, wider.upper, wider.method) == (-9.0, 9.0, "split conformal")


def wedge(rows: int, rng: np.random.Generator, folds: int = 5) -> Residuals:
    """Predictions from 1 to 20 and normal residuals whose standard deviation is a fifth of the prediction."""
    outputs = rng.uniform(1, 20, rows)
    return Residuals(outputs, 0.2 * outputs * rng.normal(size=rows), np.arange(rows) % folds)


def level(rows: int, rng: np.random.Generator, folds: int = 5) -> Residuals:
    """Predictions that say nothing of the residuals, which are normal."""
    return Residuals(rng.normal(size=rows), rng.normal(size=rows), np.arange(rows) % folds)


def around(residuals: Residuals, own: Residuals = NO_ROWS_OF_ITS_OWN) -> ResidualQuantiles:
    """The interval, which there is."""
    interval = interval_around(residuals, own)
    assert interval is not None
    return interval


def held_in_tenths(residuals: Residuals, interval: ResidualQuantiles) -> Matrix:
    """The share of rows that lie in their intervals, by tenth of the prediction: (10,)."""
    (lower, upper), actual = interval.bounds(residuals.outputs), residuals.outputs + residuals.values
    held = (lower <= actual) & (actual <= upper)
    return np.array([held[rows].mean() for rows in np.array_split(np.argsort(residuals.outputs), 10)])


@pytest.mark.parametrize("folds", [1, 2, 5, 200])
def test_where_the_model_errs_more_the_interval_is_wider_and_holds_as_many_everywhere(folds: int) -> None:
    trials, rows, fresh = 30, 1000, 2000
    tenths = []
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        interval = around(wedge(rows, rng, folds))
        assert interval.scale is not None
        tenths.append(held_in_tenths(wedge(fresh, rng), interval))
    # A tenth's bounds come from a tenth of the rows.
    error = ((0.09 / (rows / 10) + 0.09 / (fresh / 10)) / trials) ** 0.5
    assert (np.mean(tenths, axis=0) > 0.9 - 3 * error).all()
    assert np.mean(tenths) == pytest.approx(0.9, abs=0.01)


def test_one_width_holds_nearly_all_of_the_least_predictions_and_too_few_of_the_greatest() -> None:
    rng = np.random.default_rng(0)
    made, new = wedge(1000, rng), wedge(20_000, rng)
    one, scaled = around(alike(made.values)), around(made)
    tenths = held_in_tenths(new, one)
    assert tenths[0] == 1
    assert tenths[-1] < 0.75
    narrower, wider = (np.ptp(interval.bounds(new.outputs), axis=0).mean() for interval in (scaled, one))
    assert narrower < 0.9 * wider


@pytest.mark.parametrize("rows", [30, 100, 500, 2000])
def test_where_the_model_errs_alike_intervals_are_hardly_wider_than_one_width(rows: int) -> None:
    for seed in range(20):
        made = level(rows, np.random.default_rng(seed))
        one, interval = around(alike(made.values)), around(made)
        assert np.ptp(interval.bounds(made.outputs), axis=0).mean() <= 1.1 * (one.upper - one.lower)
        assert interval.scale is None or rows > 100


def test_folds_whose_models_predict_each_in_a_place_of_its_own_have_one_width() -> None:
    rng = np.random.default_rng(0)
    folds = np.arange(1000) % 5
    values = rng.normal(size=1000) * (1 + 2 * (folds == 4))
    assert around(Residuals(folds + 0.1 * rng.normal(size=1000), values, folds)).scale is None


@pytest.mark.parametrize(
    "residuals",
    [
        Residuals(np.arange(500.0), np.zeros(500)),
        Residuals(np.arange(500.0), np.where(np.arange(500) == 7, 1.0, 0.0)),
        Residuals(np.zeros(500), np.arange(500.0)),
        Residuals(np.arange(500.0) % 2, np.arange(500.0) % 3),
        Residuals(np.append(np.arange(999.0) / 1e10, 1.0), np.arange(1000.0) * np.cos(np.arange(1000.0))),
    ],
    ids=["none errs", "one errs", "one prediction", "two predictions", "one far away"],
)
def test_what_tells_nothing_of_where_the_model_errs_has_one_width(residuals: Residuals) -> None:
    assert around(residuals).scale is None


def test_predictions_of_few_values_have_each_their_width() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.choice([1.0, 2.0, 5.0], 2000, p=[0.7, 0.2, 0.1])
    scale = around(Residuals(outputs, outputs * rng.normal(size=2000))).scale
    assert scale is not None
    assert scale.outputs == (1.0, 2.0, 5.0)
    # Nine in ten standard normal numbers are at most 1.645 from zero.
    assert np.array(scale.sizes) / 1.645 == pytest.approx(np.array([1.0, 2.0, 5.0]), rel=0.15)


def test_the_models_own_residuals_widen_the_interval_in_the_units_of_its_scale() -> None:
    made, own = wedge(1000, np.random.default_rng(0)), wedge(1000, np.random.default_rng(1))
    narrow, wide = around(made), around(made, Residuals(own.outputs, 3 * own.values))
    assert wide.scale == narrow.scale
    assert wide.upper / narrow.upper == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("folds", [1, 2, 5, 1000])
@pytest.mark.parametrize("make", [wedge, level])
def test_tenths_are_held_as_often_as_is_claimed_within_their_error(
    make: Callable[[int, np.random.Generator, int], Residuals], folds: int
) -> None:
    tenths = coverage_by_tenth(make(1000, np.random.default_rng(3), folds))
    assert [tenth.rows for tenth in tenths] == [100] * 10
    assert [tenth.error for tenth in tenths] == [pytest.approx(0.03)] * 10
    assert all(abs(tenth.held - 0.9) < 3.5 * tenth.error for tenth in tenths)
    borders = [border for tenth in tenths for border in (tenth.least, tenth.most)]
    assert borders == sorted(borders)


def test_tenths_are_judged_by_the_intervals_of_other_folds() -> None:
    made = level(1000, np.random.default_rng(0))
    assert made.folds is not None
    shifted = Residuals(made.outputs, made.values + 100 * (made.folds == 0), made.folds)
    assert np.mean([tenth.held for tenth in coverage_by_tenth(shifted)]) < 0.8


def test_few_rows_have_no_tenths() -> None:
    assert coverage_by_tenth(level(99, np.random.default_rng(0))) == ()


def rows_of(count: int, inputs: int, rng: np.random.Generator) -> Matrix:
    """Encoded rows of a noisy line, the target last and far from zero."""
    x = rng.normal(size=(count, inputs))
    return np.column_stack([x, 500 + 40 * x[:, 0] + 20 * rng.normal(size=count)])


def coverage(rows: int, inputs: int, trials: int, **fields: Any) -> tuple[float, int]:
    """How many of fresh rows the served interval holds, and how often none was claimed."""
    names = [f"x{index}" for index in range(inputs)]
    features = [{"name": name} for name in names]
    asked = {"target": {"name": "y"}, "features": features, "network": {"kind": "linear"}, **fields}
    recipe = make_recipe(asked)
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
        lower, upper = interval.bounds(model.predict(dict(zip(names, fresh.T, strict=False))))
        held.append(np.mean((lower <= fresh[:, -1]) & (fresh[:, -1] <= upper)))
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
