"""Intervals that hold as many new rows as they say, of all predictions and of the least and the greatest."""

from typing import Any

import numpy as np
import pytest

from model_store.columns import Matrix
from model_store.manifest import ResidualQuantiles
from training.blocks import Blocks
from training.data import Table
from training.evaluate import claimed_interval, evaluate, own_rows
from training.intervals import interval_around
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
