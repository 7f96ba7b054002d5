"""Why a descent on the mean squared error diverges, and a learning rate at which it does not.

For a linear network the cost is quadratic with the Hessian H = 2 XᵀX / n, X with a column of ones for the
bias. Where rows are weighted, each row of X is multiplied by the root of its weight; the weights' mean is 1.
With all rows a step, gradient descent converges exactly when the learning rate is below 2 / λmax(H), with
momentum β when it is below 2 (1 + β) / λmax(H) (Polyak, Some Methods of Speeding Up the Convergence of
Iteration Methods, 1964). For batches, networks and adaptive steps no bound is claimed: rates are tried.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context
from typing import TypeAlias

import torch
from torch import Tensor

from model_store.columns import DateFeature, Feature, NumericFeature
from model_store.manifest import Linear
from training.blocks import Blocks
from training.descent import HIGHER, MOMENTUM, ROUNDING, Diverged, Fitted
from training.recipe import Recipe, Schedule
from training.rows import Rows, Slice

MOST_TRIES = 16
FAR = 10.0
Z_SCORES = "Leave out --normalize none, so that inputs are z-scored"

Attempt: TypeAlias = Callable[[Schedule], Fitted]


class Unstable(Exception):
    """Training that diverges: says at which learning rate it does not, and what to do."""


@dataclass(frozen=True)
class Bound:
    """The largest stable learning rate of some rows, and what sets it.

    `column` is the input (its position among the encoded ones; their number for the bias) along which the
    steepest direction points most, `largest` the greatest magnitude among its values.
    """

    learning_rate: float
    column: int
    largest: float


def largest_stable(schedule: Schedule, data: Blocks) -> Bound | None:
    """The bound for a linear network on encoded rows, the target last; None if no bound is known.

    It is known where each step takes all rows and the optimizer does not choose its own step length.
    """
    if schedule.optimizer == "gd":
        return full_batch_bound(data)
    one_batch = data.in_memory and data.rows < 2 * schedule.batch_size
    if not one_batch or schedule.optimizer not in {"sgd", "momentum"}:
        return None
    bound = full_batch_bound(data)
    factor = 1 + MOMENTUM if schedule.optimizer == "momentum" else 1.0
    return Bound(factor * bound.learning_rate, bound.column, bound.largest)


def full_batch_bound(data: Blocks) -> Bound:
    """1 / λmax(XᵀX / n) over all encoded rows, the target in their last column."""
    return bound(full_batch_gram(data), magnitudes(data))


def magnitudes(data: Blocks) -> Tensor:
    """The greatest magnitude of each of k inputs, (k,), in encoded rows with the target behind them."""
    return torch.stack([block.inputs.abs().amax(dim=0) for block in Rows(data)]).amax(dim=0)


def full_batch_gram(data: Blocks) -> Tensor:
    """XᵀX / n over all encoded rows of k inputs and the target: (k + 1, k + 1), the bias last."""
    return torch.stack([gram(part) * share for part, share in Rows(data).slices()]).sum(dim=0)


def gram(part: Slice) -> Tensor:
    """XᵀX / n of n rows of k inputs with a column of ones behind them: (k + 1, k + 1)."""
    rows = part.equations()[:, :-1]
    return rows.T @ rows / part.rows


def bound(gram_matrix: Tensor, largest: Tensor) -> Bound:
    """1 / λmax of a Gram matrix (k + 1, k + 1), and the column with the greatest share in its eigenvector.

    `largest` (k,) is the greatest magnitude of each input.
    """
    values, vectors = torch.linalg.eigh(gram_matrix)
    column = int(vectors[:, -1].abs().argmax())
    return Bound(1 / float(values[-1]), column, float(largest[column]) if column < len(largest) else 1.0)


@contextmanager
def diagnosed(recipe: Recipe, features: Sequence[Feature], data: Blocks, attempt: Attempt) -> Iterator[None]:
    """Raise Unstable, which says why and what to do, for Diverged from a descent on these encoded rows.

    `attempt` makes the same descent by another schedule, to try what is advised.
    """
    try:
        yield
    except Diverged as error:
        message = f"{error}. {advice(recipe, features, data, attempt)}"
        raise Unstable(message) from None


def advice(recipe: Recipe, features: Sequence[Feature], data: Blocks, attempt: Attempt) -> str:
    """The largest stable learning rate or one that was tried, and what to do; nothing was published."""
    schedule = recipe.schedule
    start = (
        f"Nothing was published: the learning rate {schedule.learning_rate:g} is too large for these data. "
    )
    bound = largest_stable(schedule, data) if isinstance(recipe.network, Linear) else None
    if bound and bound.learning_rate <= schedule.learning_rate:
        return start + explained(recipe, features, data, bound)
    return start + tried(recipe, data, attempt) + outlier(recipe, features, data)


def explained(recipe: Recipe, features: Sequence[Feature], data: Blocks, bound: Bound) -> str:
    """The largest stable learning rate, which input is to blame for it, and what to do."""
    raw = recipe.schedule.normalize == "none"
    blamed = reach(features, bound.column, bound.largest, raw=raw)
    because = f"of the weights and of {blamed}" if recipe.weight else blamed
    remedy = Z_SCORES if raw else f"Take --learning-rate {bound.learning_rate / 2:.2g}"
    return (
        f"For the {data.rows:,} rows the largest stable one is {rounded_down(bound.learning_rate)}, "
        f"because {because}. {remedy}"
    )


def tried(recipe: Recipe, data: Blocks, attempt: Attempt) -> str:
    """A learning rate with which the same descent holds, found by halving it, and what to do."""
    schedule, diverging = recipe.schedule, recipe.schedule.learning_rate
    for halvings in range(1, MOST_TRIES + 1):
        rate = float(f"{schedule.learning_rate / 2**halvings:.2g}")
        if holds(attempt, schedule.model_copy(update={"learning_rate": rate})):
            return (
                f"Take --learning-rate {rate:g}: on the {data.rows:,} rows it was tried and holds, "
                f"{diverging:g} was tried and does not"
            )
        diverging = rate
    remedy = "Take --optimizer exact" if isinstance(recipe.network, Linear) else "Look for an outlier"
    remedy = Z_SCORES if schedule.normalize == "none" else remedy
    return f"On the {data.rows:,} rows not even {diverging:g} holds, which was tried. {remedy}"


def outlier(recipe: Recipe, features: Sequence[Feature], data: Blocks) -> str:
    """The input with the greatest z-score and what to do, in a sentence of its own, if that is far away."""
    largest = magnitudes(data)
    column = int(largest.argmax())
    if recipe.schedule.normalize == "none" or largest[column] < FAR:
        return ""
    return f". {reach(features, column, float(largest[column]), raw=False)}: is that row right?"


def holds(attempt: Attempt, schedule: Schedule) -> bool:
    """Whether a descent ends below where it began and stays near the lowest cost it has met."""
    try:
        history = attempt(schedule).history
    except Diverged:
        return False
    return history[-1] < history[0] and history[-1] <= HIGHER * min(history) + ROUNDING * history[0]


def rounded_down(number: float) -> str:
    """Four digits of a positive number, which are not above it."""
    return f"{float(Context(prec=4, rounding=ROUND_FLOOR).create_decimal_from_float(number)):g}"


def reach(features: Sequence[Feature], column: int, largest: float, *, raw: bool) -> str:
    """The input behind an encoded column, with the category if it is one, and its greatest magnitude."""
    measured = {
        feature.labels[0]
        for feature in features
        if isinstance(feature, NumericFeature | DateFeature) and not feature.clip
    }
    name = name_column(features, column)
    return f"{name} reaches {'a z-score of ' if name in measured and not raw else ''}{largest:.4g}"


def name_column(features: Sequence[Feature], column: int) -> str:
    """The input behind a column of the encoded matrix, with the category if it is one."""
    labels = [label for feature in features for label in feature.labels]
    return labels[column] if column < len(labels) else "the bias"
