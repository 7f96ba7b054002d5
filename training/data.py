"""From a CSV file to checked columns: which columns, which rows, how they are spread."""

import csv
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_store.encoding import Matrix
from model_store.manifest import COLUMN_NAME, NumericFeature, Target

FEWEST_ROWS = 2


class DataError(Exception):
    """A table that cannot be learned from; its text says what, where and what to do."""


class Spread(TypedDict):
    """The fields of `model_store.manifest.Range`."""

    mean: float
    std: float
    minimum: float
    maximum: float
    deciles: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """The rows to learn from: one float64 column of n values for each input, and the target's."""

    source: str
    columns: dict[str, Matrix]
    target_name: str
    target: Matrix
    dropped: dict[str, int]
    sha256: str

    @property
    def rows(self) -> int:
        """How many rows there are, n."""
        return len(self.target)

    def take(self, rows: NDArray[np.intp]) -> "Table":
        """The same table with only these rows."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return replace(self, columns=columns, target=self.target[rows])


def read_table(path: Path, target: str, inputs: Sequence[str]) -> Table:
    """Read the named columns of a CSV file; rows with an empty cell in one of them are dropped and counted.

    Raises DataError for a file that is missing, empty or not a CSV, a column that is not there, or
    not numeric, and for fewer than two rows.
    """
    names = [*inputs, target]
    check_names(path, read_header(path), names)
    frame = read_columns(path, names)
    numbers = pd.DataFrame({name: as_numbers(path, frame[name]) for name in names})
    missing = numbers.isna()
    kept = numbers[~missing.any(axis="columns")]
    if len(kept) < FEWEST_ROWS:
        message = f"{path} has {len(kept)} rows with a value in each of {', '.join(names)}; two is the fewest"
        raise DataError(message)
    columns = {name: kept[name].to_numpy(np.float64) for name in names}
    target_values = columns.pop(target)
    dropped = {str(name): int(count) for name, count in missing.sum().items() if count}
    return Table(str(path), columns, target, target_values, dropped, file_sha256(path))


def read_header(path: Path) -> list[str]:
    """The names in the first line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"{path} cannot be read as a CSV file: {error}"
        raise DataError(message) from None
    if not header:
        message = f"{path} is empty: a first line with the columns' names is due, then a line a row"
        raise DataError(message)
    return header


def check_names(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a column that is not in the header exactly once, or is asked for twice."""
    for name in names:
        if not re.fullmatch(COLUMN_NAME, name):
            message = (
                f"the column {name!r} cannot be an input: rename it without quotes, backslashes and tabs"
            )
            raise DataError(message)
        if names.count(name) > 1:
            message = f"the column {name!r} is asked for twice: the target and every input must differ"
            raise DataError(message)
        if header.count(name) > 1:
            message = f"{path} has {header.count(name)} columns named {name!r}: rename all but one"
            raise DataError(message)
        if name not in header:
            nearest = get_close_matches(name, header, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(header[:30])}"
            message = f"{path} has no column {name!r}: {hint}"
            raise DataError(message)


def read_columns(path: Path, names: Sequence[str]) -> pd.DataFrame:
    """Parse the file and keep the named columns."""
    try:
        return pd.read_csv(path, usecols=list(names), encoding="utf-8-sig")
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        message = f"{path} cannot be read as a CSV file: {error}"
        raise DataError(message) from None


def as_numbers(path: Path, values: "pd.Series[str] | pd.Series[float]") -> "pd.Series[float]":
    """The column as float64, empty cells as NaN; refuses text and infinities by the row they stand in."""
    numbers = pd.to_numeric(values, errors="coerce").astype(np.float64)
    unreadable = np.flatnonzero(numbers.isna() & values.notna() | np.isinf(numbers))
    if unreadable.size:
        row = int(unreadable[0])
        message = (
            f"the column {values.name!r} of {path} is not numeric: row {row + 1} has {values.iloc[row]!r} "
            f"({unreadable.size} of {len(values)} rows cannot be read as a finite number)"
        )
        raise DataError(message)
    return numbers


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split(rows: int, holdout: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Divide the rows 0 … rows-1 at random into those to fit on and the share `holdout` to score on."""
    order = np.random.default_rng(seed).permutation(rows)
    held_out = round(rows * holdout)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def describe_features(table: Table) -> tuple[NumericFeature, ...]:
    """What the manifest says of each input: its spread over these rows, and an example from a typical row.

    Raises DataError for a constant column.
    """
    spreads = {name: spread(table.source, name, values) for name, values in table.columns.items()}
    example = typical_row(table.columns)
    return tuple(
        NumericFeature(name=name, example=float(table.columns[name][example]), **spreads[name])
        for name in table.columns
    )


def describe_target(table: Table) -> Target:
    """What the manifest says of the target; raises DataError for a constant one."""
    return Target(name=table.target_name, **spread(table.source, table.target_name, table.target))


def spread(source: str, name: str, values: Matrix) -> Spread:
    """Mean, population std, range and deciles of a column that varies."""
    if values.min() == values.max():
        message = (
            f"the column {name!r} of {source} is constant: all {len(values)} rows have {values[0]:g}, "
            "so there is nothing to learn from it. Leave it out"
        )
        raise DataError(message)
    mean = exact_mean(values)
    return {
        "mean": mean,
        "std": math.sqrt(exact_mean((values - mean) ** 2)),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "deciles": tuple(np.quantile(values, np.arange(1, 10) / 10).tolist()),
    }


def exact_mean(values: Matrix) -> float:
    """The mean without accumulated rounding, so that it does not depend on the machine's way to add."""
    return math.fsum(values) / len(values)


def typical_row(columns: dict[str, Matrix]) -> int:
    """The row that lies nearest to every column's median, in units of the column's std."""
    distances = [np.abs(values - np.median(values)) / values.std() for values in columns.values()]
    return int(np.sum(distances, axis=0).argmin())
