"""A version trained again from its own recipe, to see whether the same bits come out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from model_store.columns import Matrix
from model_store.manifest import Description
from model_store.versions import Version
from training.console import Narrator
from training.data import DataError, Table
from training.pipeline import learn
from training.publish import describe, library_versions
from training.recipe import RecipeFile, parse_recipe
from training.sources import STANDARD_INPUT

COMPARED = {"target", "features", "network", "training", "metrics", "interval"}
# What may differ while the bits are the same; it is told beforehand.
TOLD = {"training": {"data_sha256", "libraries"}}


@dataclass(frozen=True)
class Difference:
    """A number or a word, by its dotted name, that is not the same in the version and trained again."""

    what: str
    version: Any
    retrained: Any

    @property
    def words(self) -> str:
        """Both values."""
        return f"{self.what} is {self.version!r} in the version, {self.retrained!r} trained again"


@dataclass(frozen=True, kw_only=True)
class DataWatch(Narrator):
    """Says of a training only that its table is not the one with this SHA-256."""

    sha256: str
    tell: Callable[[str], None]

    def table(self, table: Table) -> None:
        """Tell if it is another table."""
        if table.sha256 != self.sha256:
            self.tell(
                f"the data are not those of the version: the SHA-256 of {table.source} is {table.sha256}, "
                f"the version's is {self.sha256}"
            )


def train_again(version: Version, data: Path | None, tell: Callable[[str], None]) -> list[Difference]:
    """Train from the version's recipe, on the table `data` or else on the recipe's own, and compare.

    First it tells whether the data or the libraries are others than the version's. Of each tensor it gives
    the first element that differs, and then all that differs of what the version says about the model. Raises
    DataError, also for a version without a recipe, RecipeInvalid and Unstable.
    """
    file, training = recipe_of(version), version.manifest.training
    for library, now in library_versions().items():
        if training.libraries.get(library) != now:
            tell(f"the version was trained with {library} {training.libraries.get(library)}, here is {now}")
    table = data or file.data
    if table != STANDARD_INPUT and not table.exists():
        message = f"the table {table}, which the version was trained on, is not here: say where with --data"
        raise DataError(message)
    watch = DataWatch(quiet=True, sha256=training.data_sha256, tell=tell)
    learned = learn(table, file.recipe, narrator=watch)
    again = describe(file.name, learned)
    tensors = learned.model.fitted.network.tensors()
    return [*other_tensors(version.predictor.weights, tensors), *other_facts(version.manifest, again)]


def recipe_of(version: Version) -> RecipeFile:
    """What decided the version; raises DataError if it does not have that, RecipeInvalid if it is none."""
    where = f"version {version.manifest.version} of {version.manifest.name}"
    if version.recipe is None:
        message = f"{where} has no recipe.toml to train again from"
        raise DataError(message)
    return parse_recipe(version.recipe, f"the recipe.toml of {where}")


def other_tensors(version: Mapping[str, Matrix], retrained: Mapping[str, Matrix]) -> Iterator[Difference]:
    """For each tensor that differs its first element with other bits, or the shapes."""
    for name, ours in sorted(version.items()):
        theirs = retrained[name]
        if ours.shape != theirs.shape:
            yield Difference(f"{name}.shape", list(ours.shape), list(theirs.shape))
            continue
        for place in np.argwhere(ours.view(np.int64) != theirs.view(np.int64))[:1].tolist():
            index = tuple(place)
            yield Difference(f"{name}{place}", float(ours[index]), float(theirs[index]))


def other_facts(version: Description, retrained: Description) -> Iterator[Difference]:
    """The statistics, scores, bounds and settings that differ, of those that the version's document has."""
    ours = version.model_dump(mode="json", include=COMPARED, exclude=TOLD, exclude_unset=True)
    theirs = retrained.model_dump(mode="json", include=COMPARED)
    for part, value in ours.items():
        yield from other_values(part, value, theirs[part])


def other_values(name: str, ours: Any, theirs: Any) -> Iterator[Difference]:
    """Where nested JSON differs; what has a name or a value is called by it, not by its position."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from other_values(f"{name}.{key}", value, theirs.get(key))
    elif isinstance(ours, list) and isinstance(theirs, list):
        for index, (our, their) in enumerate(zip_longest(ours, theirs)):
            label = our.get("name", our.get("value", index)) if isinstance(our, dict) else index
            yield from other_values(f"{name}.{label}", our, their)
    elif ours != theirs:
        yield Difference(name, ours, theirs)
