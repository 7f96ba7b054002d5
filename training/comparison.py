"""The optimizers compared: every one from the same start on the same rows."""

import math
import time
from dataclasses import dataclass, field
from typing import Any, get_args

import torch

from model_store.manifest import Linear
from training.blocks import Blocks
from training.comparison_page import Run, Surface, comparison_html
from training.data import Table
from training.descent import Diverged, descend, make_optimizer
from training.encoding import encode_table
from training.least_squares import least_squares, solve
from training.network import FeedForward
from training.recipe import Optimizer, Recipe
from training.remarks import Findings
from training.stability import full_batch_gram
from training.statistics import describe_columns
from training.train import new_network

LONGEST_PATH = 20_000


@dataclass(frozen=True)
class Comparison:
    """How each optimizer descended; `surface` is the cost of a line through one input.

    `findings` are those of the table that they descended on.
    """

    source: str
    runs: tuple[Run, ...]
    optimum: float
    surface: Surface | None
    findings: Findings = field(default_factory=Findings)

    def html(self) -> bytes:
        """The page with the pictures."""
        return comparison_html(self.runs, self.source, self.optimum, self.surface)

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "optimum": self.optimum,
            "runs": [
                {
                    "optimizer": run.optimizer,
                    "learning_rate": run.learning_rate,
                    "history": [cost if math.isfinite(cost) else None for cost in run.history],
                    "seconds": run.seconds,
                    "trouble": run.trouble,
                }
                for run in self.runs
            ],
            **self.findings.facts(),
        }


def compare_optimizers(recipe: Recipe, table: Table) -> Comparison:
    """Train a line with every optimizer that descends; one that diverges is shown up to there.

    Raises DataError for a column that does not vary.
    """
    recipe = recipe.model_copy(update={"network": Linear()})
    features, _ = describe_columns(table)
    data = encode_table(recipe, features, table)
    names = [name for name in get_args(Optimizer) if name != "exact"]
    for name in names:
        warm_up(with_optimizer(recipe, name), data)
    runs = tuple(run(with_optimizer(recipe, name), data) for name in names)
    optimum = solve(new_network(recipe, data), data).cost
    return Comparison(table.source, runs, optimum, surface(data, optimum) if data.width == 2 else None)


def with_optimizer(recipe: Recipe, optimizer: Optimizer) -> Recipe:
    """The recipe with another optimizer."""
    schedule = recipe.schedule.model_copy(update={"optimizer": optimizer})
    return recipe.model_copy(update={"schedule": schedule})


def run(recipe: Recipe, data: Blocks) -> Run:
    """One run, its costs, times and path; for more than one input there is no path."""
    network = new_network(recipe, data)
    path = [position(network)] if data.width == 2 else []
    seconds: list[float] = []

    def on_step(network: FeedForward) -> None:
        if path and len(path) < LONGEST_PATH:
            path.append(position(network))

    def on_epoch(_epoch: int, _cost: float) -> None:
        # The cost told was that before the epoch, but its steps are done.
        seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    trouble: str | None = None
    try:
        history = descend(network, recipe.schedule, data, on_epoch=on_epoch, on_step=on_step).history
    except Diverged as error:
        history, trouble = error.history, str(error)
    schedule = recipe.schedule
    elapsed = (0.0, *seconds[: len(history) - 1])
    return Run(schedule.optimizer, schedule.learning_rate, history, elapsed, tuple(path), trouble)


def warm_up(recipe: Recipe, data: Blocks) -> None:
    """Let torch load what an optimizer needs, so that no run is charged for it."""
    network = new_network(recipe, data)
    make_optimizer(recipe.schedule, network).step()


@torch.no_grad()
def position(network: FeedForward) -> tuple[float, float]:
    """Where a line through one input stands: (W, b)."""
    line, _ = network.ends
    return line.weight.item(), line.bias.item()


def surface(data: Blocks, optimum: float) -> Surface:
    """The cost of a line through one input, exactly, from encoded rows (n, 2): the input, the target."""
    weight, bias = least_squares(data).tolist()
    return Surface(weight, bias, optimum, full_batch_gram(data).numpy())
