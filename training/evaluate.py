"""How good a model is on rows it has not seen, beside the two it has to beat."""

import math

import numpy as np

from model_store.encoding import Matrix
from model_store.manifest import Metrics, ResidualQuantiles, Scores

COVERAGE = 0.9


def mean_squared_error(actual: Matrix, predicted: Matrix) -> float:
    """Mean of the squared residuals."""
    return float(np.mean((actual - predicted) ** 2))


def score(actual: Matrix, predicted: Matrix) -> Scores:
    """MSE, RMSE, MAE and R² (1 - residual sum of squares / total sum of squares) of n predictions."""
    mse = mean_squared_error(actual, predicted)
    return Scores(
        mse=mse,
        rmse=math.sqrt(mse),
        mae=float(np.mean(np.abs(actual - predicted))),
        r2=1 - mse / float(np.var(actual)),
    )


def least_squares(inputs: Matrix, target: Matrix, new_inputs: Matrix) -> Matrix:
    """Fit a line with a bias exactly on inputs (n, k) and the target (n,), and predict for (m, k): (m,)."""
    weights = np.linalg.lstsq(with_bias(inputs), target, rcond=None)[0]
    predictions: Matrix = with_bias(new_inputs) @ weights
    return predictions


def with_bias(inputs: Matrix) -> Matrix:
    """The inputs (n, k) with a column of ones behind them, (n, k + 1)."""
    return np.column_stack([inputs, np.ones(len(inputs))])


def compare(actual: Matrix, predicted: Matrix, inputs: Matrix, seen: Matrix, seen_target: Matrix) -> Metrics:
    """Score predictions for held-out `inputs` beside baselines fitted on the rows the model has seen."""
    return Metrics(
        rows=len(actual),
        model=score(actual, predicted),
        predict_the_mean=score(actual, np.full_like(actual, seen_target.mean())),
        least_squares=score(actual, least_squares(seen, seen_target, inputs)),
    )


def conformal_interval(residuals: Matrix) -> ResidualQuantiles | None:
    """The split-conformal interval from held-out residuals (actual - predicted), shape (n,).

    Each tail is bounded by the residual of rank (n + 1)(1 - a) with a = (1 - coverage) / 2, as Lei et al.,
    Distribution-Free Predictive Inference for Regression (2018), do for absolute residuals; tails of their
    own suit a skewed target. None when n is too small for such a rank to exist.
    """
    n = len(residuals)
    rank = math.ceil((n + 1) * (1 + COVERAGE) / 2)
    if rank > n:
        return None
    ordered = np.sort(residuals)
    return ResidualQuantiles(
        coverage=COVERAGE, lower=float(ordered[n - rank]), upper=float(ordered[rank - 1])
    )
