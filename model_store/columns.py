"""What an input takes: one class for each kind of feature, which says it everywhere it has to be said.

A kind reads values that came parsed (JSON's, a tensor, an Arrow column) and cells of text into a column and
says which positions it refuses; says in words and as JSON Schema what it takes; and encodes a column, and a
row, for the network with the same bits. A new kind is a class here, a member of `Feature`, and its tests.

Every operation is elementwise, which makes a row's 64 bits independent of the rows around it; each rule is
written once, for a float and for an array.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import accumulate, count
from math import inf, isfinite, nan
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeGuard, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from model_store import dates
from model_store._nonlinear import all_clipped, check_knots, clipped_z_score, hats, row_hats
from model_store._spelling import meant
from model_store.cells import MISSING, DecimalMark, read_numbers
from model_store.parts import ColumnName, Part, Range, refuse_repeats

T = TypeVar("T")
Matrix: TypeAlias = NDArray[np.float64]
Value: TypeAlias = float | str | None
# n values that a feature accepts: numbers, booleans and days best as an array, with NaN for a missing one.
Column: TypeAlias = Matrix | Sequence[Value]
Columns: TypeAlias = Mapping[str, Column]
Row: TypeAlias = Sequence[Value]
Positions: TypeAlias = NDArray[np.intp]
# Values of any of the forms that `Kind.read` takes: a list, or an array of numpy's, torch's or Arrow's.
Values: TypeAlias = Any
DateFormat = Annotated[str, Field(pattern=r"^(%[dmbBYyjHIMSfp%]|[^%])+$", max_length=dates.LONGEST)]
# One float for a kind that takes one column, several for one that takes more.
RowEncoder: TypeAlias = Callable[[Any], float] | Callable[[Any], Sequence[float]]
# Inputs of a network by their positions in the encoded row, ascending: those at all others are 0.
SparseInputs: TypeAlias = dict[int, float]

LARGEST = sys.float_info.max
# A value is far outside training if it is beyond the least or the greatest by more than this share of the
# distance between them. How far a model errs there, no row has shown: no interval is claimed.
FAR = 0.1
MOST_NAMED, LONGEST_NAMED = 5, 40
MISSING_LEVEL, OTHER_LEVEL = "(missing)", "(other)"
TRUTHS = {"true": True, "false": False}
NOWHERE: Positions = np.empty(0, dtype=np.intp)
# From so many numbers on, numpy encodes those of a row sooner together than Python one by one.
MANY_NUMBERS = 64
# With more columns a feature than this, most inputs of a row are 0, and it pays to leave these out.
SPARSE = 3


@dataclass(frozen=True)
class Reading:
    """Values read as a column of n; `refused` are the positions, ascending, whose values do not count."""

    column: Column
    refused: Positions


class Kind(Part):
    """What every kind of input tells and does."""

    name: ColumnName
    description: str | None = None

    @property
    def heading(self) -> str:
        """Its name, with its unit in brackets if it has one."""
        return self.name

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """A name for each column that it takes in the encoded matrix."""

    @property
    def width(self) -> int:
        """How many columns it takes in the encoded matrix."""
        return len(self.labels)

    @property
    @abstractmethod
    def baseline(self) -> Matrix:
        """The mean of the encoded training rows, (width,)."""

    @property
    @abstractmethod
    def takes(self) -> str:
        """What values it takes, in words."""

    @property
    @abstractmethod
    def trained_on(self) -> str:
        """Which values there were in training, in a sentence."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """How the training rows were spread, in a line for the terminal."""

    @property
    @abstractmethod
    def figures(self) -> tuple[str, ...]:
        """How the training rows were spread: least, greatest, mean and std, or one text about all levels."""

    @property
    def json_schema(self) -> dict[str, Any]:
        """What values it takes, as JSON Schema with a description and an example."""
        given = self.value_schema
        allowed: dict[str, Any] = {"anyOf": [given, {"type": "null"}]} if self.accepts(None) else given
        described = f"{self.description}. {self.trained_on}" if self.description else self.trained_on
        return allowed | {"description": described, "examples": [self.plain_example]}

    @property
    @abstractmethod
    def value_schema(self) -> dict[str, Any]:
        """What values it takes, but for a missing one, as JSON Schema."""

    @property
    def is_text(self) -> bool:
        """Whether JSON writes its values in quotes."""
        return bool(self.value_schema["type"] == "string")

    def most(self, _mark: str) -> float:
        """How often a mark may be in a value's text; infinity if nothing bounds it."""
        return 0

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts of its values, if they can be listed."""
        return ()

    @property
    @abstractmethod
    def value_type(self) -> Any:
        """The type by which a decoder takes what it takes."""

    @property
    def type_decides(self) -> bool:
        """Whether `value_type` takes nothing that is not accepted."""
        return True

    @property
    @abstractmethod
    def plain_example(self) -> float | str | bool:
        """The example as JSON writes it."""

    def hint(self, _refused: object) -> str:
        """What a value that is not accepted may have meant, to be added to what it takes; often nothing."""
        return ""

    @abstractmethod
    def accepts(self, value: object) -> bool:
        """Whether a value that came parsed is one that it takes."""

    @abstractmethod
    def column(self, values: Values) -> Column:
        """n values that are all accepted as a column, (n,)."""

    @abstractmethod
    def read(self, values: Values) -> Reading:
        """Read n values that came parsed: a list, or an array of numpy's, torch's or Arrow's."""

    @abstractmethod
    def read_cells(self, cells: Sequence[str], decimal: DecimalMark = ".") -> Reading:
        """Read n cells of a table with that decimal mark, as training reads them."""

    @abstractmethod
    def encode(self, column: Column) -> Matrix:
        """The network's inputs for a column of n accepted values, (width, n)."""

    @abstractmethod
    def row_encoder(self) -> RowEncoder:
        """What gives the network's inputs for one accepted value: the bits of `encode`.

        That is a float if `width` is 1, and `width` floats if it is not.
        """

    def sparse_row_encoder(self, first: int) -> Callable[[Any], SparseInputs]:
        """What gives the inputs that may not be 0 for one accepted value: the bits of `encode`.

        There is at least one. The first of the columns that it takes is at the position `first`.
        """
        encode_value: Callable[[Any], Any] = self.row_encoder()
        if self.width == 1:
            return lambda value: {first: encode_value(value)}
        return lambda value: dict(enumerate(encode_value(value), first))

    @abstractmethod
    def outside(self, column: Column) -> Positions:
        """The positions in a column (n,) of accepted values that lie outside the training range."""

    @abstractmethod
    def row_ranger(self) -> Callable[[Any], bool] | None:
        """What tells whether one accepted value lies outside the training range; None if none can."""

    def far(self, _column: Column, _outside: Sequence[int]) -> Positions:
        """Those of the positions of `outside` whose values lie far outside the training range."""
        return NOWHERE

    def far_ranger(self) -> Callable[[Any], bool] | None:
        """What tells whether one accepted value lies far outside the training range; None if none can."""
        return None


class Measured(Range, Kind):
    """What is measured reaches the network as z = (x - mean) / std, in its first column.

    With `clip` that is z / sqrt(1 + z²/9) in its place, and `clipped_mean` the mean of it over the training
    rows. `knots` are in the unit of x; each has a hat, in a column after that, and `shares` are the means of
    the hats over the training rows.
    """

    clip: bool = False
    clipped_mean: Annotated[float, Field(ge=-3, le=3)] | None = None
    knots: tuple[float, ...] = ()
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()

    @model_validator(mode="after")
    def _encodable(self) -> Self:
        if self.clip != (self.clipped_mean is not None):
            message = f"{self.name} is clipped without a mean of that, or has one and is not clipped"
            raise ValueError(message)
        check_knots(self.name, self.knots, self.shares)
        return self

    @property
    def is_z_score(self) -> bool:
        """Whether x reaches the network as its z-score and no more."""
        return not (self.clip or self.knots)

    @property
    def _measured_labels(self) -> tuple[str, ...]:
        """Its name, and its name with each knot."""
        near = tuple(map(self._shown, self.knots))
        told_apart = near if len(set(near)) == len(near) else self.knots
        return (self.name, *(f"{self.name} near {knot}" for knot in told_apart))

    @abstractmethod
    def _shown(self, x: float) -> str:
        """A value, for people."""

    @property
    def _measured_baseline(self) -> tuple[float, ...]:
        """The mean of z-scores, which is 0 unless they are clipped, and those of the hats."""
        return (self.clipped_mean or 0.0, *self.shares)

    @property
    def _encoding_words(self) -> str:
        """What is made of it beside a z-score."""
        at_knots = f", hats at {len(self.knots)} knots" if self.knots else ""
        return f"{', clipped' if self.clip else ''}{at_knots}"

    @property
    @abstractmethod
    def extent(self) -> str:
        """The least and the greatest value of training, in words."""

    @property
    def trained_on(self) -> str:
        """The least and the greatest."""
        return f"In training {self.extent}."

    @abstractmethod
    def column(self, values: Values) -> Matrix:
        """Values that are all accepted as float64, (n,)."""

    def outside(self, column: Column) -> Positions:
        """The positions in a column (n,) of what is below the least or above the greatest of training."""
        return np.flatnonzero(self._beyond()(self.column(column)))

    def far(self, column: Column, outside: Sequence[int]) -> Positions:
        """Those of the positions of `outside` that are beyond training by more than `FAR` of its range."""
        chosen: Positions = np.asarray(outside, dtype=np.intp)
        is_far: NDArray[np.bool_] = self._far_beyond()(self.column(column)[chosen])
        return chosen[is_far]

    @abstractmethod
    def far_ranger(self) -> Callable[[Any], bool]:
        """Whether one value, if it is there, is beyond training by more than `FAR` of its range."""

    def _z_score(self) -> Callable[[Any], Any]:
        mean, std = self.mean, self.std
        return lambda x: (x - mean) / std

    def _encode_measured(self, x: Matrix) -> Matrix:
        """The z-scores of x (n,), clipped if they are to be, and its hats: (1 + knots, n)."""
        z: Matrix = self._z_score()(x)
        z = all_clipped(z) if self.clip else z
        return np.vstack([z, hats(self.knots, x)]) if self.knots else z[np.newaxis]

    def _row_number(self) -> Callable[[Any], float]:
        """What gives the z-score of one value, clipped if it is to be."""
        return clipped_z_score(self.mean, self.std) if self.clip else self._z_score()

    def _sparse_measured(self, first: int) -> Callable[[Any], SparseInputs]:
        """What gives the z-score and the two hats of one value that are not 0, the z-score at a position."""
        number = self._row_number()
        if not self.knots:
            return lambda x: {first: number(x)}
        near = row_hats(self.knots, first + 1)

        def encoded(x: Any) -> SparseInputs:
            left, right, share = near(x)
            return {first: number(x), left: 1.0 - share, right: share}

        return encoded

    def _beyond(self) -> Callable[[Any], Any]:
        return beyond(self.minimum, self.maximum)

    def _far_beyond(self) -> Callable[[Any], Any]:
        reach = FAR * (self.maximum - self.minimum)
        return beyond(self.minimum - reach, self.maximum + reach)


class NumericFeature(Measured):
    """A numeric input; it reaches the network as (x - mean) / std, or as `Measured` says.

    `fill` stands for a missing value; without it a value is required. With `missing_share`, the share of the
    training rows that had no value, there is a last column: 1.0 where it is missing. `missing_words` are
    cells of tables that count as missing beside those that always do.
    """

    kind: Literal["numeric"] = "numeric"
    unit: str | None = None
    fill: float | None = None
    missing_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    missing_words: tuple[str, ...] = ()
    example: float

    @model_validator(mode="after")
    def _fills_what_is_missing(self) -> Self:
        if self.missing_share is not None and self.fill is None:
            message = f"{self.name} has a share of missing values, but nothing to fill them with"
            raise ValueError(message)
        return self

    @property
    def heading(self) -> str:
        """Its name, with its unit in brackets if it has one."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Its name, its name with each knot, and whether it is missing."""
        missing = (f"{self.name} is missing",) if self.missing_share else ()
        return (*self._measured_labels, *missing)

    def _shown(self, x: float) -> str:
        """Six digits."""
        return short(x)

    @property
    def baseline(self) -> Matrix:
        """The means of the z-score, of the hats, and the share of missing values, (width,)."""
        missing = (self.missing_share,) if self.missing_share else ()
        return np.array([*self._measured_baseline, *missing])

    @property
    def takes(self) -> str:
        """A finite number, and which there were in training."""
        kind = "a finite number" if self.fill is None else "a finite number or null"
        return f"{kind} (in training {self.extent})"

    @property
    def extent(self) -> str:
        """The numbers in their unit."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.minimum:.10g} to {self.maximum:.10g}{unit}"

    @property
    def summary(self) -> str:
        """Range, mean and std, exactly."""
        missing = f", {self.missing_share:.1%} missing" if self.missing_share else ""
        spread = f"{self.minimum:g} to {self.maximum:g}, mean {self.mean!r}, std {self.std!r}"
        return f"{spread}{missing}{self._encoding_words}"

    @property
    def figures(self) -> tuple[str, ...]:
        """Least, greatest, mean and std to six digits."""
        return tuple(map(short, (self.minimum, self.maximum, self.mean, self.std)))

    @property
    def value_schema(self) -> dict[str, Any]:
        """A number."""
        return {"type": "number"}

    @property
    def value_type(self) -> Any:
        """A float, or None if a value may be missing."""
        return float if self.fill is None else float | None

    @property
    def plain_example(self) -> float | int:
        """The example, a whole number written as one."""
        return int(self.example) if self.example.is_integer() else self.example

    def accepts(self, value: object) -> bool:
        """Whether a value is a finite number, or missing if it may be."""
        if value is None:
            return self.fill is not None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return -LARGEST <= value <= LARGEST

    def column(self, values: Values) -> Matrix:
        """The numbers as float64, (n,), missing ones as NaN."""
        return np.asarray(values, dtype=np.float64)

    def read(self, values: Values) -> Reading:
        """Read numbers of any width; text and booleans are refused."""
        if isinstance(values, (list, tuple)):
            accepted = np.fromiter(map(self.accepts, values), bool, len(values))
            numbers = self.column([x if fine else None for x, fine in zip(values, accepted, strict=True)])
            return Reading(numbers, np.flatnonzero(~accepted))
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            return self.read(array.tolist())
        numbers = self.column(array)
        return Reading(numbers, self._not_finite(numbers))

    def read_cells(self, cells: Sequence[str], decimal: DecimalMark = ".") -> Reading:
        """Read numbers as JSON has them, or with units; empty cells and words like "NA" are missing."""
        numbers = read_numbers(cells, decimal, self.missing_words)
        return Reading(numbers.column, union(set(numbers.unreadable), self._not_finite(numbers.column)))

    def _not_finite(self, numbers: Matrix) -> Positions:
        return np.flatnonzero(~np.isfinite(numbers) if self.fill is None else np.isinf(numbers))

    def encode(self, column: Column) -> Matrix:
        """(x - mean) / std, its hats, and 1.0 where it is missing, if that is a column: (width, n).

        `fill` stands in for a missing x.
        """
        x = self.column(column)
        missing = np.isnan(x)
        encoded = self._encode_measured(x if self.fill is None else np.where(missing, self.fill, x))
        return np.vstack([encoded, missing]) if self.missing_share else encoded

    def row_encoder(self) -> RowEncoder:
        """(x - mean) / std, its hats, and 1.0 for None, if that is a column; `fill` stands in for None."""
        if self.knots:
            return with_zeros(self.sparse_row_encoder(0), self.width)
        number, fill = self._row_number(), self.fill
        if self.missing_share:
            return lambda x: (number(fill if x is None else x), float(x is None))
        return number if fill is None else lambda x: number(fill if x is None else x)

    def sparse_row_encoder(self, first: int) -> Callable[[Any], SparseInputs]:
        """(x - mean) / std, its two hats, and 1.0 for None, if that is a column."""
        measured, fill = self._sparse_measured(first), self.fill
        if fill is None:
            return measured
        filled = measured(fill) | ({first + self.width - 1: 1.0} if self.missing_share else {})
        return lambda x: filled if x is None else measured(x)

    def row_ranger(self) -> Callable[[Any], bool]:
        """Whether a number, if it is there, is below the least or above the greatest of training."""
        return self._if_there(self._beyond())

    def far_ranger(self) -> Callable[[Any], bool]:
        """Whether a number, if it is there, is beyond training by more than `FAR` of its range."""
        return self._if_there(self._far_beyond())

    def _if_there(self, tells: Callable[[Any], bool]) -> Callable[[Any], bool]:
        return tells if self.fill is None else lambda x: x is not None and tells(x)


class DateFeature(Measured):
    """A date, or a date with a time, which reaches the network as the z-score of the days since 1970.

    Dates are read as `format`, a strptime format, if training found one in its table, or as ISO 8601. `parts`
    says how many training rows had each month, each weekday or each hour; these have columns of their own.
    """

    kind: Literal["date"] = "date"
    format: DateFormat | None = None
    parts: dict[dates.PartName, tuple[NonNegativeInt, ...]] = Field(default_factory=dict)
    example: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?$")]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        dates.read_days(self.example)
        if self.format is not None and dates.is_ambiguous(self.format):
            message = f"the format of {self.name} reads what is ISO 8601 as another date"
            raise ValueError(message)
        for part, rows in self.parts.items():
            values = len(dates.PARTS[part].names)
            if len(rows) != values or not any(rows):
                message = f"the rows of each {part} of {self.name} are not {values} numbers"
                raise ValueError(message)
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Its name, its name with each knot, and with each month, weekday or hour that was in training."""
        return (
            *self._measured_labels,
            *(
                f"{self.name} {part} = {value}"
                for part, rows in self.parts.items()
                for value, count in zip(dates.PARTS[part].names, rows, strict=True)
                if count
            ),
        )

    @property
    def baseline(self) -> Matrix:
        """The means of the z-score and of the hats, and the shares of each part's values, (width,)."""
        return np.concatenate([self._measured_baseline, *map(shares, self.parts.values())])

    @property
    def takes(self) -> str:
        """A date, in which form, and which there were in training."""
        form = f"ISO 8601 or {self.format}" if self.format else "ISO 8601"
        kind = "a date and time" if self._has_time else "a date"
        return f"{kind} ({form}, in training {self.extent})"

    @property
    def extent(self) -> str:
        """The dates, or moments."""
        return f"{self._shown(self.minimum)} to {self._shown(self.maximum)}"

    @property
    def trained_on(self) -> str:
        """The first and the last, and what an offset does."""
        offsets = " A time with an offset is converted to UTC, one without is taken as it is."
        return f"{super().trained_on}{offsets if self._has_time else ''}"

    @property
    def _has_time(self) -> bool:
        return "T" in self.example

    def _shown(self, x: float) -> str:
        """A moment as precise as the example."""
        return dates.as_text(x)[: len(self.example)]

    @property
    def summary(self) -> str:
        """Range, mean, and the parts that are looked at."""
        parts = f", by {', '.join(self.parts)}" if self.parts else ""
        return f"{self.extent}, mean {self._shown(self.mean)}{parts}{self._encoding_words}"

    @property
    def figures(self) -> tuple[str, ...]:
        """First, last, mean, and std in days."""
        return (*map(self._shown, (self.minimum, self.maximum, self.mean)), f"{short(self.std)} days")

    @property
    def value_schema(self) -> dict[str, Any]:
        """A string with a date, or with a time too if the example has one."""
        return {"type": "string", "format": "date-time" if self._has_time else "date"}

    @property
    def value_type(self) -> Any:
        """Any text."""
        return str

    @property
    def type_decides(self) -> bool:
        """No: not every text is a date."""
        return False

    @property
    def plain_example(self) -> str:
        """The example."""
        return self.example

    def most(self, _mark: str) -> float:
        """As often as there are characters in a date."""
        return dates.LONGEST

    def accepts(self, value: object) -> bool:
        """Whether a value is a date, or the text of one."""
        return isfinite(self._days(value))

    def _days(self, value: object) -> float:
        """The days since 1970, NaN for what is no date."""
        try:
            return dates.read_days(value, self.format) if isinstance(value, (str, date)) else nan
        except ValueError:
            return nan

    def column(self, values: Values) -> Matrix:
        """The days since 1970, (n,); an array of numbers has them already."""
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            return values.astype(np.float64, copy=False)
        return self._read(values)

    def read(self, values: Values) -> Reading:
        """Read texts, Python's dates and times, or an array of moments."""
        days = self._read(values)
        return Reading(days, np.flatnonzero(np.isnan(days)))

    def read_cells(self, cells: Sequence[str], _decimal: DecimalMark = ".") -> Reading:
        """Read texts, in a table as in JSON."""
        return self.read(list(cells))

    def _read(self, values: Values) -> Matrix:
        """The days since 1970, (n,), NaN for what is no date."""
        if not isinstance(values, (list, tuple)):
            array = np.asarray(values)
            if array.dtype.kind == "M":
                return dates.days_of_array(array)
            values = array.tolist()
        return np.array([self._days(value) for value in values], dtype=np.float64)

    def encode(self, column: Column) -> Matrix:
        """(days - mean) / std, its hats, and 1.0 for the month, the weekday or the hour, (width, n)."""
        days = self.column(column)
        parts = (one_hot_columns(rows, of(days).astype(np.intp)) for of, rows in self._levels())
        return np.vstack([self._encode_measured(days), *parts])

    def row_encoder(self) -> RowEncoder:
        """(days - mean) / std, its hats, and 1.0 for the month, the weekday or the hour."""
        if self.width > 1:
            return with_zeros(self.sparse_row_encoder(0), self.width)
        number, read = self._row_number(), self._days
        return lambda value: number(read(value))

    def sparse_row_encoder(self, first: int) -> Callable[[Any], SparseInputs]:
        """(days - mean) / std, its two hats, and 1.0 for the month, the weekday or the hour."""
        read, measured, start = self._days, self._sparse_measured(first), first + 1 + len(self.knots)
        parts = []
        for of, rows in self._levels():
            parts.append((of, sparse_levels(rows, start)))
            start += sum(count > 0 for count in rows)

        def encoded(value: Any) -> SparseInputs:
            days = read(value)
            inputs = measured(days)
            for of, levels in parts:
                inputs |= levels[int(of(days))]
            return inputs

        return encoded

    def outside(self, column: Column) -> Positions:
        """The positions in a column (n,) of dates beyond training's, or of a part never seen there."""
        days = self.column(column)
        outside = self._beyond()(days)
        for of, rows in self._levels():
            outside |= np.equal(rows, 0)[of(days).astype(np.intp)]
        return np.flatnonzero(outside)

    def row_ranger(self) -> Callable[[Any], bool]:
        """Whether a date is before the first or after the last, or of a month, weekday or hour never seen."""
        is_beyond, read, parts = self._beyond(), self._days, list(self._levels())

        def is_outside(value: Any) -> bool:
            days = read(value)
            return is_beyond(days) or not all(rows[int(of(days))] for of, rows in parts)

        return is_outside

    def far_ranger(self) -> Callable[[Any], bool]:
        """Whether a date is beyond training by more than `FAR` of its range."""
        is_far, read = self._far_beyond(), self._days
        return lambda value: is_far(read(value))

    def _levels(self) -> Iterator[tuple[Callable[[Any], Any], tuple[int, ...]]]:
        """What numbers the values of each part, and the training rows of each of them."""
        return ((dates.PARTS[part].of, rows) for part, rows in self.parts.items())


class Category(Part):
    """One value of a categorical input and the training rows that had it."""

    value: str
    rows: PositiveInt


class CategoricalFeature(Kind):
    """A categorical input; it reaches the network one-hot, a column for each category in this order.

    `missing` is the number of training rows without a value, which are a level of their own; without it a
    value is required. `other` is the number of those whose categories were too rare to be known, which are
    one level together; without it any category must be a known one. A level that no training row had has no
    column: it is answered as the average row.
    """

    kind: Literal["categorical"] = "categorical"
    categories: tuple[Category, ...]
    missing: NonNegativeInt | None = None
    other: NonNegativeInt | None = None
    example: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse_repeats(self.values, "category")
        if self.example not in self.values:
            message = f"the example of {self.name} is none of its categories"
            raise ValueError(message)
        if sum(rows > 0 for _, rows in self._levels) < 2:
            message = f"{self.name} has fewer than two categories"
            raise ValueError(message)
        if "" in self.values and (self.missing, self.other) != (None, None):
            message = f"an empty text is a missing value of {self.name}, no category"
            raise ValueError(message)
        return self

    @property
    def values(self) -> tuple[str, ...]:
        """The known values, in the order of their columns."""
        return tuple(category.value for category in self.categories)

    @property
    def _levels(self) -> list[tuple[str, int]]:
        """The names of all levels and their training rows, in the order of their columns."""
        return [
            *((category.value, category.rows) for category in self.categories),
            *(((MISSING_LEVEL, self.missing),) if self.missing is not None else ()),
            *(((OTHER_LEVEL, self.other),) if self.other is not None else ()),
        ]

    @property
    def _rows(self) -> list[int]:
        return [rows for _, rows in self._levels]

    @property
    def labels(self) -> tuple[str, ...]:
        """Its name with each level that was in training."""
        return tuple(f"{self.name} = {level}" for level, rows in self._levels if rows)

    @property
    def baseline(self) -> Matrix:
        """Each level's share of the training rows, (width,)."""
        return shares(self._rows)

    @property
    def takes(self) -> str:
        """One of the categories, the first few by name."""
        kind = f"one of {listed(self.values)}" if self.other is None else "a text"
        null = "" if self.missing is None else " or null"
        known = "" if self.other is None else f" (in training one of {listed(self.values)})"
        return f"{kind}{null}{known}"

    @property
    def trained_on(self) -> str:
        """How many categories there were."""
        if self.other is None:
            return f"One of {len(self._levels)} categories."
        known = f"In training one of {len(self.values)} categories: {listed(self.values)}."
        return f"{known} Any other is answered too, and named in out_of_range."

    @property
    def summary(self) -> str:
        """The names of all levels."""
        return ", ".join(level for level, _ in self._levels)

    @property
    def figures(self) -> tuple[str]:
        """The levels with their shares of the training rows."""
        return (with_shares(self._levels),)

    @property
    def value_schema(self) -> dict[str, Any]:
        """A string: one of the categories, or any that is not empty."""
        known = {"enum": list(self.values)} if self.other is None else {"minLength": 1}
        return {"type": "string", **known}

    def most(self, mark: str) -> float:
        """As often as it is in one of the categories; if any text may come, nothing bounds it."""
        return max(value.count(mark) for value in self.values) if self.other is None else inf

    @property
    def choices(self) -> tuple[str, ...]:
        """The known values."""
        return self.values

    @property
    def value_type(self) -> Any:
        """The literal type of the categories, or a text that is not empty; None if it may be missing."""
        known = Literal[self.values] if self.other is None else Annotated[str, msgspec.Meta(min_length=1)]
        return known if self.missing is None else known | None

    @property
    def plain_example(self) -> str:
        """The example."""
        return self.example

    def accepts(self, value: object) -> bool:
        """Whether a value is one of the categories, or one that may come beside them."""
        return self._acceptance()(value)

    def _acceptance(self) -> Callable[[object], bool]:
        known, is_open = frozenset(self._known), self.other is not None
        return lambda value: (
            (isinstance(value, str | None) and value in known)
            or (is_open and isinstance(value, str) and is_some_text(value))
        )

    @property
    def _known(self) -> list[str | None]:
        """The values that have a level of their own, in its order."""
        return [*self.values, *(() if self.missing is None else (None,))]

    def _of_level(self, levels: Sequence[T]) -> Callable[[Any], T]:
        """What gives one of n things, one a level, for an accepted value; raises KeyError for others."""
        known: dict[Any, T] = dict(zip(self._known, levels, strict=False))
        if self.other is None:
            return known.__getitem__
        other = levels[-1]
        return lambda value: known.get(value, other)

    def hint(self, refused: object) -> str:
        """The category that a misspelt one is nearest to, if one is near."""
        nearest = meant(refused, self.values) if isinstance(refused, str) else None
        return "" if nearest is None else f": did you mean {nearest!r}?"

    def column(self, values: Values) -> Column:
        """The texts as they are, (n,), missing ones as None."""
        texts: Column = values
        return texts

    def read(self, values: Values) -> Reading:
        """Read texts; whatever is no text, or a category that is not taken, is refused."""
        texts = list(values) if isinstance(values, (list, tuple)) else np.asarray(values).tolist()
        accepts = self._acceptance()
        return Reading(texts, positions(not accepts(text) for text in texts))

    def read_cells(self, cells: Sequence[str], _decimal: DecimalMark = ".") -> Reading:
        """Read texts; an empty cell is missing, if that may be."""
        texts = cells if self.missing is None else [cell or None for cell in cells]
        known = frozenset(self._known)
        return Reading(texts, NOWHERE) if known.issuperset(texts) else self.read(list(texts))

    def encode(self, column: Column) -> Matrix:
        """1.0 in the column of the row's level, (width, n); raises KeyError for one that is not accepted."""
        level = self._of_level(range(len(self._rows)))
        return one_hot_columns(self._rows, np.array([level(value) for value in column], dtype=np.intp))

    def row_encoder(self) -> RowEncoder:
        """1.0 in the column of the value's level and 0.0 in the others."""
        return self._of_level(one_hot(self._rows).tolist())

    def sparse_row_encoder(self, first: int) -> Callable[[Any], SparseInputs]:
        """1.0 in the column of the value's level, or all shares."""
        return self._of_level(sparse_levels(self._rows, first))

    def outside(self, column: Column) -> Positions:
        """The positions in a column (n,) of levels not in training, and of unknown or merged categories."""
        is_outside = self.row_ranger()
        return NOWHERE if is_outside is None else positions(map(is_outside, column))

    def row_ranger(self) -> Callable[[Any], bool] | None:
        """Whether the level was not in training, or the category is not known; None if all were."""
        if self.missing != 0 and self.other is None:
            return None
        return self._of_level([*(rows == 0 for rows in self._rows[: len(self._known)]), True])


class BooleanFeature(Kind):
    """True or false; it reaches the network as 1.0 or 0.0.

    `missing` is the number of training rows without a value; without it a value is required. A missing value
    reaches the network as the share of trues, and with 1.0 in a second column if any was in training.
    """

    kind: Literal["boolean"] = "boolean"
    trues: PositiveInt
    falses: PositiveInt
    missing: NonNegativeInt | None = None
    example: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """Its name, and whether it is missing."""
        return (self.name, f"{self.name} is missing") if self.missing else (self.name,)

    @property
    def baseline(self) -> Matrix:
        """The share of trues, and that of missing values, (width,)."""
        total = self.trues + self.falses
        return np.array([self._share, *([self.missing / (total + self.missing)] if self.missing else [])])

    @property
    def _share(self) -> float:
        """The share of trues among the training rows that had a value."""
        return self.trues / (self.trues + self.falses)

    @property
    def takes(self) -> str:
        """True or false, or null if a value may be missing."""
        return "true or false" if self.missing is None else "true, false or null"

    @property
    def trained_on(self) -> str:
        """The shares of each."""
        return f"In training {with_shares(self._levels)}."

    @property
    def summary(self) -> str:
        """The shares of each."""
        return with_shares(self._levels)

    @property
    def figures(self) -> tuple[str]:
        """The shares of each."""
        return (with_shares(self._levels),)

    @property
    def _levels(self) -> list[tuple[str, int]]:
        missing = () if self.missing is None else ((MISSING_LEVEL, self.missing),)
        return [("true", self.trues), ("false", self.falses), *missing]

    @property
    def value_schema(self) -> dict[str, Any]:
        """A boolean."""
        return {"type": "boolean"}

    @property
    def choices(self) -> tuple[str, ...]:
        """Both."""
        return ("true", "false")

    @property
    def value_type(self) -> Any:
        """A boolean, or None if a value may be missing."""
        return bool if self.missing is None else bool | None

    @property
    def plain_example(self) -> bool:
        """The example."""
        return self.example

    def accepts(self, value: object) -> bool:
        """Whether a value is a boolean, or missing if it may be."""
        return isinstance(value, bool) or (value is None and self.missing is not None)

    def column(self, values: Values) -> Matrix:
        """1.0 for true, 0.0 for false and NaN for a missing value, (n,)."""
        return np.asarray(values, dtype=np.float64)

    def read(self, values: Values) -> Reading:
        """Read booleans; numbers and texts are refused."""
        if not isinstance(values, (list, tuple)):
            array = np.asarray(values)
            if array.dtype.kind == "b":
                return Reading(self.column(array), NOWHERE)
            values = array.tolist()
        refused = positions(not self.accepts(value) for value in values)
        return Reading(self.column([x if isinstance(x, bool) else None for x in values]), refused)

    def read_cells(self, cells: Sequence[str], _decimal: DecimalMark = ".") -> Reading:
        """Read true and false in any case; empty cells and words like "NA" are missing."""
        words = [cell.strip().lower() for cell in cells]
        truths = self.column([TRUTHS.get(word) for word in words])
        taken = TRUTHS.keys() if self.missing is None else TRUTHS.keys() | MISSING
        return Reading(truths, positions(word not in taken for word in words))

    def encode(self, column: Column) -> Matrix:
        """1.0, 0.0 or, for a missing value, the share of trues; 1.0 where it is missing, if it ever was.

        Of a column (n,), a matrix (width, n).
        """
        truths = self.column(column)
        missing = np.isnan(truths)
        filled = np.where(missing, self._share, truths)
        return np.stack([filled, missing]) if self.missing else filled[np.newaxis]

    def row_encoder(self) -> RowEncoder:
        """1.0, 0.0 or, for None, the share of trues; 1.0 for None, if that is a column."""
        share = self._share
        if self.missing:
            return lambda x: (share if x is None else float(x), float(x is None))
        return lambda x: share if x is None else float(x)

    def outside(self, column: Column) -> Positions:
        """The positions in a column (n,) of missing values, if none was in training."""
        return np.flatnonzero(np.isnan(self.column(column))) if self.missing == 0 else NOWHERE

    def row_ranger(self) -> Callable[[Any], bool] | None:
        """Whether a value is missing, if none was in training."""
        return (lambda x: x is None) if self.missing == 0 else None


Feature = Annotated[
    NumericFeature | CategoricalFeature | DateFeature | BooleanFeature, Field(discriminator="kind")
]


def read_columns(features: Iterable[Feature], given: Mapping[str, Values]) -> dict[str, Column]:
    """Columns (n,) of values that came parsed, one for every feature; others are not looked at.

    Raises KeyError for a missing column and ValueError for the first value that its feature does not take.
    """
    columns: dict[str, Column] = {}
    for feature in features:
        reading = feature.read(given[feature.name])
        if reading.refused.size:
            message = f"{feature.name}: row {reading.refused[0]} is not {feature.takes}"
            raise ValueError(message)
        columns[feature.name] = reading.column
    return columns


def encode(features: Iterable[Feature], columns: Columns) -> Matrix:
    """Encode columns (n,) of accepted values, one for every feature, as the network's input.

    The result has shape (n, total width), float64, column-major, in the features' order. What is too far
    outside the training range is encoded as an infinity. Raises KeyError for a missing column.
    """
    with np.errstate(over="ignore"):
        return np.concatenate([feature.encode(columns[feature.name]) for feature in features]).T


def row_encoder(features: Sequence[Feature]) -> Callable[[Row], list[float] | Matrix | SparseInputs]:
    """What encodes a row of accepted values, in the features' order: (total width,), the bits of `encode`."""
    if sum(feature.width for feature in features) > SPARSE * len(features):
        return sparse_row_encoder(features)
    if sum(map(is_plain_number, features)) >= MANY_NUMBERS:
        return wide_row_encoder(features)
    encoders = numbered_encoders(features)

    def encoded(row: Row) -> list[float]:
        numbers: list[float] = []
        for index, is_one, encode_value in encoders:
            if is_one:
                numbers.append(encode_value(row[index]))
            else:
                numbers += encode_value(row[index])
        return numbers

    return encoded


def sparse_row_encoder(features: Sequence[Feature]) -> Callable[[Row], SparseInputs]:
    """What encodes a row of which most inputs are 0."""
    starts = accumulate((feature.width for feature in features), initial=0)
    encoders = [
        (index, feature.sparse_row_encoder(start))
        for index, (feature, start) in enumerate(zip(features, starts, strict=False))
    ]

    def encoded(row: Row) -> SparseInputs:
        inputs: SparseInputs = {}
        for index, encode_value in encoders:
            inputs |= encode_value(row[index])
        return inputs

    return encoded


def wide_row_encoder(features: Sequence[Feature]) -> Callable[[Row], Matrix]:
    """What encodes a row that has many numbers: their z-scores all at once, the other inputs before that."""
    means = np.concatenate([[f.mean] if is_plain_number(f) else np.zeros(f.width) for f in features])
    stds = np.concatenate([[f.std] if is_plain_number(f) else np.ones(f.width) for f in features])
    # From the last to the first, so that what is put in moves none that is still to come.
    others = [
        each for each in reversed(numbered_encoders(features)) if not is_plain_number(features[each[0]])
    ]

    def encoded(row: Row) -> Matrix:
        numbers: list[Any] = list(row)
        for index, is_one, encode_value in others:
            inputs = encode_value(row[index])
            numbers[index : index + 1] = (inputs,) if is_one else inputs
        with np.errstate(over="ignore"):
            z_scores: Matrix = (np.array(numbers, dtype=np.float64) - means) / stds
            return z_scores

    return encoded


def numbered_encoders(features: Iterable[Feature]) -> list[tuple[int, bool, Any]]:
    """Each feature's number, whether it takes one column only, and its row encoder."""
    return [(index, feature.width == 1, feature.row_encoder()) for index, feature in enumerate(features)]


def is_plain_number(feature: Feature) -> TypeGuard[NumericFeature]:
    """Whether a feature is a number that cannot miss: a z-score and nothing else."""
    return isinstance(feature, NumericFeature) and feature.fill is None and feature.is_z_score


def out_of_range(features: Iterable[Feature], columns: Columns) -> dict[str, list[int]]:
    """The rows, from 0, at which a column (n,) is outside its feature's training range, by feature.

    A feature with none has no entry. Raises KeyError for a missing column.
    """
    outside = {feature.name: feature.outside(columns[feature.name]).tolist() for feature in features}
    return {name: rows for name, rows in outside.items() if rows}


def far_rows(
    features: Iterable[Feature], columns: Columns, outside: Mapping[str, Sequence[int]]
) -> Positions:
    """Those of the rows that `out_of_range` found at which a column (n,) is far outside training's range.

    They are in no order, and a row may come more than once.
    """
    concerned = (feature for feature in features if feature.name in outside)
    far = (feature.far(columns[feature.name], outside[feature.name]) for feature in concerned)
    return np.concatenate([NOWHERE, *far])


def example_row(features: Iterable[Feature]) -> dict[str, float | str | bool]:
    """A row that is answered."""
    return {feature.name: feature.plain_example for feature in features}


def one_hot(rows: Sequence[int]) -> Matrix:
    """The encoded row of each of n levels by its training rows, (n, levels that had rows).

    A level that had some has 1.0 in its column; any other has the mean of the encoded training rows.
    """
    table = np.where(np.equal(rows, 0)[:, np.newaxis], np.array(rows) / sum(rows), np.eye(len(rows)))
    return table[:, np.not_equal(rows, 0)]


def sparse_levels(rows: Sequence[int], first: int) -> list[SparseInputs]:
    """The rows of `one_hot` without their zeros, where the first column is at the position `first`."""
    places, average = count(first), dict(enumerate(shares(rows).tolist(), first))
    return [{next(places): 1.0} if had else average for had in rows]


def with_zeros(encode_value: Callable[[Any], SparseInputs], width: int) -> Callable[[Any], list[float]]:
    """What gives all inputs of a value, (width,), from what gives those that may not be 0."""
    nothing = [0.0] * width

    def encoded(value: Any) -> list[float]:
        inputs = nothing.copy()
        for place, number in encode_value(value).items():
            inputs[place] = number
        return inputs

    return encoded


def one_hot_columns(rows: Sequence[int], levels: NDArray[np.intp]) -> Matrix:
    """The encoded columns, (levels that had rows, n), for the numbers of n rows' levels, (n,)."""
    return np.take(one_hot(rows).T, levels, axis=1)


def shares(rows: Sequence[int]) -> Matrix:
    """The mean of the encoded training rows of some levels, (levels that had rows,)."""
    return np.array([count for count in rows if count]) / sum(rows)


def with_shares(levels: Sequence[tuple[str, int]]) -> str:
    """Levels with their shares of the training rows."""
    total = sum(rows for _, rows in levels)
    return ", ".join(f"{level} {rows / total:.1%}" for level, rows in levels)


def short(number: float) -> str:
    """Six significant digits, without an exponent up to a trillion."""
    return f"{float(f'{number:.6g}'):,.12g}"


def beyond(least: float, greatest: float) -> Callable[[Any], Any]:
    """What tells whether a float, or each of an array, is below the least or above the greatest."""
    return lambda x: (x < least) | (x > greatest)


def is_some_text(text: str) -> bool:
    """Whether a text has characters, and all of them are Unicode's."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def positions(chosen: Iterable[bool]) -> Positions:
    """The positions of what is true, ascending."""
    return np.flatnonzero(np.fromiter(chosen, bool))


def listed(names: Sequence[str]) -> str:
    """The first few names, shortened, and how many more there are."""
    shown = ", ".join(repr(name[:LONGEST_NAMED]) for name in names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def union(some: set[int], others: Positions) -> Positions:
    """The positions of both, ascending."""
    return np.union1d(np.fromiter(some, np.intp, len(some)), others) if some else others
