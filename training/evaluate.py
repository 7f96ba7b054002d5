"""How good a model is on rows it has not seen, beside the two it has to beat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_store.columns import Matrix, encode
from model_store.manifest import Folds, Metrics, ResidualQuantiles, Scores
from training.data import DataError, Table
from training.recipe import Recipe
from training.splits import FEWEST_HELD_OUT, Fold, cross_validation, hold_out_rows, since, way_out
from training.train import Model, best_epochs, train

COVERAGE = 0.9


def mean_squared_error(actual: Matrix, predicted: Matrix, weights: Matrix | None = None) -> float:
    """Mean of the squared residuals, weighted if `weights` are given; all (n,), the first two in one unit."""
    return float(np.average((actual - predicted) ** 2, weights=weights))


def score(actual: Matrix, predicted: Matrix, weights: Matrix | None = None) -> Scores:
    """MSE, RMSE, MAE and R² (1 - residual sum of squares / total sum of squares) of predictions (n,).

    `actual` (n,) has to vary; RMSE and MAE are in its unit. With `weights` (n,) means and sums are weighted.
    """
    mse = mean_squared_error(actual, predicted, weights)
    mean = np.full_like(actual, np.average(actual, weights=weights))
    return Scores(
        mse=mse,
        rmse=math.sqrt(mse),
        mae=float(np.average(np.abs(actual - predicted), weights=weights)),
        r2=1 - mse / mean_squared_error(actual, mean, weights),
    )


def score_beside_baselines(
    actual: Matrix,
    predicted: Matrix,
    line: Matrix,
    mean: Matrix | float,
    weights: Matrix | None = None,
) -> Metrics:
    """Score n held-out predictions beside those of the exact line and the mean of the rows the model saw.

    All but the weights are in the target's unit; all are of shape (n,), or the mean is the same for all.
    """
    return Metrics(
        rows=len(actual),
        model=score(actual, predicted, weights),
        predict_the_mean=score(actual, np.full_like(actual, mean), weights),
        least_squares=score(actual, line, weights),
    )


def conformal_interval(residuals: Matrix) -> ResidualQuantiles | None:
    """The split-conformal interval from held-out residuals (actual - predicted), shape (n,), in any unit.

    Each tail is bounded by the residual of rank (n + 1)(1 - a) with a = (1 - coverage) / 2, as Lei et al.,
    Distribution-Free Predictive Inference for Regression (2018), do for absolute residuals; tails of their
    own suit a skewed target. Rows count alike, whatever they weigh. None when n is too small for such a rank.
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


@dataclass(frozen=True)
class Outcome:
    """What was true of n held-out rows and what was said of them, by the model and by the two it has to beat.

    Each is (n,) and in the target's unit, but for the `weights` and for the `residuals`, which are in that of
    the network's outputs.
    """

    actual: Matrix
    predicted: Matrix
    line: Matrix
    mean: Matrix
    residuals: Matrix
    weights: Matrix | None

    def metrics(self) -> Metrics:
        """The scores."""
        return score_beside_baselines(self.actual, self.predicted, self.line, self.mean, self.weights)


def hold_out(recipe: Recipe, table: Table) -> HeldOut:
    """Train on some rows and score on the others, about the recipe's share `holdout`.

    Raises DataError when the held-out rows are too few or too alike to score on or one of their predictions
    overflows, and what `train` raises.
    """
    fold = hold_out_rows(table, recipe.holdout, recipe.schedule.seed)
    outcome = try_out(recipe, *parts(table, fold))
    metrics = outcome.metrics().model_copy(update={"since": since(table, [fold])})
    return HeldOut(metrics, conformal_interval(outcome.residuals), outcome.actual, outcome.predicted)


def cross_validate(recipe: Recipe, table: Table) -> HeldOut:
    """Score a model for each of the recipe's folds, an mlp's epochs settled on the rows that it sees.

    Scores and interval are of all held-out rows together. Raises what `hold_out` does.
    """
    assert recipe.cross_validate is not None
    folds = cross_validation(table, recipe.cross_validate, recipe.schedule.seed)
    outcomes: list[Outcome] = []
    for fold in folds:
        seen, held = parts(table, fold)
        outcomes.append(try_out(best_epochs(recipe, seen), seen, held))
    whole = together(outcomes)
    spread = over_folds([outcome.metrics().model for outcome in outcomes])
    metrics = whole.metrics().model_copy(update={"since": since(table, folds), "folds": spread})
    return HeldOut(metrics, conformal_interval(whole.residuals), whole.actual, whole.predicted)


def parts(table: Table, fold: Fold) -> tuple[Table, Table]:
    """The rows to fit and those to score on; raises DataError for too few, or too alike ones."""
    seen, held = table.take(fold.seen), table.take(fold.held)
    actual = held.target()
    if min(held.rows, seen.rows) < FEWEST_HELD_OUT or actual.min() == actual.max():
        message = (
            f"holding out {held.rows} of the {table.rows} rows of {table.source} leaves too few to fit or to "
            f"score on. Give more rows, or {way_out(table)}"
        )
        raise DataError(message)
    return seen, held


def try_out(recipe: Recipe, seen: Table, held: Table) -> Outcome:
    """Train on the rows seen and predict the others; raises DataError where a prediction overflows."""
    try:
        model = train(recipe, seen)
    except DataError as error:
        message = f"of the {seen.rows} rows that are fitted to score the others: {error}, or score otherwise"
        raise DataError(message) from None
    actual = held.target()
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
            f"a held-out row of {held.source} is so far outside that its prediction overflows. "
            "Look for an outlier, or take --holdout 0 to go without scores"
        )
        raise DataError(message)
    return Outcome(
        actual=actual,
        predicted=predicted,
        line=model.predictions(line),
        mean=np.full_like(actual, target_mean(model, seen)),
        residuals=(np.log(actual) if model.target.transform == "log" else actual) - outputs,
        weights=held.blocks.weights,
    )


def target_mean(model: Model, seen: Table) -> float:
    """The mean of the target over the rows that a model saw, weighted as they are."""
    weights = seen.blocks.weights
    return model.target.mean if weights is None else float(np.average(seen.target(), weights=weights))


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcomes of all folds as one."""
    weights = [each.weights for each in outcomes if each.weights is not None]
    return Outcome(
        actual=np.concatenate([each.actual for each in outcomes]),
        predicted=np.concatenate([each.predicted for each in outcomes]),
        line=np.concatenate([each.line for each in outcomes]),
        mean=np.concatenate([each.mean for each in outcomes]),
        residuals=np.concatenate([each.residuals for each in outcomes]),
        weights=np.concatenate(weights) if weights else None,
    )


def over_folds(scores: Sequence[Scores]) -> Folds:
    """How the scores vary from fold to fold."""
    values = np.array([list(each.model_dump().values()) for each in scores])
    mean, std = values.mean(axis=0).tolist(), values.std(axis=0, ddof=1).tolist()
    return Folds(
        count=len(scores),
        mean=Scores(**dict(zip(Scores.model_fields, mean, strict=True))),
        std=Scores(**dict(zip(Scores.model_fields, std, strict=True))),
    )
