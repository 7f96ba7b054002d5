"""How good a model is on rows it has not seen, beside the two it has to beat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_store.columns import Feature, Matrix, encode
from model_store.manifest import Folds, Linear, Metrics, Mlp, ResidualQuantiles, Scores
from training.crossed import Crossed
from training.data import DataError, Table
from training.descent import Fitted
from training.intervals import interval_around
from training.recipe import Recipe
from training.residuals import Residuals
from training.splits import (
    FEWEST_HELD_OUT,
    Fold,
    Mask,
    crossed_folds,
    folds_of,
    hold_out_rows,
    since,
    way_out,
)
from training.stability import Unstable
from training.train import Model, train
from training.uncertainty import uncertainty

WATCHED = 0.1


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


@dataclass(frozen=True)
class HeldOut:
    """What models said of n rows that they had not seen: the scores, and what an interval is made from.

    `actual` and `predicted`, each (n,), are in the target's unit, the `residuals` in that of the network's
    outputs, a logarithm where the target's is trained. `epochs` are those that did best, if such were looked
    for, and `seen` the fewest rows that a model was fitted on.
    """

    metrics: Metrics
    actual: Matrix
    predicted: Matrix
    residuals: Residuals
    epochs: int | None
    seen: int


@dataclass(frozen=True)
class Own:
    """How a model errs on the rows that it was fitted on, in the unit of the network's outputs.

    `residuals` count alike, `cost` and `variance` of the target are weighted as the rows are.
    """

    residuals: Residuals
    cost: float
    variance: float

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.residuals.rows

    @property
    def is_worse_than_the_mean(self) -> bool:
        """Whether the mean is nearer to the rows by more than a hundredth."""
        return self.cost > 1.01 * self.variance


def own_rows(model: Model, table: Table) -> Own:
    """How a model errs on the rows of the table that it was fitted on."""
    target, weights = trained_target(model, table.target()), table.blocks.weights
    outputs = outputs_of(model.features, model.fitted, table)
    return Own(
        Residuals(outputs, target - outputs),
        cost=mean_squared_error(target, outputs, weights),
        variance=float(np.average((target - np.average(target, weights=weights)) ** 2, weights=weights)),
    )


def claimed_interval(model: Model, own: Own, held_out: HeldOut) -> ResidualQuantiles | None:
    """The interval around a model's predictions; None where none can be claimed.

    A line of as many weights as it has rows errs more than one of fewer rows (Hastie, Montanari, Rosset and
    Tibshirani, Surprises in High-Dimensional Ridgeless Least Squares Interpolation, 2022), so those that were
    scored say nothing of it.
    """
    if (
        isinstance(model.fitted.network.shape, Linear)
        and not isinstance(model.fitted, Crossed)
        and model.weights >= held_out.seen
    ):
        return None
    return interval_around(held_out.residuals, own.residuals)


@dataclass(frozen=True)
class Outcome:
    """What was true of n held-out rows and what was said of them, by the model and by the two it has to beat.

    Each is (n,) and in the target's unit, but for the `weights`, the `groups` that rows belong to, and the
    `residuals`, which are in the unit of the network's outputs. `epochs` are those of the model.
    """

    actual: Matrix
    predicted: Matrix
    line: Matrix
    mean: Matrix
    residuals: Residuals
    weights: Matrix | None
    groups: Matrix | None
    epochs: int

    def metrics(self) -> Metrics:
        """The scores."""
        return score_beside_baselines(self.actual, self.predicted, self.line, self.mean, self.weights)


def evaluate(recipe: Recipe, table: Table, model: Model | None = None) -> HeldOut:
    """Score a model for each of the table's folds: fitted on the rows it sees, on those it holds out.

    A `model` that was fitted so that each row was left out once is scored by what was said of it then, unless
    rows are split by time or held out once.
    Of an mlp the epochs are found that do best on a tenth of the rows seen. Scores are of all held-out rows
    together. Raises DataError when rows are too few or too alike to score on, when a prediction overflows or
    when no epoch does any good, and what `train` raises.
    """
    folds = folds_of(table)
    if model and isinstance(model.fitted, Crossed) and recipe.in_folds and recipe.split.kind != "time":
        labels = crossed_folds(table)
        folds = [Fold(labels != fold, labels == fold) for fold in range(int(labels.max()) + 1)]
        outcomes = [left_out(recipe, table, model, model.fitted, fold) for fold in folds]
    else:
        outcomes = [try_out(recipe, *parts(table, fold)) for fold in folds]
    whole = together(outcomes)
    metrics = whole.metrics().model_copy(
        update={
            "since": since(table, folds),
            "folds": over_folds([outcome.metrics().model for outcome in outcomes]) if folds[1:] else None,
            "uncertainty": uncertainty(whole.actual, whole.predicted, whole.weights, whole.groups),
        }
    )
    return HeldOut(
        metrics,
        whole.actual,
        whole.predicted,
        whole.residuals,
        epochs=best_epochs(table, outcomes) if isinstance(recipe.network, Mlp) else None,
        seen=min(int(fold.seen.sum()) for fold in folds),
    )


def best_epochs(table: Table, outcomes: Sequence[Outcome]) -> int:
    """The median of the folds' best numbers of epochs; raises DataError if that is none."""
    epochs = int(np.median([outcome.epochs for outcome in outcomes]))
    if not epochs:
        message = (
            f"no epoch of training does any good on rows left out of the {table.rows} of {table.source}: "
            "they are too few for this network, tell nothing of the target, or the optimizer "
            f"{table.recipe.schedule.optimizer} is too slow for them. Give more rows, take --optimizer adam, "
            "or --network linear"
        )
        raise DataError(message)
    return epochs


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
        model = train(recipe, seen, watched=watched_rows(recipe, seen))
    except (DataError, Unstable) as error:
        message = f"of the {seen.rows} rows that are fitted to score the others: {error}, or score otherwise"
        raise type(error)(message) from None
    actual = held.target()
    outputs = outputs_of(model.features, model.fitted, held)
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
        line=model.predictions(outputs_of(model.line_features, model.line, held)),
        mean=np.full_like(actual, target_mean(model, seen)),
        residuals=Residuals(outputs, trained_target(model, actual) - outputs),
        weights=held.blocks.weights,
        groups=held.split_by if recipe.split.kind == "group" else None,
        epochs=model.fitted.epochs,
    )


def outputs_of(features: Sequence[Feature], fitted: Fitted, table: Table) -> Matrix:
    """What a network gives for the rows of a table as these features encode them, (rows,)."""
    blocks = (encode(features, table.columns(block)) for block in table.blocks)
    return np.concatenate([fitted.network.outputs(rows) for rows in blocks])


def trained_target(model: Model, target: Matrix) -> Matrix:
    """The targets (n,) as the network is to give them."""
    return np.log(target) if model.target.transform == "log" else target


def left_out(recipe: Recipe, table: Table, model: Model, crossed: Crossed, fold: Fold) -> Outcome:
    """What the model said of a fold's rows when they were left out, beside the exact line of the others."""
    line = exact_line(recipe)
    outcome = try_out(line, *parts(replace(table, recipe=line), fold))
    outputs = crossed.out_of_fold[fold.held]
    outputs = outputs + math.log(model.target.smearing or 1.0)
    return replace(
        outcome,
        predicted=model.predictions(outputs),
        residuals=Residuals(outputs, trained_target(model, outcome.actual) - outputs),
        epochs=crossed.epochs,
    )


def exact_line(recipe: Recipe) -> Recipe:
    """The recipe of the exact line through the same inputs, numbers as z-scores."""
    update = {
        "network": Linear(),
        "encoding": None,
        "features": tuple(each.model_copy(update={"encoding": None}) for each in recipe.features),
        "schedule": recipe.schedule.model_copy(update={"optimizer": "exact"}),
    }
    return recipe.model_copy(update=update)


def watched_rows(recipe: Recipe, seen: Table) -> Mask | None:
    """The tenth of the rows that says when an mlp's training stops, held out in the way the recipe splits."""
    if not isinstance(recipe.network, Mlp):
        return None
    return hold_out_rows(seen, WATCHED, recipe.schedule.seed + 1).held


def target_mean(model: Model, seen: Table) -> float:
    """The mean of the target over the rows that a model saw, weighted as they are."""
    weights = seen.blocks.weights
    return model.target.mean if weights is None else float(np.average(seen.target(), weights=weights))


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcomes of all folds as one."""
    weights = [each.weights for each in outcomes if each.weights is not None]
    groups = [each.groups for each in outcomes if each.groups is not None]
    return Outcome(
        actual=np.concatenate([each.actual for each in outcomes]),
        predicted=np.concatenate([each.predicted for each in outcomes]),
        line=np.concatenate([each.line for each in outcomes]),
        mean=np.concatenate([each.mean for each in outcomes]),
        residuals=Residuals(
            np.concatenate([each.residuals.outputs for each in outcomes]),
            np.concatenate([each.residuals.values for each in outcomes]),
            np.repeat(np.arange(len(outcomes)), [each.residuals.rows for each in outcomes]),
        ),
        weights=np.concatenate(weights) if weights else None,
        groups=np.concatenate(groups) if groups else None,
        epochs=max(each.epochs for each in outcomes),
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
