"""From a table to a published version, or to a comparison of the optimizers, each in one call.

    published = fit(Path("cars.csv"), recipe, "used-car-price", open_store("models"))

It says nothing unless it is given a Narrator, promotes nothing, and knows no command line. Both calls let
torch use one thread, so that the same data and recipe give the same weights, bit for bit, whoever calls.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from model_store.manifest import Manifest, Mlp, check_name
from model_store.store import Store
from training.comparison import Comparison, compare_optimizers
from training.console import Narrator
from training.data import Table
from training.evaluate import HeldOut, cross_validate, hold_out
from training.publish import publish
from training.reading import read_table
from training.recipe import Recipe
from training.train import Model, stop_early, train

SILENT: Final = Narrator(quiet=True)


@dataclass(frozen=True)
class Published:
    """A version in the store, the model in it, which saw all rows, and how one did that did not."""

    manifest: Manifest
    model: Model
    held_out: HeldOut | None


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, and afterwards as many as before.

    How many there are decides in which order torch adds, and so the last bits of the weights.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def fit(
    path: Path,
    recipe: Recipe,
    name: str,
    store: Store,
    *,
    command: str | None = None,
    narrator: Narrator = SILENT,
) -> Published:
    """Train a model on a table and publish it as the next version of `name`.

    `command` is what the version's report gives for making it again.

    Raises InvalidName for the name, DataError for the table and Unstable for a training that diverges, each
    before anything is written, and StoreError when the store does not take the version.
    """
    check_name(name)
    table = read(path, recipe, narrator)
    settled = settle_epochs(recipe, table, narrator)
    with narrator.epochs(settled) as on_epoch:
        model = train(settled, table, on_epoch=on_epoch)
    narrator.model(model, settled)
    held_out = score(recipe if recipe.cross_validate else settled, table, narrator)
    manifest = publish(store, name, settled, table, model, held_out, command)
    narrator.say(f"{name} version {manifest.version} is in the store {store.url}")
    return Published(manifest, model, held_out)


@one_thread()
def compare(path: Path, recipe: Recipe, *, narrator: Narrator = SILENT) -> Comparison:
    """Train a line on a table with every optimizer that descends, under the setting that `fit` trains under.

    Raises DataError for the table; an optimizer that diverges is part of the comparison.
    """
    table = read(path, recipe, narrator)
    with narrator.waiting("training with every optimizer"):
        comparison = compare_optimizers(recipe, table)
    narrator.comparison(comparison)
    return comparison


def read(path: Path, recipe: Recipe, narrator: Narrator) -> Table:
    """The recipe's columns of the table; raises DataError."""
    with narrator.waiting(f"reading {path}"):
        table = read_table(path, recipe)
    narrator.table(table)
    return table


def settle_epochs(recipe: Recipe, table: Table, narrator: Narrator) -> Recipe:
    """The recipe with the epochs that do best for an mlp; without scores, or for a line, as it is."""
    if not (isinstance(recipe.network, Mlp) and recipe.is_scored):
        return recipe
    with narrator.waiting("looking for the number of epochs that does best on rows left out"):
        recipe = stop_early(recipe, table)
    narrator.say(f"{recipe.schedule.epochs} epochs do best on rows left out")
    return recipe


def score(recipe: Recipe, table: Table, narrator: Narrator) -> HeldOut | None:
    """The scores on held-out rows, None where the recipe holds out none."""
    if not recipe.is_scored:
        return None
    with narrator.waiting("scoring on held-out rows"):
        held_out = cross_validate(recipe, table) if recipe.cross_validate else hold_out(recipe, table)
    narrator.metrics(held_out.metrics, recipe)
    return held_out
