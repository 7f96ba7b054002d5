"""From a file of any form to checked columns: which columns, which rows, which units and categories.

Cells of text are read by the functions that scoring reads them by, so both read the same numbers.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.cells import (
    LONGEST_CELL,
    MISSING,
    Numbers,
    is_missing,
    read_number,
    read_numbers,
    without_codes,
)
from model_store.columns import TRUTHS, Matrix
from model_store.dates import days_of_array, read_days
from model_store.names import nearest_name, plain, usable_names
from model_store.sniffing import value_of
from training.blocks import Blocks
from training.data import DataError, Table
from training.pieces import Cells, OpenTable, open_table
from training.recipe import InputColumn, Recipe, TableOptions
from training.sources import Source, opened
from training.study import NEGATIVE, Study, study
from training.times import read_time

NOT_A_NUMBER = "is not a number; for a column of categories say --category in place of --feature"
NO_TARGET = "is not a number: only numbers can be predicted"
NOT_A_WEIGHT = "is no weight: 0, or a number from 1e-30 to 1e30"
LEAST_WEIGHT, MOST_WEIGHT = 1e-30, 1e30
FEWEST_ROWS = 2
MOST_CATEGORIES = 1000
# Few other words in a column of many numbers stand for missing values.
MOST_WORDS, FEWEST_NUMBERS, SHARE_OF_NUMBERS = 20, 100, 0.95


@contextmanager
def table_at(path: Path) -> Iterator[Source]:
    """Open a table of any form, packed or not, to be read once or again; `-` is the standard input.

    Raises DataError for a file that cannot be read or that changes meanwhile.
    """
    try:
        with opened(path) as source:
            yield source
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read as a table: {error}"
        raise DataError(message) from None


def read_table(path: Path, recipe: Recipe) -> Table:
    """Read the recipe's columns of a table; raises DataError as `table_at` and `read_rows` do."""
    with table_at(path) as source:
        return read_rows(source, recipe)


def study_columns(source: Source, options: TableOptions, asked: Sequence[str] = ()) -> list[Study]:
    """What all columns of a table are like; raises DataError, also if one that is asked for is not there."""
    with open_table(source, options) as table:
        known = usable_names(table.header)
        check_names(source.name, known, asked)
        names = [name for name, count in Counter(known).items() if count == 1]
        repeated = [name for name, count in Counter(known).items() if count > 1]
        decimal = table.form.decimal if table.form else "."
        words = frozenset(word.strip().lower() for word in options.missing_words)
        pieces = table.pieces([known.index(name) for name in names])
        read = partial(read_number, decimal=decimal, words=words)
        studies = study((dict(zip(names, piece, strict=True)) for piece in pieces), read)
    return [*studies.values(), *(Study(name, known.index(name), is_repeated=True) for name in repeated)]


def read_rows(source: Source, recipe: Recipe) -> Table:
    """Read the recipe's columns of a table.

    Rows that lack a value which the recipe does not let miss are dropped and counted. A column that splits or
    weights costs a row too where it is empty, and so does a weight of 0. Raises DataError for an empty table,
    a column that is not there or not what the recipe says, a row of another width, and fewer than two rows.
    """
    inputs = [column.name for column in recipe.features]
    names = list(dict.fromkeys([*inputs, recipe.target.name, *recipe.beside]))
    with open_table(source, recipe.table) as table:
        known = usable_names(table.header)
        check_names(source.name, known, names)
        places = [known.index(name) for name in names]
        reader = Reader(source.name, recipe, table)
        pieces = (dict(zip(names, piece, strict=True)) for piece in table.pieces(places))
        blocks = Blocks(reader.rows(pieces), len(inputs) + 1)
        missing_words = reader.settled()
        renamed = [(table.header[place], known[place]) for place in places]
    if blocks.rows < FEWEST_ROWS:
        found = f"{blocks.rows} rows with a value in each of {', '.join(names)}"
        message = f"{source.name} has {found}; two is the fewest"
        raise DataError(message)
    beside = {name: np.concatenate(values) for name, values in reader.beside.items()}
    blocks.weights = beside.get(recipe.weight) if recipe.weight else None
    return Table(
        source=source.name,
        header=tuple(known),
        recipe=recipe,
        blocks=blocks,
        categories=reader.categories,
        empty=dict(reader.empty),
        units=reader.units,
        dropped={name: count for name, count in reader.dropped.items() if count},
        rows_read=reader.rows_read,
        sha256=source.sha256,
        form=table.form,
        missing_words=missing_words,
        notes=(*notes_on(table, renamed), *reader.notes),
        split_by=None if recipe.split.kind == "random" else beside[recipe.split.column],
        dated=bool(reader.dated),
    )


def check_names(source: str, header: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a column that is not in the header exactly once."""
    for name in names:
        if header.count(name) > 1:
            message = f"{source} has {header.count(name)} columns named {name!r}: rename all but one"
            raise DataError(message)
        if name not in header:
            message = f"{source} has no column {name!r}: {hint_at(name, header)}"
            raise DataError(message)


def hint_at(name: str, header: Sequence[str]) -> str:
    """What may have been meant by a name that is not in the header."""
    if all(value_of(other, ".") is not None for other in header):
        return "its first line holds numbers alone; if it is a row, say --no-header"
    nearest = nearest_name(name, header)
    if nearest is None:
        return f"it has {', '.join(header[:30])}"
    differs = ", which differs in case or blanks alone" if plain(nearest) == plain(name) else ""
    return f"did you mean {nearest!r}{differs}?"


def notes_on(table: OpenTable, renamed: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What was found of the table as a whole, in sentences."""
    yield f"read as {table.words}"
    if table.form and table.form.doubt:
        yield f"it could be meant otherwise: {table.form.doubt}; say --decimal if it is wrong"
    for original, name in renamed:
        if original != name:
            yield f"the column {original!r} is called {name!r}"


@dataclass
class Words:
    """The cells of a column of numbers that are neither numbers nor missing, and how many are numbers."""

    numbers: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def are_for_missing(self) -> bool:
        """Whether nearly all cells are numbers, so that the others stand for missing values."""
        cells = self.numbers + self.counts.total()
        are_few = self.numbers >= max(FEWEST_NUMBERS, SHARE_OF_NUMBERS * cells)
        return are_few and not any(
            len(word) > LONGEST_CELL or NEGATIVE.fullmatch(word) for word in self.counts
        )


@dataclass
class Reader:
    """Turns pieces of a table into rows of numbers, and counts what it meets on the way."""

    source: str
    recipe: Recipe
    table: OpenTable
    rows_read: int = 0
    categories: dict[str, Counter[str]] = field(default_factory=dict)
    empty: Counter[str] = field(default_factory=Counter)
    units: dict[str, Counter[str]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    words: dict[str, Words] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    beside: dict[str, list[Matrix]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    dated: bool | None = None

    def rows(self, pieces: Iterator[dict[str, Cells]]) -> Iterator[Matrix]:
        """The complete rows of each piece, (n, width): a column for each input and the target last.

        Raises DataError for the first cell that cannot be read.
        """
        target = self.recipe.target.name
        inputs = [*self.recipe.features, InputColumn(name=target)]
        for piece in pieces:
            columns = {column.name: self._column(column, piece[column.name]) for column in inputs}
            self._check_target(columns[target], piece[target])
            beside = self._beside(piece, columns)
            complete = self._complete(columns, beside)
            for name, values in beside.items():
                self.beside.setdefault(name, []).append(values[complete])
            for name in self.categories:
                self._count(name, columns[name][complete])
            yield np.column_stack(list(columns.values()))[complete]
            self.rows_read += len(piece[target])

    def _check_target(self, values: Matrix, cells: Cells) -> None:
        if self.recipe.target.transform == "log":
            what = "is not above 0, so it has no logarithm"
            self._refuse_where(values <= 0, self.recipe.target.name, cells, what)

    def _column(self, column: InputColumn, cells: Cells) -> Matrix:
        """The cells as a column of numbers, missing ones as NaN."""
        if column.kind == "numeric":
            return self._numbers(column.name, cells, column.missing_words)
        if column.kind == "date":
            return self._days(column, cells)
        return (
            self._truths(column.name, cells) if column.kind == "boolean" else self._codes(column.name, cells)
        )

    def _days(self, column: InputColumn, cells: Cells) -> Matrix:
        """Dates as days since 1970, each different text read once."""
        if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
            return days_of_array(cells)
        texts = [text_of(cell) for cell in cells]
        days: dict[str, float] = {}
        for index, text in enumerate(texts):
            if text not in days:
                try:
                    days[text] = np.nan if is_missing(text.strip()) else read_days(text, column.format)
                except ValueError:
                    form = f"ISO 8601 or {column.format}" if column.format else "ISO 8601"
                    what = f"is not a date ({form}); for another form say --date {column.name}=%d/%m/%Y"
                    raise DataError(self._fault(column.name, cells, index, what)) from None
        return np.array([days[text] for text in texts])

    def _truths(self, name: str, cells: Cells) -> Matrix:
        """True as 1 and false as 0, in any case."""
        self.categories.setdefault(name, Counter(false=0, true=0))
        texts = [text_of(cell).strip().lower() for cell in cells]
        truths = [np.nan if text in MISSING else float(TRUTHS.get(text, np.inf)) for text in texts]
        values = np.array(truths, dtype=np.float64)
        self._refuse_where(np.isinf(values), name, cells, "is neither true nor false; say --category for it")
        return values

    def _numbers(self, name: str, cells: Cells, missing: tuple[str, ...] = ()) -> Matrix:
        """The cells as float64, missing ones as NaN; units are taken off and counted."""
        numbers = self._read(cells, (*self.recipe.table.missing_words, *missing))
        self._refuse_where(np.isinf(numbers.column), name, cells, "is not a finite number")
        words = self.words.setdefault(name, Words())
        words.numbers += int(np.isfinite(numbers.column).sum())
        if numbers.unreadable and not words.counts:
            what = NO_TARGET if name == self.recipe.target.name else NOT_A_NUMBER
            words.first = self._fault(name, cells, numbers.unreadable[0], what)
        words.counts.update(text_of(cells[index]).strip() for index in numbers.unreadable)
        if len(words.counts) > MOST_WORDS:
            raise DataError(words.first)
        if numbers.units:
            self._check_texts(name, numbers.units)
            self.units.setdefault(name, Counter()).update(numbers.units)
        return numbers.column

    def _read(self, cells: Cells, missing: tuple[str, ...]) -> Numbers:
        if not isinstance(cells, np.ndarray):
            return read_numbers(cells, self.table.form.decimal if self.table.form else ".", missing)
        if cells.dtype.kind in "fiu":
            return Numbers(without_codes(cells.astype(np.float64), missing), (), Counter())
        return mixed_numbers(cells, missing)

    def _codes(self, name: str, cells: Cells) -> Matrix:
        """Each cell's position among the categories met so far, NaN for an empty one."""
        texts = [text_of(cell) for cell in cells] if isinstance(cells, np.ndarray) else cells
        known = self.categories.setdefault(name, Counter())
        new = [text for text in dict.fromkeys(texts) if text and text not in known]
        self._check_texts(name, new)
        known.update(dict.fromkeys(new, 0))
        if len(known) > MOST_CATEGORIES:
            message = f"the column {name!r} of {self.source} has more than {MOST_CATEGORIES} categories"
            raise DataError(message)
        position = {"": np.nan} | {text: float(index) for index, text in enumerate(known)}
        return np.fromiter(map(position.__getitem__, texts), np.float64, len(texts))

    def _check_texts(self, name: str, texts: Iterable[str]) -> None:
        """Refuse texts of a column that are not what their bytes were meant to be."""
        if re.search("[\ud800-\udfff]", "".join(texts)):
            encoding = self.table.form.encoding if self.table.form else "utf-8"
            message = f"the column {name!r} of {self.source} is not {encoding} throughout: say --encoding"
            raise DataError(message)

    def _beside(self, piece: dict[str, Cells], columns: dict[str, Matrix]) -> dict[str, Matrix]:
        """What the rows are split by and their weights; NaN where there is none."""
        split, weight = self.recipe.split, self.recipe.weight
        beside: dict[str, Matrix] = {}
        if split.kind == "time":
            beside[split.column] = self._times(split.column, piece[split.column], split.format)
        if split.kind == "group":
            known = columns.get(split.column)
            beside[split.column] = self._groups(piece[split.column]) if known is None else known
        if weight:
            beside[weight] = self._weights(weight, piece[weight])
        return beside

    def _times(self, name: str, cells: Cells, form: str | None) -> Matrix:
        texts = [text_of(cell).strip() for cell in cells]
        decimal = self.table.form.decimal if self.table.form else "."
        times = {text: np.nan for text in texts if is_missing(text)}
        for index, text in enumerate(texts):
            if text not in times:
                try:
                    times[text], dated = read_time(text, form, decimal)
                except ValueError as error:
                    raise DataError(self._fault(name, cells, index, str(error))) from None
                if self.dated not in {None, dated}:
                    what = f"is {'a date' if dated else 'a number'}, and the times before it are not"
                    raise DataError(self._fault(name, cells, index, what))
                self.dated = dated
        return np.array([times[text] for text in texts])

    def _groups(self, cells: Cells) -> Matrix:
        texts = [text_of(cell) for cell in cells]
        groups = [self.groups.setdefault(text, len(self.groups)) if text else np.nan for text in texts]
        return np.array(groups, dtype=np.float64)

    def _weights(self, name: str, cells: Cells) -> Matrix:
        values = self._numbers(name, cells)
        outside = (values < LEAST_WEIGHT) | (values > MOST_WEIGHT)
        self._refuse_where(outside & (values != 0), name, cells, NOT_A_WEIGHT)
        return np.where(values == 0, np.nan, values)

    def _complete(self, columns: dict[str, Matrix], beside: dict[str, Matrix]) -> NDArray[np.bool_]:
        """Which rows have a value wherever one is needed; the cells that cost a row are counted."""
        recipe = self.recipe
        fillable = {column.name for column in recipe.features if recipe.missing_of(column) != "drop"}
        fillable -= beside.keys()
        complete = np.ones(len(next(iter(columns.values()))), dtype=bool)
        for name, values in {**columns, **beside}.items():
            if name in fillable:
                continue
            missing = np.isnan(values)
            complete &= ~missing
            self.dropped[name] += int(missing.sum())
        return complete

    def _count(self, name: str, codes: Matrix) -> None:
        known = self.categories[name]
        present = codes[~np.isnan(codes)].astype(np.intp)
        self.empty[name] += len(codes) - len(present)
        for text, count in zip(known, np.bincount(present, minlength=len(known)), strict=True):
            known[text] += int(count)

    def settled(self) -> dict[str, tuple[str, ...]]:
        """The words for missing values of each column of numbers, those met among them.

        Raises DataError for a column in which other cells than numbers are too many to be that.
        """
        of_column = {column.name: column.missing_words for column in self.recipe.features}
        found = {name: (*self.recipe.table.missing_words, *of_column.get(name, ())) for name in self.words}
        for name, known in self.categories.items():
            if not known.total():
                message = (
                    f"the column {name!r} of {self.source} is empty in every row that counts: leave it out"
                )
                raise DataError(message)
        for name, words in self.words.items():
            if not words.counts:
                continue
            if not words.are_for_missing():
                raise DataError(words.first)
            self._check_texts(name, words.counts)
            listed = ", ".join(f"{word!r} ({count:,} rows)" for word, count in words.counts.items())
            self.notes.append(f"{name} is nearly always a number: {listed} count as missing")
            found[name] += tuple(words.counts)
        return found

    def _refuse_where(self, faulty: NDArray[np.bool_], name: str, cells: Cells, what: str) -> None:
        if faulty.any():
            raise DataError(self._fault(name, cells, int(np.flatnonzero(faulty)[0]), what))

    def _fault(self, name: str, cells: Cells, index: int, what: str) -> str:
        return (
            f"the column {name!r} of {self.source}: row {self.rows_read + index + 1} has "
            f"{text_of(cells[index])[:40]!r}, which {what}"
        )


def mixed_numbers(values: NDArray[Any], missing_words: tuple[str, ...]) -> Numbers:
    """Values of any type, (n,), as numbers: texts as cells with a decimal point, None as missing."""
    texts = [index for index, value in enumerate(values) if isinstance(value, str)]
    numbers = np.array([number_of(value) for value in values])
    others = [index for index, value in enumerate(values) if not is_number(value) and value is not None]
    read = read_numbers([values[index] for index in texts], ".", missing_words)
    numbers[texts] = read.column
    unreadable = {texts[index] for index in read.unreadable} | set(others).difference(texts)
    return Numbers(without_codes(numbers, missing_words), sorted(unreadable), read.units)


def is_number(value: object) -> bool:
    """Whether a value that came parsed is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number_of(value: Any) -> float:
    """A number as float64, infinite if it is too large for that; NaN for anything else."""
    try:
        return float(value) if is_number(value) else np.nan
    except OverflowError:
        return np.inf


def text_of(value: Any) -> str:
    """A value as a cell of text has it: whole numbers without a point, '' for a missing one."""
    if value is None or value != value:  # noqa: PLR0124  (NaN and NaT differ from themselves)
        return ""
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    if isinstance(value, np.datetime64):
        value = value.item()
    return value.isoformat() if isinstance(value, date) else str(value)
