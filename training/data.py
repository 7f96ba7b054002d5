"""From a CSV or Parquet file to checked columns: which columns, which rows, which units and categories.

The file is read once, in pieces, so that its length does not matter to the memory it takes.
"""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_store.cells import read_number
from model_store.columns import Column, Matrix
from model_store.parts import COLUMN_NAME
from training.blocks import Blocks
from training.recipe import InputColumn, Recipe
from training.times import read_time

NOT_A_NUMBER = "is not a number; for a column of categories say --category in place of --feature"
PIECE_ROWS = 100_000
NOT_A_WEIGHT = "is no weight: 0, or a number from 1e-30 to 1e30"
LEAST_WEIGHT, MOST_WEIGHT = 1e-30, 1e30
FEWEST_ROWS = 2
MOST_CATEGORIES = 1000


class DataError(Exception):
    """A table that cannot be learned from; its text says what, where and what to do."""


@dataclass(frozen=True)
class Table:
    """The rows to learn from.

    `blocks` holds a column for each input, categories as positions in `categories`, and the target last, and
    carries the rows' weights. `dropped` counts by column the empty cells that cost a row, and weights of 0;
    `units` counts rows by unit. `split_by` (rows,) is the time or the group of each row, if the recipe splits
    by one; times that are `dated` are seconds since 1970.
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

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.blocks.rows

    def target(self) -> Matrix:
        """The target of every row, (rows,)."""
        return np.concatenate([block[:, -1] for block in self.blocks] or [np.empty(0)])

    def columns(self, block: Matrix) -> dict[str, Column]:
        """The inputs of a block as they were in the file: numbers, and categories as text."""
        columns: dict[str, Column] = {}
        for feature, values in zip(self.recipe.features, block.T, strict=False):
            if feature.kind == "categorical":
                names = list(self.categories[feature.name])
                columns[feature.name] = [names[int(value)] for value in values]
            else:
                columns[feature.name] = values
        return columns

    def take(self, chosen: NDArray[np.bool_]) -> "Table":
        """The same table with only the rows that a mask chooses."""
        split_by = None if self.split_by is None else self.split_by[chosen]
        return replace(self, blocks=self.blocks.take(chosen), split_by=split_by)


@dataclass
class Reader:
    """Turns pieces of a file into rows of numbers, and counts what it meets on the way."""

    path: Path
    recipe: Recipe
    rows_read: int = 0
    categories: dict[str, Counter[str]] = field(default_factory=dict)
    units: dict[str, Counter[str]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    beside: dict[str, list[Matrix]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    dated: bool | None = None

    def rows(self, pieces: Iterator[pd.DataFrame]) -> Iterator[Matrix]:
        """The complete rows of each piece, a column for each input and the target last."""
        for piece in pieces:
            columns = {
                column.name: self._column(column, piece[column.name]) for column in self.recipe.features
            }
            columns[self.recipe.target.name] = self._target(piece[self.recipe.target.name])
            beside = self._beside(piece, columns)
            complete = self._complete(columns, beside)
            for name, values in beside.items():
                self.beside.setdefault(name, []).append(values[complete])
            for column in self.recipe.features:
                if column.kind == "categorical":
                    self._count(column.name, columns[column.name][complete])
            yield np.column_stack(list(columns.values()))[complete]
            self.rows_read += len(piece)

    def _column(self, column: InputColumn, cells: "pd.Series[Any]") -> Matrix:
        return self._codes(cells) if column.kind == "categorical" else self._numbers(cells)

    def _target(self, cells: "pd.Series[Any]") -> Matrix:
        values = self._numbers(cells)
        if self.recipe.target.transform == "log":
            self._refuse_where(values <= 0, cells, "is not above 0, so it has no logarithm")
        return values

    def _numbers(self, cells: "pd.Series[Any]") -> Matrix:
        """The cells as float64, missing ones as NaN; units are taken off and counted."""
        if cells.dtype.kind in "iuf":
            numbers = cells.to_numpy(np.float64)
        else:
            rows, texts = pd.factorize(cells.astype(object))
            read = [self._number(str(text), cells, rows, index) for index, text in enumerate(texts)]
            numbers = np.array([*(number for number, _ in read), np.nan])[rows]
            units = self.units.setdefault(str(cells.name), Counter())
            for (_, unit), count in zip(read, np.bincount(rows[rows >= 0]), strict=True):
                units.update({unit: int(count)} if unit else {})
        self._refuse_where(np.isinf(numbers), cells, "is not a finite number")
        return numbers

    def _number(
        self, text: str, cells: "pd.Series[Any]", rows: NDArray[np.intp], index: int
    ) -> tuple[float, str]:
        try:
            return read_number(text) or (np.nan, "")
        except ValueError:
            self._refuse_where(rows == index, cells, NOT_A_NUMBER)
            raise

    def _codes(self, cells: "pd.Series[Any]") -> Matrix:
        """Each cell's position among the categories met so far, NaN for an empty one."""
        rows, texts = pd.factorize(cells)
        known = self.categories.setdefault(str(cells.name), Counter())
        for text in texts:
            known.setdefault(str(text), 0)
        if len(known) > MOST_CATEGORIES:
            message = f"the column {cells.name!r} of {self.path} has more than {MOST_CATEGORIES} categories"
            raise DataError(message)
        position = {text: float(index) for index, text in enumerate(known)}
        return np.array([*(position[str(text)] for text in texts), np.nan])[rows]

    def _beside(self, piece: pd.DataFrame, columns: dict[str, Matrix]) -> dict[str, Matrix]:
        """What the rows are split by and their weights; NaN where there is none."""
        split, weight = self.recipe.split, self.recipe.weight
        beside: dict[str, Matrix] = {}
        if split.kind == "time":
            beside[split.column] = self._times(piece[split.column], split.format)
        if split.kind == "group":
            known = columns.get(split.column)
            beside[split.column] = self._groups(piece[split.column]) if known is None else known
        if weight:
            beside[weight] = self._weights(piece[weight])
        return beside

    def _times(self, cells: "pd.Series[Any]", form: str | None) -> Matrix:
        rows, texts = pd.factorize(cells)
        times = np.empty(len(texts) + 1)
        for index, text in enumerate(texts):
            try:
                times[index], dated = read_time(str(text), form)
            except ValueError as error:
                self._refuse_where(rows == index, cells, str(error))
            if self.dated not in {None, dated}:
                what = "a date" if dated else "a number"
                self._refuse_where(rows == index, cells, f"is {what}, and the times before it are not")
            self.dated = dated
        times[-1] = np.nan
        return times[rows]

    def _groups(self, cells: "pd.Series[Any]") -> Matrix:
        rows, texts = pd.factorize(cells)
        groups = [self.groups.setdefault(str(text), len(self.groups)) for text in texts]
        return np.array([*groups, np.nan])[rows]

    def _weights(self, cells: "pd.Series[Any]") -> Matrix:
        values = self._numbers(cells)
        outside = (values < LEAST_WEIGHT) | (values > MOST_WEIGHT)
        self._refuse_where(outside & (values != 0), cells, NOT_A_WEIGHT)
        return np.where(values == 0, np.nan, values)

    def _complete(self, columns: dict[str, Matrix], beside: dict[str, Matrix]) -> NDArray[np.bool_]:
        """Which rows have a value wherever one is needed; the cells that cost a row are counted."""
        numeric = {column.name for column in self.recipe.features if column.kind == "numeric"}
        fillable = numeric - beside.keys()
        complete = np.ones(len(next(iter(columns.values()))), dtype=bool)
        for name, values in {**columns, **beside}.items():
            if name in fillable and self.recipe.missing == "mean":
                continue
            missing = np.isnan(values)
            complete &= ~missing
            self.dropped[name] += int(missing.sum())
        return complete

    def _count(self, name: str, codes: Matrix) -> None:
        known = self.categories[name]
        for text, count in zip(known, np.bincount(codes.astype(int), minlength=len(known)), strict=True):
            known[text] += int(count)

    def _refuse_where(self, faulty: NDArray[np.bool_], cells: "pd.Series[Any]", what: str) -> None:
        if faulty.any():
            row = int(np.flatnonzero(faulty)[0])
            message = (
                f"the column {cells.name!r} of {self.path}: row {self.rows_read + row + 1} has "
                f"{str(cells.iloc[row])[:40]!r}, which {what}"
            )
            raise DataError(message)


def read_table(path: Path, recipe: Recipe) -> Table:
    """Read the recipe's columns of a CSV file, or of a Parquet file or folder.

    Rows with a missing value are dropped and counted; under `missing = "mean"` numeric inputs may miss.
    Raises DataError for a file that cannot be read or is empty, a column that is not there or not what
    the recipe says, and for fewer than two rows. A column that splits or weights costs a row too where it is
    empty, and so does a weight of 0.
    """
    inputs = [column.name for column in recipe.features]
    names = list(dict.fromkeys([*inputs, recipe.target.name, *recipe.beside]))
    check_names(path, read_header(path), names)
    reader = Reader(path, recipe)
    blocks = Blocks(reader.rows(read_pieces(path, recipe, names)), len(inputs) + 1)
    if blocks.rows < FEWEST_ROWS:
        message = (
            f"{path} has {blocks.rows} rows with a value in each of {', '.join(names)}; two is the fewest"
        )
        raise DataError(message)
    beside = {name: np.concatenate(pieces) for name, pieces in reader.beside.items()}
    blocks.weights = beside.get(recipe.weight) if recipe.weight else None
    split_by = None if recipe.split.kind == "random" else beside[recipe.split.column]
    dropped = {name: count for name, count in reader.dropped.items() if count}
    return Table(
        source=str(path),
        recipe=recipe,
        blocks=blocks,
        categories=reader.categories,
        units=reader.units,
        dropped=dropped,
        sha256=data_sha256(path),
        split_by=split_by,
        dated=bool(reader.dated),
    )


def read_header(path: Path) -> list[str]:
    """The columns' names; raises DataError for a file without any or that cannot be read."""
    try:
        if is_parquet(path):
            return list(parquet_dataset(path).schema.names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error) as error:
        message = f"{path} cannot be read as a table: {error}"
        raise DataError(message) from None
    if not header:
        message = f"{path} is empty: a first line with the columns' names is expected, then a line a row"
        raise DataError(message)
    return header


def check_names(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    """Raise DataError for a column that is not in the header exactly once or cannot be named in a request."""
    for name in names:
        if not re.fullmatch(COLUMN_NAME, name):
            message = f"the column {name!r} cannot be used: rename it without quotes, backslashes and tabs"
            raise DataError(message)
        if header.count(name) > 1:
            message = f"{path} has {header.count(name)} columns named {name!r}: rename all but one"
            raise DataError(message)
        if name not in header:
            nearest = get_close_matches(name, header, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(header[:30])}"
            message = f"{path} has no column {name!r}: {hint}"
            raise DataError(message)


def read_pieces(path: Path, recipe: Recipe, names: list[str]) -> Iterator[pd.DataFrame]:
    """The named columns in pieces of at most 100,000 rows; categories stay text."""
    texts = {column.name: str for column in recipe.features if column.kind == "categorical"}
    if recipe.split.kind == "group" and recipe.split.column not in {each.name for each in recipe.features}:
        texts[recipe.split.column] = str
    try:
        if is_parquet(path):
            for batch in parquet_dataset(path).to_batches(columns=names, batch_size=PIECE_ROWS):
                yield as_texts(batch, texts).to_pandas()
        else:
            with pd.read_csv(
                path, usecols=names, index_col=False, dtype=texts, encoding="utf-8-sig", chunksize=PIECE_ROWS
            ) as pieces:
                yield from pieces
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read as a table: {error}"
        raise DataError(message) from None


def is_parquet(path: Path) -> bool:
    """Whether the path is a Parquet file, or a folder, which is taken to hold them."""
    return path.suffix == ".parquet" or path.is_dir()


def as_texts(batch: Any, names: Iterable[str]) -> Any:
    """A pyarrow batch with the named columns as text, a whole number without a point even beside a null."""
    for name in names:
        index = batch.schema.get_field_index(name)
        batch = batch.set_column(index, name, batch.column(index).cast("string"))
    return batch


def parquet_dataset(path: Path) -> Any:
    """Open a Parquet file or folder as a pyarrow dataset; raises DataError without the extra for it."""
    try:
        from pyarrow import dataset  # noqa: PLC0415  (an extra that most tables do not need)
    except ImportError:
        message = f"{path}: Parquet needs an extra: pip install 'plumbline[parquet]'"
        raise DataError(message) from None
    return dataset.dataset(path, format="parquet")


def data_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, or of its files' digests, in the order of their names, for a folder."""
    if path.is_dir():
        digests = [data_sha256(file) for file in sorted(path.rglob("*.parquet"))]
        return hashlib.sha256("".join(digests).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
