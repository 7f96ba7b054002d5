"""What keeps a model from being worth its name, told before it is trusted: each with what to do."""

from collections.abc import Iterator

import numpy as np

from model_store.manifest import Linear, ResidualQuantiles
from model_store.tables import with_bounds
from training.evaluate import HeldOut, Own
from training.recipe import Recipe
from training.remarks import Remark
from training.residuals import FEWEST_ROWS
from training.train import Model

# By which share a cost or an error has to be above another to be told.
TELLING = 0.01
# Costs are level if they differ by less of the target's variance.
LEVEL = 1e-6
# How many times the mean squared error may be another's where it is not known how sure it is.
UNCERTAIN = 2.0


def verdicts_on(
    recipe: Recipe, model: Model, own: Own, held_out: HeldOut | None, interval: ResidualQuantiles | None
) -> tuple[Remark, ...]:
    """All that is to be said of a model, the worst first; `own` are the rows that it was fitted on."""
    if held_out is None:
        return (*worse_on_its_own(recipe, model, own), *far_from_optimal(recipe, model, own))
    return (
        *beside_the_mean(recipe, model, held_out),
        *beside_the_line(recipe, held_out),
        *unlike_the_scored(recipe, own, held_out),
        *far_from_optimal(recipe, model, own),
        *stopped_early(recipe, held_out),
        *without_interval(model, held_out, interval),
    )


def way_on(recipe: Recipe, model: Model) -> str:
    """What to try with a model that is no good."""
    if not isinstance(recipe.network, Linear):
        return "Try --network linear, more rows, or inputs that tell more"
    if model.fitted.cost > (1 + TELLING) * model.line.cost:
        return "Take --optimizer exact"
    return "More rows, or inputs that tell more, may help"


def beside_the_mean(recipe: Recipe, model: Model, held_out: HeldOut) -> Iterator[Remark]:
    """Whether predicting the mean would do as well, or better."""
    metrics = held_out.metrics
    bounds = metrics.uncertainty
    if bounds is None:
        found = (
            f"Its {metrics.rows} held-out rows, or their groups, are too few to tell how sure its scores are"
        )
        yield Remark(None, found, metrics.rows, "Give more rows")
        return
    r2 = f"R² on held-out rows is {with_bounds(metrics.model.r2, bounds.lower.r2, bounds.upper.r2)}"
    if metrics.is_worse_than_the_mean:
        yield Remark(None, f"It is worse than predicting the mean: {r2}", metrics.rows, way_on(recipe, model))
    elif bounds.lower.r2 <= metrics.predict_the_mean.r2:
        found = f"It is not surely better than predicting the mean: {r2}"
        yield Remark(None, found, metrics.rows, way_on(recipe, model))


def worse_on_its_own(recipe: Recipe, model: Model, own: Own) -> Iterator[Remark]:
    """Whether the mean is nearer to the rows that the model was fitted on."""
    if own.is_worse_than_the_mean:
        found = (
            f"It is worse than the mean even on its own rows: its cost is {own.cost:.4g}, that of the mean "
            f"{own.variance:.4g}"
        )
        yield Remark(None, found, own.rows, way_on(recipe, model))


def beside_the_line(recipe: Recipe, held_out: HeldOut) -> Iterator[Remark]:
    """Whether an exact line errs less than a network on rows that neither has seen."""
    model, line = held_out.metrics.model, held_out.metrics.least_squares
    if not isinstance(recipe.network, Linear) and model.mse > (1 + TELLING) * line.mse:
        found = (
            f"Exact least squares errs less on held-out rows: its R² is {line.r2:.4g}, this {model.r2:.4g}"
        )
        yield Remark(None, found, held_out.metrics.rows, "Try --network linear")


def unlike_the_scored(recipe: Recipe, own: Own, held_out: HeldOut) -> Iterator[Remark]:
    """Whether the model errs more on its own rows than the scored ones did on rows they had not seen."""
    metrics = held_out.metrics
    unseen = float(np.mean(held_out.residuals.values**2))
    uncertain = metrics.uncertainty.upper.mse / metrics.model.mse if metrics.uncertainty else UNCERTAIN
    if own.cost > unseen * uncertain:
        found = (
            f"It errs more on the rows it was fitted on, cost {own.cost:.4g}, than the models that were "
            f"scored on rows they had not seen, {unseen:.4g}: its scores are those of others"
        )
        advice = (
            "Its training does not settle: take --optimizer exact, or a lower --learning-rate"
            if isinstance(recipe.network, Linear)
            else "Its training does not settle: give more rows, or take --network linear"
        )
        yield Remark(None, found, metrics.rows, advice)


def far_from_optimal(recipe: Recipe, model: Model, own: Own) -> Iterator[Remark]:
    """Whether a line's cost is far above the least that any line reaches."""
    cost, least = model.fitted.cost, model.line.cost
    if isinstance(recipe.network, Linear) and cost - least > TELLING * least + LEVEL * own.variance:
        above = f"{100 * (cost / least - 1):.3g} % above" if LEVEL * own.variance < least else "far above"
        found = f"Its cost, {cost:.4g}, is {above} the least that any line reaches, {least:.4g}"
        yield Remark(None, found, own.rows, "Take --optimizer exact, or more --epochs")


def stopped_early(recipe: Recipe, held_out: HeldOut) -> Iterator[Remark]:
    """Whether a network was still getting better when its epochs ended."""
    epochs = recipe.schedule.epochs
    if held_out.epochs is not None and held_out.epochs >= (1 - TELLING) * epochs:
        found = f"It was still getting better after {epochs} epochs"
        yield Remark(None, found, held_out.metrics.rows, f"Take --epochs {2 * epochs}")


def without_interval(model: Model, held_out: HeldOut, interval: ResidualQuantiles | None) -> Iterator[Remark]:
    """Why no interval is claimed."""
    if interval is not None:
        return
    rows = held_out.metrics.rows
    if rows < FEWEST_ROWS:
        found = f"It claims no interval: {rows} held-out rows are too few, {FEWEST_ROWS} are needed"
        yield Remark(None, found, rows, "Give more rows")
    else:
        found = (
            f"It claims no interval: a line with {model.weights} weights from {held_out.seen} rows tells "
            "little of how one from more rows errs"
        )
        yield Remark(None, found, rows, "Give more rows than weights, or take fewer inputs")
