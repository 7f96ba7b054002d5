"""The optimizers compared: every one from the same start on the same rows."""

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import torch

from model_store.manifest import Linear
from training.blocks import Blocks
from training.comparison_page import Run, Surface, comparison_html
from training.data import DataError, Table
from training.descent import Diverged, descend, make_optimizer
from training.encoding import encode_table
from training.evaluate import parts, try_out
from training.least_squares import least_squares, solve
from training.network import FeedForward
from training.recipe import Optimizer, Recipe
from training.remarks import Findings
from training.splits import folds_of
from training.stability import Unstable, full_batch_gram
from training.statistics import describe_columns
from training.train import moments_of_target, new_network, rescaled

LONGEST_PATH = 20_000
RATES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


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
                    "held_out_r2": run.r2,
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

    Each has the learning rate that the recipe says or, if it says none, the one of several with which it came
    farthest in a tenth of the epochs. All see z-scores, of the target too, and begin alike. Held-out scores
    are of the recipe's first fold. Raises DataError for a column that does not vary.
    """
    recipe = recipe.model_copy(update={"network": Linear()})
    features, _ = describe_columns(table)
    data = encode_table(recipe, features, table)
    mean, std = moments_of_target(data)
    rows = rescaled(data, mean, std)
    is_said = "learning_rate" in recipe.schedule.model_fields_set
    runs = []
    for name in (name for name in get_args(Optimizer) if name != "exact"):
        warm_up(with_schedule(recipe, optimizer=name), rows)
        rate = (
            recipe.schedule.learning_rate
            if is_said
            else farthest(with_schedule(recipe, optimizer=name), rows)
        )
        asked = with_schedule(recipe, optimizer=name, learning_rate=rate)
        done = run(asked, rows, mean, std)
        runs.append(done if done.trouble else replace(done, r2=held_out_r2(asked, table)))
    optimum = solve(new_network(recipe, data), data).cost
    return Comparison(table.source, tuple(runs), optimum, surface(data, optimum) if data.width == 2 else None)


def with_schedule(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with another schedule."""
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=changes)})


def farthest(recipe: Recipe, rows: Blocks) -> float:
    """The learning rate with which the cost is lowest after a tenth of the epochs."""
    short = with_schedule(recipe, epochs=math.ceil(recipe.schedule.epochs / 10))
    return min(RATES, key=lambda rate: cost_after(with_schedule(short, learning_rate=rate), rows))


def cost_after(recipe: Recipe, rows: Blocks) -> float:
    """The cost that a descent ends with, infinite for one that diverges."""
    try:
        return descend(new_network(recipe, rows), recipe.schedule, rows).cost
    except Diverged:
        return math.inf


def held_out_r2(recipe: Recipe, table: Table) -> float | None:
    """R² on rows that the line has not seen; None where its descent diverges, or rows are too few for it."""
    try:
        folds = folds_of(table)
        return try_out(recipe, *parts(table, folds[0])).metrics().model.r2 if folds else None
    except (Unstable, DataError):
        return None


def run(recipe: Recipe, rows: Blocks, mean: float, std: float) -> Run:
    """One run, its costs, times and path; for more than one input there is no path.

    Of `rows` the target is (y - mean) / std; costs and path are in its own unit.
    """
    network = new_network(recipe, rows)
    path = [position(network)] if rows.width == 2 else []
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
        history = descend(network, recipe.schedule, rows, on_epoch=on_epoch, on_step=on_step).history
    except Diverged as error:
        history, trouble = error.history, str(error)
    return Run(
        recipe.schedule.optimizer,
        recipe.schedule.learning_rate,
        history=tuple(cost * std**2 for cost in history),
        seconds=(0.0, *seconds[: len(history) - 1]),
        path=tuple((weight * std, bias * std + mean) for weight, bias in path),
        trouble=trouble,
    )


def warm_up(recipe: Recipe, rows: Blocks) -> None:
    """Let torch load what an optimizer needs, so that no run is charged for it."""
    network = new_network(recipe, rows)
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
