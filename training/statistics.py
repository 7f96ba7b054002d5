"""What the manifest says of each column: how it is spread over the training rows.

Long tables come in blocks, whose moments are merged as in Chan, Golub, LeVeque, Algorithms for Computing the
Sample Variance (1983). Within a block the sums are exact, so they do not depend on the machine's way to add.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, TypeVar

import numpy as np

from model_store import dates
from model_store.columns import (
    BooleanFeature,
    CategoricalFeature,
    Category,
    DateFeature,
    Feature,
    Matrix,
    NumericFeature,
)
from model_store.manifest import Target
from training.blocks import BLOCK_VALUES, Blocks
from training.data import DataError, Table
from training.recipe import InputColumn

# A weekday or an hour says something from ten rows on.
FEWEST_OF_PART = 10
# A number's knots are the ends of that many equal parts of its rows.
PIECES = 16
M = TypeVar("M", NumericFeature, DateFeature)


class Spread(TypedDict):
    """The fields of `model_store.manifest.Range`."""

    mean: float
    std: float
    minimum: float
    maximum: float
    deciles: tuple[float, ...]


@dataclass(frozen=True)
class Moments:
    """Count, mean, sum of squared deviations from it, and range of some numbers."""

    count: int
    mean: float
    squares: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Matrix) -> "Moments":
        """The moments of some numbers, shape (n,)."""
        if not len(values):
            return cls(0, 0.0, 0.0, math.inf, -math.inf)
        mean = math.fsum(values) / len(values)
        with np.errstate(over="ignore", under="ignore"):
            squares = math.fsum((values - mean) ** 2)
        return cls(len(values), mean, squares, float(values.min()), float(values.max()))

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both together."""
        if not other.count:
            return self
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * other.count / count,
            self.squares + other.squares + apart**2 * self.count * other.count / count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )


def describe_columns(table: Table) -> tuple[tuple[Feature, ...], Target]:
    """Each input's and the target's spread over the table's rows, with an example from a typical row.

    Raises DataError for a column that does not vary.
    """
    moments = moments_of_columns(table.blocks)
    names = [*(column.name for column in table.recipe.features), table.recipe.target.name]
    for name, column_moments in zip(names, moments, strict=True):
        if name not in table.categories:
            check_varies(table, name, column_moments)
    read = sampled(table.blocks)
    usual = [most_frequent(table, name, each) for name, each in zip(names, moments, strict=True)]
    sample = np.where(np.isnan(read), usual, read)
    typical = read[typical_row(sample, table.recipe.features)]
    medians = np.nanquantile(read, 0.5, axis=0, method="lower")
    met = np.where([name in table.categories for name in names], usual, medians)
    example = np.where(np.isnan(typical), met, typical)
    features = tuple(
        describe_feature(table, column, moments[index], sample[:, index], float(example[index]))
        for index, column in enumerate(table.recipe.features)
    )
    return features, describe_target(table, moments[-1], sample[:, -1])


def most_frequent(table: Table, name: str, moments: Moments) -> float:
    """What stands for a missing value of a column: the most frequent category's position, or the mean."""
    if name not in table.categories:
        return moments.mean
    counts = list(table.categories[name].values())
    return float(counts.index(max(counts)))


def describe_feature(
    table: Table, column: InputColumn, moments: Moments, sample: Matrix, example: float
) -> Feature:
    """An input of the column's kind; raises DataError for one that does not vary.

    `sample` (n,) is some of the column's values, `example` a typical one.
    """
    if column.kind == "numeric":
        return describe_numeric(table, column, moments, sample, example)
    if column.kind == "date":
        return describe_date(table, column, moments, sample, example)
    if column.kind == "boolean":
        return describe_boolean(table, column, is_true=example == 1)
    return describe_categories(table, column, int(example))


def describe_date(
    table: Table, column: InputColumn, moments: Moments, sample: Matrix, example: float
) -> DateFeature:
    """A date, with those parts of the calendar that its training rows tell something about.

    `sample` (n,) and `example` are in days since 1970.
    """
    index = table.recipe.features.index(column)
    days = np.concatenate([block[:, index] for block in table.blocks])
    feature = DateFeature(
        name=column.name,
        description=column.description,
        format=column.format,
        parts=calendar_parts(days),
        example=dates.as_text(math.floor(example * 86_400) / 86_400),
        **spread(table, moments, sample),
    )
    return with_encoding(feature, table, column, sample)


def calendar_parts(days: Matrix) -> dict[dates.PartName, tuple[int, ...]]:
    """The rows by month, weekday and hour of days (n,) since 1970, where enough rows differ in them.

    A month is told from the course of time only if all twelve were there.
    """
    parts: dict[dates.PartName, tuple[int, ...]] = {}
    for name, part in dates.PARTS.items():
        rows = np.bincount(part.of(days).astype(np.intp), minlength=len(part.names))
        if np.count_nonzero(rows >= FEWEST_OF_PART) >= (12 if name == "month" else 2):
            parts[name] = tuple(rows.tolist())
    return parts


def describe_boolean(table: Table, column: InputColumn, *, is_true: bool) -> BooleanFeature:
    """A boolean input; raises DataError if it is always true, or always false."""
    counts = table.categories[column.name]
    if not counts["true"] or not counts["false"]:
        message = (
            f"the column {column.name!r} of {table.source} is always {'true' if counts['true'] else 'false'}"
        )
        raise DataError(message + ", so there is nothing to learn from it. Leave it out")
    return BooleanFeature(
        name=column.name,
        description=column.description,
        trues=counts["true"],
        falses=counts["false"],
        missing=table.empty.get(column.name) or None,
        example=is_true,
    )


def describe_numeric(
    table: Table, column: InputColumn, moments: Moments, sample: Matrix, example: float
) -> NumericFeature:
    """A numeric input; with missing values allowed, the mean stands in for them, and a mark if asked for.

    `sample` (n,) and `example` are in the column's unit.
    """
    missing = table.recipe.missing_of(column)
    share = 1 - moments.count / table.rows
    feature = NumericFeature(
        name=column.name,
        unit=column.unit or unit_met(table, column.name),
        description=column.description,
        fill=None if missing == "drop" else moments.mean,
        missing_share=share if missing == "indicator" and moments.count < table.rows else None,
        missing_words=table.missing_words.get(column.name, ()),
        example=example,
        **spread(table, moments, sample),
    )
    return with_encoding(feature, table, column, sample)


def with_encoding(feature: M, table: Table, column: InputColumn, sample: Matrix) -> M:
    """The feature encoded as the recipe has it, with knots from some of the column's values, (n,)."""
    encoding = table.recipe.encoding_of(column)
    if encoding == "z-score":
        return feature
    knots = knots_of(sample) if encoding == "piecewise" else ()
    feature = feature.model_copy(update={"clip": True, "knots": knots})
    clipped_mean, *others = encoded_means(feature, table, table.recipe.features.index(column))
    shares = tuple(others[: len(knots)])
    return feature.model_copy(update={"clipped_mean": clipped_mean, "shares": shares})


def knots_of(sample: Matrix) -> tuple[float, ...]:
    """The least value, the greatest, and what parts the values (n,) in equal shares; none if all are one."""
    knots = np.unique(np.quantile(sample, np.arange(PIECES + 1) / PIECES))
    return tuple(knots.tolist()) if len(knots) > 1 else ()


def encoded_means(feature: Feature, table: Table, index: int) -> list[float]:
    """The mean over the table's rows of each column that a feature, by its position, takes in the network."""
    total = sum(feature.encode(block[:, index]).sum(axis=1) for block in table.blocks)
    means: list[float] = (total / table.rows).tolist()
    return means


def describe_categories(table: Table, column: InputColumn, example: int) -> CategoricalFeature:
    """A categorical input, its categories in alphabetical order, rare ones as the level 'other'.

    Raises DataError for a single category, or none with rows enough.
    """
    counts, rare = table.categories[column.name], table.recipe.rare_of(column)
    present = sorted((value, rows) for value, rows in counts.items() if rows >= rare)
    merged, missing = sum(rows for rows in counts.values() if rows < rare), table.empty.get(column.name, 0)
    if not present or len(present) + bool(merged) + bool(missing) < 2:
        what = f"the single category {present[0][0]!r}" if present else f"no category in {rare} rows or more"
        message = f"the column {column.name!r} of {table.source} has {what}"
        raise DataError(message + ", so there is nothing to learn from it. Leave it out")
    is_open = merged or table.recipe.new_categories_of(column) == "other"
    typical = list(counts)[example]
    return CategoricalFeature(
        name=column.name,
        description=column.description,
        categories=tuple(Category(value=value, rows=rows) for value, rows in present),
        missing=missing or None,
        other=merged if is_open else None,
        example=typical if counts[typical] >= rare else max(present, key=lambda each: each[1])[0],
    )


def describe_target(table: Table, moments: Moments, sample: Matrix) -> Target:
    """The target, in its own unit, from some of its values (n,)."""
    column = table.recipe.target
    return Target(
        name=column.name,
        unit=column.unit or unit_met(table, column.name),
        transform=column.transform,
        **spread(table, moments, sample),
    )


def unit_met(table: Table, name: str) -> str | None:
    """The units behind a column's numbers, the most frequent first; None if there are none."""
    units = table.units.get(name, Counter())
    return " or ".join(unit for unit, _ in units.most_common()) or None


def check_varies(table: Table, name: str, moments: Moments) -> None:
    """Raise DataError for a column of numbers that does not vary, or whose deviation float64 cannot hold."""
    if moments.minimum >= moments.maximum:
        same = (
            f"all {moments.count} rows have {moments.minimum:g}" if moments.count else "all cells are empty"
        )
        message = (
            f"the column {name!r} of {table.source} is constant: {same}, "
            "so there is nothing to learn from it. Leave it out"
        )
        raise DataError(message)
    if not 0 < moments.squares < math.inf:
        message = (
            f"the column {name!r} of {table.source} runs from {moments.minimum:g} to {moments.maximum:g}: "
            "float64 cannot hold its standard deviation. Scale it"
        )
        raise DataError(message)


def spread(table: Table, moments: Moments, sample: Matrix) -> Spread:
    """The manifest's figures for a column whose missing values the mean replaces, as in `sample` (n,)."""
    return {
        "mean": moments.mean,
        "std": math.sqrt(moments.squares / table.rows),
        "minimum": moments.minimum,
        "maximum": moments.maximum,
        "deciles": tuple(np.quantile(sample, np.arange(1, 10) / 10).tolist()),
    }


def moments_of_columns(blocks: Blocks) -> list[Moments]:
    """The moments of each column's present values, in the order of the columns."""
    merged: list[Moments] = []
    for block in blocks:
        here = [Moments.of(values[~np.isnan(values)]) for values in block.T]
        merged = [old.merge(new) for old, new in zip(merged, here, strict=True)] if merged else here
    return merged


def sampled(blocks: Blocks) -> Matrix:
    """All rows of a table of one block, every second one of two blocks, and so on: (rows, width)."""
    stride = math.ceil(blocks.rows * blocks.width / BLOCK_VALUES)
    return np.concatenate([block[::stride].copy() for block in blocks])


def typical_row(sample: Matrix, columns: Sequence[InputColumn]) -> int:
    """The row nearest to each number's median, in its std, and to each most frequent category.

    `sample` (rows, width) has no missing values, and its columns are in the order of `columns`.
    """
    distance = np.zeros(len(sample))
    for values, column in zip(sample.T, columns, strict=False):
        if column.kind in {"numeric", "date"}:
            distance += np.abs(values - np.median(values)) / values.std()
        else:
            distance += values != np.bincount(values.astype(int)).argmax()
    return int(distance.argmin())
