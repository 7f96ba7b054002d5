"""What makes a table less than it looks, told before a model of it is trusted.

Each remark says what was found, in how many rows, and what to do. What is found is found in at most a million
evenly spaced values; the rows are counted in all.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.columns import Matrix
from training.auto import Trial
from training.data import Table
from training.inference import IDENTIFIER, NEARLY_ALL, Decision
from training.recipe import InputColumn
from training.splits import Fold
from training.statistics import sampled

# A column that is so near to the target is made from it, or the target from the column.
COPY = 0.9999
# A value in this share of the rows leaves little to learn from.
CONSTANT = 0.99
# A whole number from 99 on, in at least one row of a hundred, half as far from the others as those lie
# apart, of which at least ten are different, may stand for something that is no number.
SENTINEL, SENTINEL_SHARE, SENTINEL_GAP, FEWEST_OTHERS = 99, 0.01, 0.5, 10
# So many times more copies of rows than chance would give are no chance.
MORE_THAN_CHANCE = 10
ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Remark:
    """What was found, in how many rows, and what to do; of a column, or of the table as a whole."""

    column: str | None
    found: str
    rows: int
    advice: str

    @property
    def words(self) -> str:
        """All of it as a text."""
        return f"{self.found}. {self.advice}."


@dataclass(frozen=True)
class Findings:
    """What was found of a table: what its columns are taken for, if that was to be found out, and remarks.

    `trials` are of the networks that were tried, `verdicts` remarks on the model.
    """

    decisions: tuple[Decision, ...] = ()
    remarks: tuple[Remark, ...] = ()
    verdicts: tuple[Remark, ...] = ()
    trials: tuple[Trial, ...] = ()

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        columns = [{"column": each.name, "taken_as": each.words, "why": each.why} for each in self.decisions]
        return {
            "columns": columns,
            "remarks": [asdict(remark) for remark in self.remarks],
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "trials": [asdict(trial) for trial in self.trials],
        }


def remarks_on(table: Table, folds: Sequence[Fold] = ()) -> tuple[Remark, ...]:
    """All remarks on a table that is scored on some folds."""
    sample = sampled(table.blocks)
    return (
        *lost_rows(table),
        *copies_of_rows(table, sample, folds),
        *(
            remark
            for index, column in enumerate(table.recipe.features)
            for find in (copy_of_target, row_names, sentinels, nearly_constant)
            for remark in find(table, column, sample[:, index], sample[:, -1])
        ),
        *mixed_units(table),
        *similar_names(table),
    )


def lost_rows(table: Table) -> Iterator[Remark]:
    """The rows that a missing value costs, by column, the worst first."""
    for name, rows in sorted(table.dropped.items(), key=lambda item: -item[1]):
        empty = "empty or 0" if name == table.recipe.weight else "empty"
        found = f"{name} is {empty} in {rows:,} rows, which are left out of {table.rows_read:,}"
        yield Remark(name, found, rows, remedy(table, name))
    if len(table.dropped) > 1:
        lost, worst = table.rows_read - table.rows, max(table.dropped, key=table.dropped.__getitem__)
        found = f"{lost:,} of {table.rows_read:,} rows are left out in all, most of them for {worst}"
        yield Remark(None, found, lost, remedy(table, worst))


def remedy(table: Table, name: str) -> str:
    """What would keep the rows in which a column has no value."""
    kinds = {column.name: column.kind for column in table.recipe.features}
    if name in table.recipe.beside:
        return "Every row needs a value to be split or weighed by"
    if name not in kinds:
        return "Nothing can be learned from a row without it"
    if kinds[name] == "numeric":
        return "--missing mean, or missing = 'indicator' in a recipe, keeps them"
    return "Without this column they stay"


def copies_of_rows(table: Table, sample: Matrix, folds: Sequence[Fold]) -> Iterator[Remark]:
    """Rows that equal others, if they are more than chance gives, and those on both sides of a split.

    `sample` (n, width) is some of the rows.
    """
    hashes = np.concatenate([hashes_of_rows(block) for block in table.blocks])
    copies = len(hashes) - len(np.unique(hashes))
    if copies <= MORE_THAN_CHANCE * pairs_by_chance(sample, table.rows):
        return
    advice = "Take them out of the table, unless each is an observation of its own"
    yield Remark(None, f"{copies:,} rows are copies of others in all columns that are used", copies, advice)
    seen = sum(int(np.isin(hashes[fold.held], hashes[fold.seen]).sum()) for fold in folds)
    if seen:
        found = f"{seen:,} held-out rows have a copy among the others, so the scores are too good"
        yield Remark(None, found, seen, "--split group:COLUMN keeps the rows of a group on one side")


def hashes_of_rows(block: Matrix) -> NDArray[np.uint64]:
    """A number for each row of a block (n, width), alike for equal rows and hardly ever for others; (n,)."""
    bits = np.where(np.isnan(block), np.nan, block + 0.0).view(np.uint64)
    hashes = np.zeros(len(block), dtype=np.uint64)
    for column in bits.T:
        hashes = (hashes ^ column) * ODD
        hashes ^= hashes >> np.uint64(29)
    return hashes


def pairs_by_chance(sample: Matrix, rows: int) -> float:
    """How many pairs of `rows` rows would be equal if the columns of `sample` (n, width) were independent."""
    shares = (np.unique(values, return_counts=True)[1] / len(values) for values in sample.T)
    return rows * (rows - 1) / 2 * prod(float(np.sum(share**2)) for share in shares)


def copy_of_target(table: Table, column: InputColumn, values: Matrix, target: Matrix) -> Iterator[Remark]:
    """An input that tells the target, from some of its values (n,) and of the target's (n,)."""
    present = ~np.isnan(values)
    values, target = values[present], target[present]
    if column.kind == "categorical" or len(values) < FEWEST_OTHERS or not (np.ptp(values) and np.ptp(target)):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        correlation = abs(np.corrcoef(values, target)[0, 1])
    if correlation >= COPY:
        rows = count(table, table.recipe.features.index(column), np.isfinite)
        name = table.recipe.target.name
        found = f"{column.name} is nearly a copy of {name}: their correlation is {correlation:.6f}"
        yield Remark(column.name, found, rows, f"Leave it out if it is not known before {name} is")


def row_names(table: Table, column: InputColumn, values: Matrix, _target: Matrix) -> Iterator[Remark]:
    """An input that only tells the rows apart, from some of its values (n,)."""
    is_whole = column.kind == "numeric" and bool((values == np.floor(values)).all())
    if not is_whole or len(values) < FEWEST_OTHERS:
        return
    counts = bool((np.diff(values) > 0).all()) and values[0] >= 0 and values[-1] <= table.rows_read
    differ = len(np.unique(values)) >= NEARLY_ALL * len(values)
    if counts or (differ and IDENTIFIER.fullmatch(column.name)):
        found = (
            f"{column.name} {'counts the rows' if counts else 'has the name and the values of an identifier'}"
        )
        yield Remark(column.name, found, table.rows, "Leave it out: a new row has nothing like it")


def sentinels(table: Table, column: InputColumn, values: Matrix, _target: Matrix) -> Iterator[Remark]:
    """Numbers that stand for a missing one: far from the others among `values` (n,), and frequent."""
    if column.kind != "numeric":
        return
    numbers, rows = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(numbers) <= FEWEST_OTHERS:
        return
    ends = ((0, numbers[1:], numbers[1] - numbers[0]), (-1, numbers[:-1], numbers[-1] - numbers[-2]))
    for place, others, gap in ends:
        number, share = float(numbers[place]), rows[place] / len(values)
        is_told = abs(number) >= SENTINEL and number.is_integer() and share >= SENTINEL_SHARE
        if is_told and gap >= SENTINEL_GAP * (others[-1] - others[0]):
            same = count(table, table.recipe.features.index(column), partial(np.equal, number))
            found = (
                f"{column.name} is {number:.15g} in {same:,} rows, far from {others[0]:g} to {others[-1]:g}"
            )
            advice = f"If that stands for a missing value, say --missing-word {number:.15g}"
            yield Remark(column.name, found, same, advice)


def nearly_constant(table: Table, column: InputColumn, values: Matrix, _target: Matrix) -> Iterator[Remark]:
    """An input with the same value in nearly all rows: of numbers, that is the median of `values` (n,)."""
    if column.kind == "categorical":
        most, same = table.categories[column.name].most_common(1)[0]
        shown = repr(most[:40])
    else:
        middle = np.nanquantile(values, 0.5, method="lower")
        same = count(table, table.recipe.features.index(column), partial(np.equal, middle))
        shown = f"{middle:g}"
    if same >= CONSTANT * table.rows:
        found = f"{column.name} is {shown} in {same:,} of {table.rows:,} rows"
        yield Remark(column.name, found, same, "Little can be learned from it")


def mixed_units(table: Table) -> Iterator[Remark]:
    """Columns with numbers in several units, or some with a unit and some without."""
    columns = [*(column.name for column in table.recipe.features), table.recipe.target.name]
    for index, name in enumerate(columns):
        units, numbers = table.units.get(name, Counter()), count(table, index, np.isfinite)
        bare = {"none": numbers - units.total()} if 0 < units.total() < numbers else {}
        found = Counter(units | bare)
        if len(found) > 1:
            listed = ", ".join(f"{unit} ({rows:,} rows)" for unit, rows in found.most_common())
            told = f"{name} has several units, read as one: {listed}"
            yield Remark(name, told, found.total(), "If they measure by different scales, convert them first")


def similar_names(table: Table) -> Iterator[Remark]:
    """Columns that are not used, whose names differ from that of one that is in case or blanks alone."""
    used = [*(column.name for column in table.recipe.features), table.recipe.target.name]
    for name in used:
        others = [other for other in table.header if other not in used and plain(other) == plain(name)]
        if others:
            found = f"beside {name!r} there is {others[0]!r}, which differs in case or blanks alone"
            yield Remark(name, found, table.rows, "Make sure that the right one is used")


def plain(name: str) -> str:
    """A name without its case and its blanks."""
    return "".join(name.split()).casefold()


def count(table: Table, index: int, is_meant: Callable[[Matrix], NDArray[np.bool_]]) -> int:
    """In how many rows a column has a value that is meant; `is_meant` makes a mask (n,) of values (n,)."""
    return sum(int(is_meant(block[:, index]).sum()) for block in table.blocks)
