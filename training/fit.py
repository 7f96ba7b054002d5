"""The training loop: gradient descent on the mean squared error."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import nn

from model_store.encoding import Matrix
from model_store.manifest import Network
from training.network import FeedForward

Optimizer: TypeAlias = Literal["gd"]
OnEpoch: TypeAlias = Callable[[int, float], None]


@dataclass(frozen=True)
class Recipe:
    """How to train: what the command line says of it."""

    network: Network
    optimizer: Optimizer
    learning_rate: float
    epochs: int
    seed: int


@dataclass(frozen=True)
class Fitted:
    """A trained network and the cost (mean squared error) before each epoch and after the last."""

    network: FeedForward
    history: tuple[float, ...]

    @property
    def cost(self) -> float:
        """The cost of the final weights."""
        return self.history[-1]


class Diverged(Exception):
    """The cost stopped being a number."""


def ignore(_epoch: int, _cost: float) -> None:
    """Tell nobody."""


def fit(recipe: Recipe, inputs: Matrix, target: Matrix, on_epoch: OnEpoch = ignore) -> Fitted:
    """Train a new network on encoded inputs (n, k) and the target (n,), both float64.

    `on_epoch` is told the number of finished epochs and the cost at that point. The same arguments give
    the same weights, bit for bit, on the same machine. Raises Diverged.
    """
    torch.set_num_threads(1)
    features, actual = torch.tensor(inputs), torch.tensor(target)
    network = FeedForward(recipe.network, inputs.shape[1], recipe.seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate)
    loss = nn.MSELoss()
    history = []
    for epoch in range(recipe.epochs + 1):
        cost = loss(network(features), actual)
        history.append(cost.item())
        check_finite(recipe, epoch, history)
        on_epoch(epoch, history[-1])
        if epoch < recipe.epochs:
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
    return Fitted(network, tuple(history))


def check_finite(recipe: Recipe, epoch: int, history: list[float]) -> None:
    """Stop when the cost is no longer a number, and say what to change."""
    if not torch.isfinite(torch.tensor(history[-1])):
        message = (
            f"the cost is no longer finite after {epoch} epochs: it began at {history[0]:g}. "
            f"The learning rate {recipe.learning_rate:g} is too large for these data; nothing was published. "
            "Try a tenth of it"
        )
        raise Diverged(message)
