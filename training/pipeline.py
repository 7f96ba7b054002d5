"""From a table to a published version, or to a comparison of the optimizers, each in one call.

    published = fit(Path("cars.csv"), recipe, "used-car-price", open_store("models"))

It says nothing unless it is given a Narrator, promotes nothing, and knows no command line. Both calls let
torch use one thread, so that the same data and recipe give the same weights, bit for bit, whoever calls.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from model_store.manifest import Manifest, Mlp, check_name
from model_store.store import Store
from training.comparison import Comparison, compare_optimizers
from training.console import Narrator
from training.data import DataError, Table
from training.evaluate import HeldOut, cross_validate, hold_out
from training.inference import Decision, closed, infer
from training.publish import publish
from training.reading import read_rows, study_columns, table_at
from training.recipe import Recipe, RecipeFile
from training.remarks import Findings, remarks_on
from training.sources import Source
from training.splits import Mask, hold_out_rows
from training.train import Model, stop_early, train

SILENT: Final = Narrator(quiet=True)
MOST_REASONS = 10


@dataclass(frozen=True)
class Learned:
    """A table, the model that saw all its rows, and how one did that did not; nothing of it is in a store."""

    table: Table
    model: Model
    held_out: HeldOut | None
    findings: Findings
    recipe: Recipe


@dataclass(frozen=True)
class Published:
    """A version in the store, the model in it, which saw all rows, and how one did that did not."""

    manifest: Manifest
    model: Model
    held_out: HeldOut | None
    findings: Findings


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

    The features of an open recipe are found out from the table. `command` is what the version's report gives
    for making it again.

    Raises InvalidName for the name, DataError for the table and Unstable for a training that diverges, each
    before anything is written, and StoreError when the store does not take the version.
    """
    check_name(name)
    learned = learn(path, recipe, narrator=narrator)
    model, held_out, findings = learned.model, learned.held_out, learned.findings
    decided = RecipeFile(data=path, name=name, recipe=learned.recipe)
    manifest = publish(store, decided, learned.table, model, held_out, findings, command)
    narrator.say(f"{name} version {manifest.version} is in the store {store.url}")
    return Published(manifest, model, held_out, findings)


@one_thread()
def learn(path: Path, recipe: Recipe, *, narrator: Narrator = SILENT) -> Learned:
    """Train a model on a table and score it: all that `fit` does but publishing. Raises what it does."""
    with table_at(path) as source:
        recipe, decisions = settle_inputs(source, recipe, narrator)
        table, findings = read(source, recipe, decisions, narrator)
    settled = settle_epochs(recipe, table, narrator)
    with narrator.epochs(settled) as on_epoch:
        model = train(settled, table, on_epoch=on_epoch)
    narrator.model(model, settled)
    held_out = score(recipe if recipe.cross_validate else settled, table, narrator)
    return Learned(table, model, held_out, findings, recipe)


@one_thread()
def compare(path: Path, recipe: Recipe, *, narrator: Narrator = SILENT) -> Comparison:
    """Train a line on a table with every optimizer that descends, under the setting that `fit` trains under.

    Raises DataError for the table; an optimizer that diverges is part of the comparison.
    """
    with table_at(path) as source:
        recipe, decisions = settle_inputs(source, recipe, narrator)
        table, findings = read(source, recipe, decisions, narrator)
    with narrator.waiting("training with every optimizer"):
        comparison = replace(compare_optimizers(recipe, table), findings=findings)
    narrator.comparison(comparison)
    return comparison


def settle_inputs(source: Source, recipe: Recipe, narrator: Narrator) -> tuple[Recipe, tuple[Decision, ...]]:
    """An open recipe with the features that are found out from the table, and why; any other as it is.

    Raises DataError for a table that cannot be read, lacks the target or has no column to learn from.
    """
    if not recipe.is_open:
        return recipe, ()
    with narrator.waiting(f"looking at the columns of {source.name}"):
        studies = study_columns(source, recipe.table, [recipe.target.name, *recipe.exclude])
        decisions = infer(studies, recipe)
    narrator.decisions(decisions)
    if not any(decision.taken_as for decision in decisions):
        reasons = "; ".join(f"{decision.name}: {decision.why}" for decision in decisions[:MOST_REASONS])
        message = (
            f"{source.name} has no column to learn from ({reasons}): say --feature or --category to take one"
        )
        raise DataError(message)
    return closed(recipe, decisions), decisions


def read(
    source: Source, recipe: Recipe, decisions: tuple[Decision, ...], narrator: Narrator
) -> tuple[Table, Findings]:
    """The recipe's columns of the table, and what was found of it; raises DataError."""
    with narrator.waiting(f"reading {source.name}"):
        table = read_rows(source, recipe)
        findings = Findings(decisions, remarks_on(table, held_out_once(table)))
    narrator.table(table)
    narrator.remarks(findings.remarks)
    return table, findings


def held_out_once(table: Table) -> Mask | None:
    """The rows that are scored on, None if there are none or each is one in its turn; raises DataError."""
    recipe = table.recipe
    if recipe.cross_validate or not recipe.holdout:
        return None
    return hold_out_rows(table, recipe.holdout, recipe.schedule.seed).held


def settle_epochs(recipe: Recipe, table: Table, narrator: Narrator) -> Recipe:
    """The recipe with the epochs that do best for an mlp; without scores, or for a line, as it is."""
    if not (isinstance(recipe.network, Mlp) and recipe.is_scored):
        return recipe
    with narrator.waiting("looking for the number of epochs that does best on rows left out"):
        recipe = stop_early(recipe, table)
    narrator.say(f"{recipe.schedule.epochs} epochs do best on rows left out")
    return recipe


def score(recipe: Recipe, table: Table, narrator: Narrator) -> HeldOut | None:
    """The scores on held-out rows, None where the recipe holds out none.

    Raises what `hold_out` does.
    """
    if not recipe.is_scored:
        return None
    with narrator.waiting("scoring on held-out rows"):
        held_out = cross_validate(recipe, table) if recipe.cross_validate else hold_out(recipe, table)
    narrator.metrics(held_out.metrics, recipe)
    return held_out
