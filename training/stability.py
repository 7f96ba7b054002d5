"""Why a descent on the mean squared error diverges, and the learning rate at which it would not.

For a linear network the cost is quadratic with the Hessian 2 XᵀX / n, X with a column of ones for the bias.
Where rows are weighted, each row of X is multiplied by the root of its weight; the weights' mean is 1.
Gradient descent converges exactly when the learning rate is below 2 / λmax(2 XᵀX / n) = 1 / λmax(XᵀX / n).
A step with a batch multiplies that batch's (weighted) error when the rate is above the batch's own bound.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.columns import Feature
from model_store.manifest import Linear
from training.blocks import Blocks
from training.descent import Diverged
from training.recipe import Recipe, Schedule
from training.rows import Rows, Slice


class Unstable(Exception):
    """Training that diverges, or is sure to: says at which learning rate it would not, and what to do."""


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
    """The bound for a linear network on encoded rows, the target last: of all rows for `gd`, of the first
    epoch's worst batch for `sgd` and `momentum`; None for optimizers that choose their own step length.
    """
    if schedule.optimizer == "gd":
        return full_batch_bound(data)
    if schedule.optimizer in {"sgd", "momentum"}:
        return worst_batch_bound(schedule, data)
    return None


def full_batch_bound(data: Blocks) -> Bound:
    """1 / λmax(XᵀX / n) over all encoded rows, the target in their last column."""
    largest = torch.stack([block.inputs.abs().amax(dim=0) for block in Rows(data)]).amax(dim=0)
    return bound(full_batch_gram(data), largest)


def full_batch_gram(data: Blocks) -> Tensor:
    """XᵀX / n over all encoded rows of k inputs and the target: (k + 1, k + 1), the bias last."""
    return torch.stack([gram(part) * share for part, share in Rows(data).slices()]).sum(dim=0)


def worst_batch_bound(schedule: Schedule, data: Blocks) -> Bound:
    """The least of the bounds of the first epoch's batches of encoded rows, the target in the last column."""
    generator = torch.Generator().manual_seed(schedule.seed)
    batches = Rows(data).batches(schedule.batch_size, generator)
    bounds = (bound(gram(batch), batch.inputs.abs().amax(dim=0)) for batch in batches)
    return min(bounds, key=lambda each: each.learning_rate)


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
def diagnosed(recipe: Recipe, features: Sequence[Feature], data: Blocks) -> Iterator[None]:
    """Raise Unstable, which says why and what to do, for Diverged from a descent on these encoded rows."""
    try:
        yield
    except Diverged as error:
        message = f"{error}. {advice(recipe, features, data)}"
        raise Unstable(message) from None


def check_batches(recipe: Recipe, features: Sequence[Feature], data: Blocks) -> None:
    """Raise Unstable if `sgd` or `momentum` multiplies the error of a batch, among the first epoch's."""
    schedule = recipe.schedule
    if schedule.optimizer in {"sgd", "momentum"}:
        worst = worst_batch_bound(schedule, data)
        if schedule.learning_rate > worst.learning_rate:
            times = abs(1 - 2 * schedule.learning_rate / worst.learning_rate)
            error = "weighted error" if recipe.weight else "error"
            start = f"each time a certain batch comes, its {error} is multiplied by {times:.3g}"
            message = f"{start}. {advice(recipe, features, data)}"
            raise Unstable(message)


def advice(recipe: Recipe, features: Sequence[Feature], data: Blocks) -> str:
    """The largest stable learning rate, which input is to blame, and what to do; nothing was published."""
    schedule = recipe.schedule
    start = (
        f"Nothing was published: the learning rate {schedule.learning_rate:g} is too large for these data. "
    )
    bound = largest_stable(schedule, data) if isinstance(recipe.network, Linear) else None
    if bound is None:
        return f"{start}Try --learning-rate {schedule.learning_rate / 10:g}"
    rows = "all rows" if schedule.optimizer == "gd" else f"the worst batch of {schedule.batch_size} rows"
    blamed = name_column(features, bound.column)
    because = f"of the weights and of {blamed}, which" if recipe.weight else blamed
    raw = schedule.normalize == "none"
    return (
        f"{start}For {rows} the largest stable one is {bound.learning_rate:.4g}, because "
        f"{because} reaches {'' if raw else 'a z-score of '}{bound.largest:.4g}. "
        + ("Leave out --normalize none, so that inputs are z-scored" if raw else remedy(schedule, bound))
    )


def remedy(schedule: Schedule, bound: Bound) -> str:
    """What to do about a learning rate that is too large for z-scored inputs."""
    lower = f"--learning-rate {bound.learning_rate / 2:.2g}"
    if schedule.optimizer == "gd":
        return f"Take {lower}"
    return f"Take {lower}, a larger --batch-size, --optimizer gd or adam, or leave out the row if it is wrong"


def name_column(features: Sequence[Feature], column: int) -> str:
    """The input behind a column of the encoded matrix, with the category if it is one."""
    labels = [label for feature in features for label in feature.labels]
    return labels[column] if column < len(labels) else "the bias"
