"""What the cells of a table's columns are like, counted in one pass and in bounded memory."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf, nan
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.cells import read_number
from model_store.columns import Matrix

# A column's part of a piece of a table: the texts of its cells, or an array of values that came typed.
Cells: TypeAlias = Sequence[str] | NDArray[Any]
Piece: TypeAlias = Mapping[str, Cells]
# The number in a cell and its unit, None for a missing one; ValueError for any other text.
ReadNumber: TypeAlias = Callable[[str], tuple[float, str] | None]

MOST_TEXTS, MOST_WORDS = 1000, 10
LONGEST_DATE = 40
# Negative numbers as accounts have them, which are neither read nor taken for missing ones.
NEGATIVE = re.compile(r"\(.*\d.*\)|.*\d\s*-")
ISO = "ISO 8601"
DAYS: Final = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y", "%Y/%m/%d", "%Y-%m-%d"),
    *("%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%m-%d-%y", "%d.%m.%y"),
    *("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b-%Y", "%b %Y"),
)
TIMES: Final = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
FORMATS: Final = tuple(day + time for day in DAYS for time in TIMES)


@dataclass
class Texts:
    """The texts of a column: the rows of the first thousand different ones, and how many rows had others.

    `differing` of `first` texts differed in the first piece that had any.
    """

    rows: Counter[str] = field(default_factory=Counter)
    others: int = 0
    words: int = 0
    differing: int = 0
    first: int = 0

    def add(self, counts: Counter[str]) -> None:
        """Count more texts."""
        if not self.first:
            self.differing, self.first = len(counts), counts.total()
        for text, rows in counts.items():
            if text in self.rows or len(self.rows) < MOST_TEXTS:
                self.rows[text] += rows
            else:
                self.others += rows
            self.words += rows * (text.count(" ") + 1)

    @property
    def total(self) -> int:
        """The rows that have a text."""
        return self.rows.total() + self.others


@dataclass
class Numbers:
    """The cells of a column as numbers: how many are, with which units, and which words are none.

    `holes` are the words that count as missing in every column of numbers, `words` all others, of both the
    first few. `counts` says whether the numbers are 0, 1, 2 … or 1, 2, 3 … in every row, `whole` whether all
    are integers.
    """

    rows: int = 0
    least: float = inf
    greatest: float = -inf
    units: Counter[str] = field(default_factory=Counter)
    holes: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    other_words: int = 0
    whole: bool = True
    counts: bool = True
    _next: int | None = None

    def add(self, cells: Sequence[str], counts: Counter[str], read: ReadNumber) -> None:
        """Read more cells, each different one once."""
        values = {text: self._read(text, rows, read) for text, rows in counts.items()}
        numbers = np.array([values[cell] for cell in cells])
        present = numbers[~np.isnan(numbers)]
        if present.size:
            self.rows += present.size
            self.least = min(self.least, float(present.min()))
            self.greatest = max(self.greatest, float(present.max()))
            self.whole = self.whole and bool((present == np.floor(present)).all())
        if self.counts:
            self.counts = self._goes_on(numbers)

    def _read(self, text: str, rows: int, read: ReadNumber) -> float:
        try:
            found = read(text)
        except ValueError:
            self._add_word(self.words, text, rows)
            return nan
        if found is None:
            self._add_word(self.holes, text, rows)
            return nan
        number, unit = found
        if unit in self.units or len(self.units) < MOST_WORDS:
            self.units.update({unit: rows} if unit else {})
        return number

    def _add_word(self, words: Counter[str], text: str, rows: int) -> None:
        if text in words or len(words) < MOST_WORDS:
            words[text] += rows
        else:
            self.other_words += rows

    def _goes_on(self, numbers: Matrix) -> bool:
        start = (1 if numbers[0] == 1 else 0) if self._next is None else self._next
        self._next = start + numbers.size
        return np.array_equal(numbers, np.arange(start, self._next))


@dataclass
class Order:
    """Whether some moments, given one after another in pieces, never fall, or never rise."""

    rises: bool = True
    falls: bool = True
    _last: float | None = None

    def add(self, moments: Matrix) -> None:
        """Look at more moments (n,), in seconds since 1970."""
        steps = np.diff(moments if self._last is None else np.insert(moments, 0, self._last))
        self.rises = self.rises and bool((steps >= 0).all())
        self.falls = self.falls and bool((steps <= 0).all())
        self._last = float(moments[-1])

    @property
    def is_one_way(self) -> bool:
        """Whether they run in one direction."""
        return self.rises != self.falls


@dataclass
class Dates:
    """The formats that read all cells of a column so far as dates, and in what order these are then."""

    formats: dict[str, Order] | None = None

    def add(self, cells: Sequence[str]) -> None:
        """Look at more cells, none of them missing; drop the formats that do not read them."""
        if self.formats is None:
            self.formats = {form: Order() for form in (ISO, *with_shape(cells[0]))}
        texts = set(cells) if self.formats else ()
        for form, order in tuple(self.formats.items()):
            try:
                moments = {text: read_moment(text, form) for text in texts}
            except ValueError:
                del self.formats[form]
            else:
                order.add(np.array([moments[cell] for cell in cells]))


def read_moment(text: str, form: str) -> float:
    """The moment in a text, in seconds since 1970, of a format or in ISO 8601; raises ValueError for none.

    Digits alone are a date only in the years 1900 to 2099.
    """
    if len(text) > LONGEST_DATE or (text.isdigit() and not re.match("(19|20)", text)):
        message = f"{text[:LONGEST_DATE]!r} is not a date"
        raise ValueError(message)
    if form != ISO:
        return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def with_shape(text: str) -> list[str]:
    """The formats whose dates have digits and letters where a text has some."""
    example = datetime(2017, 5, 23, tzinfo=UTC)
    return [form for form in FORMATS if shape(example.strftime(form)) == shape(text[:LONGEST_DATE])]


def shape(text: str) -> str:
    """A text with one 0 for all digits in a row and one a for all letters."""
    return re.sub("[^\\W\\d_]+", "a", re.sub(r"\d+", "0", text))


@dataclass
class Study:
    """What is known of a column after some pieces; nothing of columns whose name is repeated."""

    name: str
    place: int
    is_repeated: bool = False
    rows: int = 0
    empty: int = 0
    texts: Texts = field(default_factory=Texts)
    numbers: Numbers = field(default_factory=Numbers)
    dates: Dates = field(default_factory=Dates)

    def add(self, values: Cells, read: ReadNumber) -> None:
        """Look at the column's part of one more piece."""
        cells = as_texts(values)
        self.rows += len(cells)
        counts = Counter(cells)
        self.empty += counts[""]
        self.numbers.add(cells, counts, read)
        del counts[""]
        if counts:
            self.texts.add(counts)
        if present := [cell for cell in cells if cell not in self.numbers.holes]:
            self.dates.add(present)


def study(pieces: Iterable[Piece], read: ReadNumber = read_number) -> dict[str, Study]:
    """Go over a table once; what is known of each of its columns, in the table's order."""
    studies: dict[str, Study] = {}
    for piece in pieces:
        for place, (name, cells) in enumerate(piece.items()):
            if len(cells):
                studies.setdefault(name, Study(name, place)).add(cells, read)
    return studies


def as_texts(values: Cells) -> Sequence[str]:
    """The cells of a column as a CSV has them: typed values written out, missing ones empty."""
    if not isinstance(values, np.ndarray):
        return values
    if values.dtype.kind == "M":
        written = np.datetime_as_string(values, unit="s")
        return list(map(str, np.where(np.isnat(values), "", written)))
    return [
        "" if value is None or value != value else str(value)  # noqa: PLR0124  (NaN differs from itself)
        for value in values.tolist()
    ]
