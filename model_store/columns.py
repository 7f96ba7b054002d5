"""What an input takes: one class for each kind of feature, which says it everywhere it has to be said.

A kind reads values that came parsed (JSON's, a tensor, an Arrow column) and cells of text into a column and
says which positions it refuses; says in words and as JSON Schema what it takes; and encodes a column, and a
row, for the network with the same bits. A new kind is a class here, a member of `Feature`, and its tests.

Every operation is elementwise, which makes a row's 64 bits independent of the rows around it; each rule is
written once, for a float and for an array.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from model_store.cells import DecimalMark, read_numbers
from model_store.parts import ColumnName, Part, Range, refuse_repeats

Matrix: TypeAlias = NDArray[np.float64]
Value: TypeAlias = float | str | None
# n values that a feature accepts: numbers best as an array, with NaN for a missing one.
Column: TypeAlias = Matrix | Sequence[Value]
Columns: TypeAlias = Mapping[str, Column]
Row: TypeAlias = Sequence[Value]
Positions: TypeAlias = NDArray[np.intp]
# Values of any of the forms that `Kind.read` takes: a list, or an array of numpy's, torch's or Arrow's.
Values: TypeAlias = Any
RowEncoder: TypeAlias = Callable[[Any], Sequence[float]]

LARGEST = sys.float_info.max
MOST_NAMED, LONGEST_NAMED = 5, 40


@dataclass(frozen=True)
class Reading:
    """Values read as a column of n; `refused` are the positions, ascending, whose values do not count."""

    column: Column
    refused: Positions


class Kind(Part):
    """What every kind of input tells and does."""

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
    def json_schema(self) -> dict[str, Any]:
        """What values it takes, as JSON Schema with a description and an example."""

    @property
    def is_text(self) -> bool:
        """Whether JSON writes its values in quotes."""
        return self.json_schema.get("type") == "string"

    @property
    @abstractmethod
    def value_type(self) -> Any:
        """The type that lets a decoder take exactly what it takes."""

    @property
    @abstractmethod
    def plain_example(self) -> float | str:
        """The example as JSON writes it."""

    @abstractmethod
    def accepts(self, value: object) -> bool:
        """Whether a value that came parsed is one that it takes."""

    @abstractmethod
    def column(self, values: Values) -> Column:
        """Values that are all accepted as a column."""

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
        """What gives the network's inputs, `width` floats, for one accepted value: the bits of `encode`."""

    @abstractmethod
    def outside(self, column: Column) -> Positions:
        """The positions in a column of accepted values that lie outside the training range."""

    @abstractmethod
    def row_ranger(self) -> Callable[[Any], bool] | None:
        """What tells whether one accepted value lies outside the training range; None if none can."""


class NumericFeature(Range, Kind):
    """A numeric input; it reaches the network as (x - mean) / std, one column.

    `fill` stands for a missing value; without it a value is required. `missing_words` are cells of tables
    that count as missing beside those that always do.
    """

    kind: Literal["numeric"] = "numeric"
    name: ColumnName
    unit: str | None = None
    description: str | None = None
    fill: float | None = None
    missing_words: tuple[str, ...] = ()
    example: float

    @property
    def labels(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    @property
    def baseline(self) -> Matrix:
        """0, the mean of z-scores."""
        return np.zeros(1)

    @property
    def takes(self) -> str:
        """A finite number, and which there were in training."""
        kind = "a finite number" if self.fill is None else "a finite number or null"
        return f"{kind} (in training {self._trained_on})"

    @property
    def _trained_on(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.minimum:.10g} to {self.maximum:.10g}{unit}"

    @property
    def json_schema(self) -> dict[str, Any]:
        """A number, or null if a value may be missing."""
        number = {"type": "number"}
        allowed: dict[str, Any] = number if self.fill is None else {"anyOf": [number, {"type": "null"}]}
        described = f"{sentence(self.description)}In training {self._trained_on}."
        return allowed | {"description": described, "examples": [self.plain_example]}

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
        """(x - mean) / std, (1, n), `fill` in place of a missing x."""
        x = self.column(column)
        if self.fill is not None:
            x = np.where(np.isnan(x), self.fill, x)
        z: Matrix = self._z_score()(x)
        return z[np.newaxis]

    def _z_score(self) -> Callable[[Any], Any]:
        mean, std = self.mean, self.std
        return lambda x: (x - mean) / std

    def row_encoder(self) -> RowEncoder:
        """(x - mean) / std, `fill` in place of None."""
        z_score, fill = self._z_score(), self.fill
        return lambda x: (z_score(fill if x is None else x),)

    def outside(self, column: Column) -> Positions:
        """Where a number is below the least or above the greatest of training."""
        return np.flatnonzero(self._beyond()(self.column(column)))

    def _beyond(self) -> Callable[[Any], Any]:
        minimum, maximum = self.minimum, self.maximum
        return lambda x: (x < minimum) | (x > maximum)

    def row_ranger(self) -> Callable[[Any], bool]:
        """Whether a number, if it is there, is below the least or above the greatest of training."""
        beyond = self._beyond()
        return beyond if self.fill is None else lambda x: x is not None and beyond(x)


class Category(Part):
    """One value of a categorical input and the training rows that had it."""

    value: str
    rows: PositiveInt


class CategoricalFeature(Kind):
    """A categorical input; it reaches the network one-hot, a column for each category in this order."""

    kind: Literal["categorical"] = "categorical"
    name: ColumnName
    description: str | None = None
    categories: Annotated[tuple[Category, ...], Field(min_length=2)]
    example: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse_repeats(self.values, "category")
        if self.example not in self.values:
            message = f"the example of {self.name} is none of its categories"
            raise ValueError(message)
        return self

    @property
    def values(self) -> tuple[str, ...]:
        """The known values, in the order of their columns."""
        return tuple(category.value for category in self.categories)

    @property
    def labels(self) -> tuple[str, ...]:
        """Its name with each category."""
        return tuple(f"{self.name} = {value}" for value in self.values)

    @property
    def width(self) -> int:
        """A column for each category."""
        return len(self.categories)

    @property
    def baseline(self) -> Matrix:
        """Each category's share of the training rows."""
        rows = [category.rows for category in self.categories]
        return np.array(rows) / sum(rows)

    @property
    def takes(self) -> str:
        """One of the categories, the first few by name."""
        return f"one of {listed(self.values)}"

    @property
    def json_schema(self) -> dict[str, Any]:
        """A string, one of the categories."""
        return {
            "type": "string",
            "enum": list(self.values),
            "description": f"{sentence(self.description)}One of {len(self.values)} categories.",
            "examples": [self.plain_example],
        }

    @property
    def value_type(self) -> Any:
        """The literal type of the categories."""
        return Literal[self.values]

    @property
    def plain_example(self) -> str:
        """The example."""
        return self.example

    def accepts(self, value: object) -> bool:
        """Whether a value is one of the categories."""
        return isinstance(value, str) and value in self.values

    def column(self, values: Values) -> Column:
        """The texts as they are."""
        texts: Column = values
        return texts

    def read(self, values: Values) -> Reading:
        """Read texts; whatever is no text or no category is refused."""
        texts = list(values) if isinstance(values, (list, tuple)) else np.asarray(values).tolist()
        no_texts = [k for k, value in enumerate(texts) if not isinstance(value, str)]
        for position in no_texts:
            texts[position] = self.example
        reading = self.read_cells(texts)
        return Reading(reading.column, union(set(no_texts), reading.refused))

    def read_cells(self, cells: Sequence[str], _decimal: DecimalMark = ".") -> Reading:
        """Read texts; those that are no category are refused."""
        known = frozenset(self.values)
        refused = [] if known.issuperset(cells) else [k for k, cell in enumerate(cells) if cell not in known]
        return Reading(cells, np.array(refused, dtype=np.intp))

    def encode(self, column: Column) -> Matrix:
        """1.0 where the row has the category, (categories, n)."""
        position = {value: index for index, value in enumerate(self.values)}
        known = np.array([position[str(value)] for value in column], dtype=np.intp)
        planes = np.zeros((self.width, len(known)))
        planes[known, np.arange(len(known))] = 1.0
        return planes

    def row_encoder(self) -> RowEncoder:
        """1.0 for the value's category and 0.0 for the others."""
        rows = np.eye(self.width).tolist()
        return dict(zip(self.values, rows, strict=True)).__getitem__

    def outside(self, _column: Column) -> Positions:
        """None: every category was in training."""
        return np.empty(0, dtype=np.intp)

    def row_ranger(self) -> None:
        """None: every category was in training."""
        return


Feature = Annotated[NumericFeature | CategoricalFeature, Field(discriminator="kind")]


def read_columns(features: Iterable[Feature], given: Mapping[str, Values]) -> dict[str, Column]:
    """Columns of values that came parsed, one for every feature; others are not looked at.

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
    """Encode columns of n accepted values, one for every feature, as the network's input.

    The result has shape (n, total width), float64, column-major, in the features' order. Raises KeyError
    for a missing column.
    """
    return np.concatenate([feature.encode(columns[feature.name]) for feature in features]).T


def out_of_range(features: Iterable[Feature], columns: Columns) -> dict[str, list[int]]:
    """The rows at which a value lies outside the feature's training range, by feature; none, no entry."""
    outside = {feature.name: feature.outside(columns[feature.name]).tolist() for feature in features}
    return {name: rows for name, rows in outside.items() if rows}


def example_row(features: Iterable[Feature]) -> dict[str, float | str]:
    """A row that is answered."""
    return {feature.name: feature.plain_example for feature in features}


def sentence(description: str | None) -> str:
    """A feature's description as the start of a text."""
    return f"{description}. " if description else ""


def listed(names: Sequence[str]) -> str:
    """The first few names, shortened, and how many more there are."""
    shown = ", ".join(repr(name[:LONGEST_NAMED]) for name in names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def union(some: set[int], others: Positions) -> Positions:
    """The positions of both, ascending."""
    return np.union1d(np.fromiter(some, np.intp, len(some)), others) if some else others
