"""How good a model is on rows it has not seen, beside the two it has to beat."""

import math
from dataclasses import dataclass

import numpy as np

from model_store.columns import Matrix, encode
from model_store.manifest import Metrics, ResidualQuantiles, Scores
from training.data import DataError, Table, split
from training.recipe import Recipe
from training.train import train

COVERAGE = 0.9
FEWEST_HELD_OUT = 2


def mean_squared_error(actual: Matrix, predicted: Matrix) -> float:
    """Mean of the squared residuals, both (n,) in the same unit, of which this is the square."""
    return float(np.mean((actual - predicted) ** 2))


def score(actual: Matrix, predicted: Matrix) -> Scores:
    """MSE, RMSE, MAE and R² (1 - residual sum of squares / total sum of squares) of predictions (n,).

    `actual` (n,) has to vary; RMSE and MAE are in its unit.
    """
    mse = mean_squared_error(actual, predicted)
    return Scores(
        mse=mse,
        rmse=math.sqrt(mse),
        mae=float(np.mean(np.abs(actual - predicted))),
        r2=1 - mse / float(np.var(actual)),
    )


def score_beside_baselines(actual: Matrix, predicted: Matrix, line: Matrix, mean: float) -> Metrics:
    """Score n held-out predictions beside those of the exact line and the mean of the rows the model saw.

    All are in the target's unit, the first three of shape (n,).
    """
    return Metrics(
        rows=len(actual),
        model=score(actual, predicted),
        predict_the_mean=score(actual, np.full_like(actual, mean)),
        least_squares=score(actual, line),
    )


def conformal_interval(residuals: Matrix) -> ResidualQuantiles | None:
    """The split-conformal interval from held-out residuals (actual - predicted), shape (n,), in any unit.

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


@dataclass(frozen=True)
class HeldOut:
    """What a model said of n rows it had not seen: scores and interval.

    `actual` and `predicted`, each (n,), are in the target's unit. The interval is in that of the network's
    outputs, a logarithm where the target's is trained.
    """

    metrics: Metrics
    interval: ResidualQuantiles | None
    actual: Matrix
    predicted: Matrix


def hold_out(recipe: Recipe, table: Table) -> HeldOut:
    """Train on some rows and score on the others, the recipe's share `holdout`.

    Raises DataError when the held-out rows are too few or too alike to score on or one of their predictions
    overflows, and what `train` raises.
    """
    held_out = split(table.rows, recipe.holdout, recipe.schedule.seed)
    held, seen = table.take(held_out), table.take(~held_out)
    actual = held.target()
    if min(held.rows, seen.rows) < FEWEST_HELD_OUT or actual.min() == actual.max():
        message = (
            f"holding out {held.rows} of the {table.rows} rows of {table.source} leaves too few to fit or to "
            "score on. Give more rows, or --holdout 0 to go without scores"
        )
        raise DataError(message)
    model = train(recipe, seen)
    outputs, line = np.concatenate(
        [
            [network.outputs(rows) for network in (model.fitted.network, model.line.network)]
            for rows in (encode(model.features, held.columns(block)) for block in held.blocks)
        ],
        axis=1,
    )
    predicted = model.predictions(outputs)
    if not np.isfinite(predicted).all():
        message = (
            f"a held-out row of {table.source} is so far outside that its prediction overflows. "
            "Look for an outlier, or take --holdout 0 to go without scores"
        )
        raise DataError(message)
    metrics = score_beside_baselines(actual, predicted, model.predictions(line), model.target.mean)
    residuals = (np.log(actual) if model.target.transform == "log" else actual) - outputs
    return HeldOut(metrics, conformal_interval(residuals), actual, predicted)
