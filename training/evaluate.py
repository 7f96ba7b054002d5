"""How good a model is on rows it has not seen, beside the two it has to beat."""

import math

import numpy as np

from model_store.columns import Matrix
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


def compare(actual: Matrix, predicted: Matrix, line: Matrix, mean: float) -> Metrics:
    """Score n held-out predictions beside those of the exact line and the mean of the rows the model saw."""
    return Metrics(
        rows=len(actual),
        model=score(actual, predicted),
        predict_the_mean=score(actual, np.full_like(actual, mean)),
        least_squares=score(actual, line),
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
