from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from training.blocks import Blocks
from training.data import DataError, Table
from training.evaluate import evaluate, score, score_beside_baselines
from training.reading import read_table
from training.recipe import make_recipe
from training.splits import cross_validation, hold_out_rows


def test_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=100)
    predicted = actual + rng.normal(size=100) / 2
    scores = score(actual, predicted)
    assert scores.mse == pytest.approx(mean_squared_error(actual, predicted), rel=1e-13)
    assert scores.rmse == pytest.approx(mean_squared_error(actual, predicted) ** 0.5, rel=1e-13)
    assert scores.mae == pytest.approx(mean_absolute_error(actual, predicted), rel=1e-13)
    assert scores.r2 == pytest.approx(r2_score(actual, predicted), rel=1e-13)


def test_weighted_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    actual, weights = rng.normal(size=100), rng.uniform(0.1, 9, size=100)
    predicted = actual + rng.normal(size=100) / 2
    scores = score(actual, predicted, weights)
    mse = mean_squared_error(actual, predicted, sample_weight=weights)
    assert scores.mse == pytest.approx(mse, rel=1e-13)
    assert scores.rmse == pytest.approx(mse**0.5, rel=1e-13)
    mae = mean_absolute_error(actual, predicted, sample_weight=weights)
    assert scores.mae == pytest.approx(mae, rel=1e-13)
    assert scores.r2 == pytest.approx(r2_score(actual, predicted, sample_weight=weights), rel=1e-13)


def test_the_model_stands_beside_the_line_and_the_mean_of_the_rows_it_saw() -> None:
    rng = np.random.default_rng(1)
    actual = rng.normal(size=20)
    metrics = score_beside_baselines(actual, actual + 1, actual + 2, mean=3.0)
    assert metrics.rows == 20
    assert metrics.model.mae == pytest.approx(1)
    assert metrics.least_squares.mae == pytest.approx(2)
    assert metrics.predict_the_mean.mse == pytest.approx(np.mean((actual - 3) ** 2), rel=1e-12)


def table(**fields: Any) -> Table:
    """Sixty rows of 12 groups, weighted, that a line fits but for noise."""
    rng = np.random.default_rng(4)
    x, weights = rng.normal(size=60), rng.integers(1, 4, size=60).astype(np.float64)
    asked = {"target": {"name": "y"}, "features": [{"name": "x"}], "schedule": {"optimizer": "exact"}}
    recipe = make_recipe({**asked, **fields})
    blocks = Blocks([np.column_stack([x, 3 * x + rng.normal(size=60)])], 2, weights)
    return Table("table.csv", recipe, blocks, {}, {}, {}, "", rng.permutation(np.repeat(np.arange(12.0), 5)))


@pytest.mark.parametrize("split", ["random", "group:g", "time:g"])
def test_cross_validated_scores_are_scikit_learns_on_the_same_folds(split: str) -> None:
    made = table(split=split, cross_validate=4)
    held_out = evaluate(made.recipe, made)
    (x, y), weights = made.blocks[0].T, made.blocks.weights
    assert weights is not None
    r2, rows, predicted, mean = [], [], [], []
    for fold in cross_validation(made, 4, seed=0):
        oracle = LinearRegression().fit(x[fold.seen, None], y[fold.seen], sample_weight=weights[fold.seen])
        rows.extend(np.flatnonzero(fold.held).tolist())
        predicted.extend(oracle.predict(x[fold.held, None]).tolist())
        mean.extend([np.average(y[fold.seen], weights=weights[fold.seen])] * int(fold.held.sum()))
        r2.append(oracle.score(x[fold.held, None], y[fold.held], sample_weight=weights[fold.held]))
    actual, weighed = y[rows], weights[rows]
    metrics, folds = held_out.metrics, held_out.metrics.folds
    assert folds is not None
    assert metrics.rows == len(rows)
    assert held_out.actual == pytest.approx(actual)
    assert held_out.predicted == pytest.approx(np.array(predicted), rel=1e-9)
    assert metrics.model.r2 == pytest.approx(r2_score(actual, predicted, sample_weight=weighed), rel=1e-9)
    assert metrics.predict_the_mean.mae == pytest.approx(
        mean_absolute_error(actual, mean, sample_weight=weighed), rel=1e-9
    )
    assert folds.count == 4
    assert folds.mean.r2 == pytest.approx(np.mean(r2), rel=1e-9)
    assert folds.std.r2 == pytest.approx(np.std(r2, ddof=1), rel=1e-9)
    assert held_out.residuals.outputs == pytest.approx(np.array(predicted), rel=1e-9)
    assert held_out.residuals.values == pytest.approx(actual - np.array(predicted), rel=1e-9)
    sizes = [int(fold.held.sum()) for fold in cross_validation(made, 4, seed=0)]
    assert held_out.residuals.folds is not None
    assert held_out.residuals.folds.tolist() == [fold for fold, size in enumerate(sizes) for _ in range(size)]


def test_a_single_split_is_scored_with_the_rows_weights() -> None:
    made = table(holdout=0.3)
    held_out = evaluate(made.recipe, made)
    fold, (x, y), weights = hold_out_rows(made, 0.3, seed=0), made.blocks[0].T, made.blocks.weights
    assert weights is not None
    oracle = LinearRegression().fit(x[fold.seen, None], y[fold.seen], sample_weight=weights[fold.seen])
    r2 = oracle.score(x[fold.held, None], y[fold.held], sample_weight=weights[fold.held])
    for scores in (held_out.metrics.model, held_out.metrics.least_squares):
        assert scores.r2 == pytest.approx(r2, rel=1e-9)


def test_a_column_that_is_empty_in_the_rows_to_fit_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "t,x,y\n" + "".join(f"{row},{row % 7 if row > 79 else ''},{row % 5}\n" for row in range(100))
    )
    features = [{"name": "x", "missing": "indicator"}]
    asked = make_recipe({"target": {"name": "y"}, "features": features, "split": "time:t", "holdout": 0.2})
    with pytest.raises(
        DataError, match=r"^of the 80 rows that are fitted to score the others: the column 'x'"
    ):
        evaluate(asked, read_table(path, asked))
