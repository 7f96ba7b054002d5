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

from model_store.manifest import Linear, Manifest, Mlp, check_name
from model_store.store import Store
from training.auto import MOST_ROWS, Choice, choose
from training.comparison import Comparison, compare_optimizers
from training.console import Narrator
from training.crossed import settled
from training.data import DataError, Table
from training.evaluate import HeldOut, claimed_interval, evaluate, own_rows
from training.inference import Decision, closed, infer
from training.publish import Learned, publish
from training.reading import read_rows, study_columns, table_at
from training.recipe import AutoNetwork, Recipe, RecipeFile
from training.remarks import Findings, remarks_on
from training.sources import Source
from training.splits import folds_of
from training.train import Model, train
from training.verdicts import verdicts_on

SILENT: Final = Narrator(quiet=True)
MOST_REASONS = 10


@dataclass(frozen=True)
class Published:
    """A version in the store, and what was learned."""

    manifest: Manifest
    learned: Learned


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
    manifest = publish(store, RecipeFile(data=path, name=name, recipe=learned.recipe), learned, command)
    narrator.say(f"{name} version {manifest.version} is in the store {store.url}")
    return Published(manifest, learned)


@one_thread()
def learn(path: Path, recipe: Recipe, *, narrator: Narrator = SILENT) -> Learned:
    """Train a model on all rows of a table, score others like it on rows they have not seen, publish nothing.

    Raises DataError for the table and Unstable for a training that diverges.
    """
    with table_at(path) as source:
        recipe, decisions = settle_inputs(source, recipe, narrator)
        table, findings = read(source, recipe, decisions, narrator)
    recipe = bounded(recipe, table, narrator)
    table = replace(table, recipe=recipe)
    if isinstance(recipe.network, AutoNetwork):
        chosen = look_for_network(recipe, table, narrator)
        recipe, model, findings = chosen.recipe, chosen.model, replace(findings, trials=chosen.trials)
        table = replace(table, recipe=recipe)
        held_out = score(recipe, table, narrator, model)
    elif isinstance(recipe.network, Mlp):
        held_out = score(recipe, table, narrator)
        model = train_on_all(with_epochs(recipe, held_out), table, narrator)
    else:
        model = train_on_all(recipe, table, narrator)
        recipe = settled(recipe, model.fitted)
        held_out = score(recipe, table, narrator, model)
    if held_out:
        narrator.metrics(held_out.metrics, recipe)
    own = own_rows(model, table)
    interval = claimed_interval(model, own, held_out) if held_out else None
    verdicts = verdicts_on(recipe, model, own, held_out, interval)
    narrator.remarks(verdicts)
    return Learned(recipe, table, model, own, held_out, interval, replace(findings, verdicts=verdicts))


def train_on_all(recipe: Recipe, table: Table, narrator: Narrator) -> Model:
    """The model of all rows; raises what `train` does."""
    with narrator.epochs(recipe) as on_epoch:
        model = train(recipe, table, on_epoch=on_epoch)
    narrator.model(model, recipe)
    return model


def bounded(recipe: Recipe, table: Table, narrator: Narrator) -> Recipe:
    """The recipe, with a line in place of a network to look for in more rows than memory may hold."""
    if not isinstance(recipe.network, AutoNetwork) or table.rows <= MOST_ROWS:
        return recipe
    narrator.say(f"more than {MOST_ROWS:,} rows are not looked at for a network: it is a line")
    return recipe.model_copy(update={"network": Linear()})


def look_for_network(recipe: Recipe, table: Table, narrator: Narrator) -> Choice:
    """The network that suits the table; raises what `choose` does."""
    with narrator.waiting("trying a line, an additive model and an ensemble"):
        chosen = choose(recipe, table)
    narrator.trials(chosen.trials)
    return chosen


def with_epochs(recipe: Recipe, held_out: HeldOut | None) -> Recipe:
    """The recipe with the number of epochs that did best on held-out rows, if there were any."""
    if held_out is None:
        return recipe
    return recipe.model_copy(
        update={"schedule": recipe.schedule.model_copy(update={"epochs": held_out.epochs})}
    )


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
        findings = Findings(decisions, remarks_on(table, folds_of(table)))
    narrator.table(table)
    narrator.remarks(findings.remarks)
    return table, findings


def score(recipe: Recipe, table: Table, narrator: Narrator, model: Model | None = None) -> HeldOut | None:
    """The scores on held-out rows, None where the recipe asks for none; raises what `evaluate` does."""
    if not recipe.is_scored:
        return None
    with narrator.waiting("scoring on held-out rows"):
        held_out = evaluate(recipe, table, model)
    if held_out.epochs is not None:
        narrator.say(f"{held_out.epochs} epochs do best on rows left out")
    return held_out
