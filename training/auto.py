"""The network that suits a table: candidates from the simplest on, scored on the same rows left out."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from model_store.columns import Matrix
from training.crossed import Crossed, GoOn, settled
from training.data import Table
from training.descent import OnEpoch, nothing
from training.recipe import AutoNetwork, EnsembleNetwork, Recipe, RidgeNetwork
from training.splits import grouped
from training.train import Model, train

# The candidates learn from all rows at once, in memory.
MOST_ROWS = 200_000


@dataclass(frozen=True)
class Trial:
    """How a candidate did on rows left out: `cost` is its mean squared error, in its outputs' unit squared.

    `excess` is by how much that is above the least, `uncertainty` the standard error of that difference.
    """

    name: str
    cost: float
    excess: float
    uncertainty: float
    seconds: float
    is_chosen: bool = False


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen, as a recipe that makes it again, and how each of them did."""

    recipe: Recipe
    model: Model
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Candidate:
    """A model that was tried: its squared errors on each row where that was left out, (rows,)."""

    name: str
    recipe: Recipe
    model: Model
    errors: Matrix
    seconds: float


def choose(recipe: Recipe, table: Table, *, on_epoch: OnEpoch = nothing) -> Choice:
    """Try a ridge line, an additive model and an ensemble, and choose the simplest that is not surely worse.

    That is the first whose mean squared error on rows left out is above the least by no more than the
    standard error of the difference (Breiman, Friedman, Olshen and Stone, Classification and Regression
    Trees, 1984, section 3.4.3). When the recipe's minutes are over, or at an interrupt, it is among those
    that were finished. Raises what `train` does, and KeyboardInterrupt where none was finished.
    """
    assert isinstance(recipe.network, AutoNetwork)
    end = time.monotonic() + 60 * recipe.network.minutes
    tried: list[Candidate] = []
    try:
        tried.extend(candidates(recipe, table, lambda: time.monotonic() < end, on_epoch))
    except KeyboardInterrupt:
        if not tried:
            raise
    return simplest(tried, table)


def candidates(recipe: Recipe, table: Table, go_on: GoOn, on_epoch: OnEpoch) -> Iterator[Candidate]:
    """Each candidate, from the simplest on, while there is time; the first in any case."""
    asked = {
        "line": {"network": RidgeNetwork(), "encoding": "z-score"},
        "additive": {"network": RidgeNetwork(), "encoding": "piecewise"},
        "ensemble": {"network": EnsembleNetwork(), "encoding": "piecewise"},
    }
    for name, update in asked.items():
        if name != "line" and not go_on():
            return
        yield tried_out(name, recipe.model_copy(update=update), table, go_on, on_epoch)


def tried_out(name: str, recipe: Recipe, table: Table, go_on: GoOn, on_epoch: OnEpoch) -> Candidate:
    """Fit a candidate; raises what `train` does."""
    start = time.monotonic()
    table = replace(table, recipe=recipe)
    model = train(recipe, table, on_epoch=on_epoch, go_on=go_on)
    assert isinstance(model.fitted, Crossed)
    target = table.target()
    target = np.log(target) if recipe.target.transform == "log" else target
    errors = (target - model.fitted.out_of_fold) ** 2
    return Candidate(name, settled(recipe, model.fitted), model, errors, time.monotonic() - start)


def simplest(tried: list[Candidate], table: Table) -> Choice:
    """The first candidate that is not surely worse than the best."""
    best = min(tried, key=lambda each: float(np.average(each.errors, weights=table.blocks.weights)))
    trials = [trial(each, best, table) for each in tried]
    chosen = next(index for index, each in enumerate(trials) if each.excess <= each.uncertainty)
    trials[chosen] = replace(trials[chosen], is_chosen=True)
    return Choice(tried[chosen].recipe, tried[chosen].model, tuple(trials))


def trial(candidate: Candidate, best: Candidate, table: Table) -> Trial:
    """How a candidate did beside the best."""
    weights = table.blocks.weights
    differences = candidate.errors - best.errors
    excess = float(np.average(differences, weights=weights))
    return Trial(
        candidate.name,
        cost=float(np.average(candidate.errors, weights=weights)),
        excess=excess,
        uncertainty=standard_error(differences - excess, table),
        seconds=candidate.seconds,
    )


def standard_error(deviations: Matrix, table: Table) -> float:
    """The standard error of the rows' mean, weighted as they are, from their deviations (rows,) from it.

    Rows of a group count as one (Cochran, Sampling Techniques, 1977, chapter 6: a ratio's standard error).
    """
    weights = np.ones(table.rows) if table.blocks.weights is None else table.blocks.weights
    is_grouped = table.recipe.split.kind == "group"
    parts = grouped(table, fewest=1)[0] if is_grouped else np.arange(table.rows)
    return float(np.linalg.norm(np.bincount(parts, weights * deviations)) / weights.sum())
