"""A table that was read: its rows as numbers, and what reading met on the way."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model_store.columns import Column, Matrix
from model_store.forms import Form
from training.blocks import Blocks
from training.recipe import Recipe


class DataError(Exception):
    """A table that cannot be learned from; its text says what, where and what to do."""


@dataclass(frozen=True)
class Table:
    """The rows to learn from.

    `blocks` holds a column for each input and the target last, and carries the rows' weights: categories and
    booleans are positions in `categories`, dates days since 1970, missing values NaN. `categories` counts the
    rows by category, `empty` those without one, `units` those by unit; `dropped` the empty cells that
    cost a row of all `rows_read`, and weights of 0. The `header` has other columns too. `form` is that of a
    table of text, `missing_words` what counts as missing in a column beside the words that always do, `notes`
    what reading found, in sentences. `split_by` (rows,) is the time or the group of each row, if the recipe
    splits by one; times that are `dated` are seconds since 1970.
    """

    source: str
    recipe: Recipe
    blocks: Blocks
    categories: dict[str, Counter[str]]
    units: dict[str, Counter[str]]
    dropped: dict[str, int]
    sha256: str
    split_by: Matrix | None = None
    dated: bool = False
    empty: dict[str, int] = field(default_factory=dict)
    rows_read: int = 0
    header: tuple[str, ...] = ()
    form: Form | None = None
    missing_words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.blocks.rows

    def target(self) -> Matrix:
        """The target of every row, (rows,)."""
        return np.concatenate([block[:, -1] for block in self.blocks] or [np.empty(0)])

    def columns(self, block: Matrix) -> dict[str, Column]:
        """The inputs of a block (n, width) as their features accept them, each (n,).

        Categories are text, None for none.
        """
        columns: dict[str, Column] = {}
        for feature, values in zip(self.recipe.features, block.T, strict=False):
            if feature.kind == "categorical":
                names = [*self.categories[feature.name], None]
                codes = np.where(np.isnan(values), len(names) - 1, values).astype(np.intp)
                columns[feature.name] = [names[code] for code in codes.tolist()]
            else:
                columns[feature.name] = values
        return columns

    def take(self, chosen: NDArray[np.bool_]) -> "Table":
        """The same table with only the rows that a mask (rows,) chooses."""
        split_by = None if self.split_by is None else self.split_by[chosen]
        return replace(self, blocks=self.blocks.take(chosen), split_by=split_by)
