"""Descent on the mean squared error, the training loop, by every optimizer of the lesson."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeAlias

import torch

from training.blocks import Blocks
from training.network import FeedForward
from training.recipe import Schedule
from training.rows import Rows, mean_squared_error

GROWING_EPOCHS = 5
PATIENCE = 20
MOMENTUM = 0.9
HIGHER, SWING = 1.1, 1000.0
ROUNDING = 1e-9

OnEpoch: TypeAlias = Callable[[int, float], None]
OnStep: TypeAlias = Callable[[FeedForward], None]


@dataclass(frozen=True)
class Fitted:
    """A trained network and the cost (mean squared error) after 0, 1, 2 … epochs, up to its weights."""

    network: FeedForward
    history: tuple[float, ...]

    @property
    def epochs(self) -> int:
        """How many there were."""
        return len(self.history) - 1

    @property
    def cost(self) -> float:
        """The cost of the final weights."""
        return self.history[-1]


class Diverged(Exception):
    """The cost is not finite or keeps growing; `history` is the cost up to there."""

    def __init__(self, history: tuple[float, ...]) -> None:
        super().__init__(f"the cost went from {history[0]:g} to {history[-1]:g} in {len(history) - 1} epochs")
        self.history = history


def nothing(*_: object) -> None:
    """Tell nobody."""


def make_optimizer(schedule: Schedule, network: FeedForward) -> torch.optim.Optimizer:
    """The torch optimizer of that name: the direction mended by momentum, the step's length by rmsprop.

    Of torch's implementations of each, the one with the least overhead on networks this small.
    """
    weights, rate = network.parameters(), schedule.learning_rate
    if schedule.optimizer == "momentum":
        return torch.optim.SGD(weights, rate, momentum=MOMENTUM, foreach=False)
    if schedule.optimizer == "rmsprop":
        return torch.optim.RMSprop(weights, rate, foreach=False)
    if schedule.optimizer == "adam":
        return torch.optim.Adam(weights, rate, fused=True)
    return torch.optim.SGD(weights, rate, foreach=False)


class Descent:
    """A network on its way down the cost of some rows."""

    def __init__(self, network: FeedForward, schedule: Schedule, rows: Rows, on_step: OnStep) -> None:
        self._network, self._rows, self._on_step = network, rows, on_step
        self._optimizer = make_optimizer(schedule, network)
        self._batch_size = schedule.batch_size
        self._generator = torch.Generator().manual_seed(schedule.seed)
        self.epoch = self._all_rows if schedule.optimizer == "gd" else self._batches

    def _all_rows(self) -> float:
        """Take one step with all rows, whose gradients pile up slice by slice; return the cost before."""
        self._optimizer.zero_grad()
        total = 0.0
        for part, share in self._rows.slices():
            cost = part.cost(self._network)
            if share < 1:
                cost *= share
            torch.autograd.backward(cost)
            total += cost.item()
        self._optimizer.step()
        self._on_step(self._network)
        return total

    def _batches(self) -> float:
        """Take a step with each batch of the shuffled rows; return the cost before."""
        before = mean_squared_error(self._network, self._rows)
        for batch in self._rows.batches(self._batch_size, self._generator):
            self._optimizer.zero_grad()
            torch.autograd.backward(batch.cost(self._network))
            self._optimizer.step()
            self._on_step(self._network)
        return before


class Watcher:
    """Looks after each epoch how a network does on rows that it does not learn from."""

    def __init__(self, network: FeedForward, rows: Rows) -> None:
        self._network, self._rows = network, rows
        self._costs: list[float] = []
        self._best = network.state_dict()

    def has_seen_enough(self) -> bool:
        """Look; True when the cost has not fallen for 20 epochs."""
        self._costs.append(mean_squared_error(self._network, self._rows))
        if best(self._costs) == len(self._costs) - 1:
            self._best = deepcopy(self._network.state_dict())
        return len(self._costs) - 1 - best(self._costs) >= PATIENCE

    def restore_best(self) -> int:
        """Look a last time, give the network the weights that did best, and return after how many epochs."""
        self.has_seen_enough()
        self._network.load_state_dict(self._best)
        return best(self._costs)


def descend(
    network: FeedForward,
    schedule: Schedule,
    data: Blocks,
    *,
    watch: Blocks | None = None,
    on_epoch: OnEpoch = nothing,
    on_step: OnStep = nothing,
) -> Fitted:
    """Train the network on encoded rows, the target in their last column.

    With rows to `watch`, training stops when their cost has not fallen for 20 epochs, and the weights are
    those with which it was lowest. `on_epoch` is told the finished epochs and the cost at that point,
    `on_step` the network after each step. The same arguments give the same weights, bit for bit, on the same
    machine with the same number of torch's threads.

    Raises Diverged when the cost is not finite, keeps growing or ends a tenth higher than it began.
    """
    rows = Rows(data)
    descent = Descent(network, schedule, rows, on_step)
    watcher = Watcher(network, Rows(watch)) if watch else None
    steady = schedule.optimizer == "gd" and not network.hidden
    history: list[float] = []
    for epoch in range(schedule.epochs):
        if watcher and watcher.has_seen_enough():
            break
        record(history, descent.epoch(), steady)
        on_epoch(epoch, history[-1])
    record(history, mean_squared_error(network, rows), steady)
    if history[-1] > HIGHER * history[0]:
        raise Diverged(tuple(history))
    on_epoch(len(history) - 1, history[-1])
    if watcher:
        history = history[: watcher.restore_best() + 1]
    return Fitted(network, tuple(history))


def record(history: list[float], cost: float, steady: bool) -> None:
    """Append the cost; raise Diverged if it is not finite or has grown for five epochs.

    A `steady` descent must not grow at all, but for rounding. Another may for a while: momentum that swings
    just below its bound rises about a hundredfold first, which is 1 / (1 - its share)².
    """
    history.append(cost)
    if not math.isfinite(cost):
        raise Diverged(tuple(history))
    latest = history[-GROWING_EPOCHS - 1 :]
    if len(latest) <= GROWING_EPOCHS or cost <= latest[-2] or (not steady and cost <= SWING * history[0]):
        return
    if latest == sorted(set(latest)) and cost > latest[0] * (1 + ROUNDING):
        raise Diverged(tuple(history))


def best(costs: list[float]) -> int:
    """Where the lowest cost is."""
    return costs.index(min(costs))
