"""Which rows a model is scored on, and which it may see before: at random, by time, or by whole groups.

Of a mask of shape (rows,) the true rows are meant. The same table and seed give the same masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.columns import Matrix
from training.data import DataError, Table
from training.recipe import USUAL_FOLDS
from training.times import time_text

Mask: TypeAlias = NDArray[np.bool_]
Labels: TypeAlias = NDArray[np.intp]
FEWEST_HELD_OUT = 2
CROSSED_FOLDS = 8


@dataclass(frozen=True)
class Fold:
    """The rows that a model is fitted on and those that it is scored on, as masks of shape (rows,)."""

    seen: Mask
    held: Mask


def folds_of(table: Table) -> list[Fold]:
    """The folds that the table's recipe scores on, one for a held-out share; none if it asks for no scores.

    Raises DataError for too few rows, groups or times.
    """
    recipe = table.recipe
    if recipe.in_folds:
        return cross_validation(table, recipe.cross_validate or usual_folds(table), recipe.schedule.seed)
    return [hold_out_rows(table, recipe.holdout, recipe.schedule.seed)] if recipe.holdout else []


def crossed_folds(table: Table) -> Labels:
    """The fold of each row, (rows,), of eight or as many as its rows or groups allow, whole groups in one.

    There are fewer where the target would not vary in one of them. Rows that are split by time are in folds
    at random. Raises DataError for too few rows or groups.
    """
    count, target = table.recipe.cross_validate or CROSSED_FOLDS, table.target()
    labels = label_rows(table, count)
    while count > 2 and not table.recipe.cross_validate and not varies_in_each(target, labels):
        count -= 1
        labels = label_rows(table, count)
    return labels


def label_rows(table: Table, count: int) -> Labels:
    """The fold of each row, (rows,), of so many or as many as its rows or groups allow; not by time.

    Raises DataError for a single group.
    """
    seed = table.recipe.schedule.seed
    if table.recipe.split.kind != "group":
        count = max(2, min(count, table.rows // FEWEST_HELD_OUT))
        return np.random.default_rng(seed).permutation(np.arange(table.rows) % count)
    groups, sizes = grouped(table, fewest=2)
    return spread_groups(sizes, min(count, len(sizes)), seed)[groups]


def varies_in_each(target: Matrix, labels: Labels) -> bool:
    """Whether a target (rows,) has more than one value in each fold."""
    return all(np.ptp(target[labels == fold]) > 0 for fold in range(int(labels.max()) + 1))


def usual_folds(table: Table) -> int:
    """Five, or as many as the table has rows, groups or times for, at least two."""
    most = table.rows // FEWEST_HELD_OUT
    if table.recipe.split.kind != "random":
        different = len(np.unique(split_by(table)))
        most = min(most, different if table.recipe.split.kind == "group" else different - 1)
    return max(2, min(USUAL_FOLDS, most))


def hold_out_rows(table: Table, share: float, seed: int) -> Fold:
    """Hold out about the share `share` of the rows, in the way that the table's recipe splits by.

    Rows of one group or time stay together. Raises DataError for a single group or time.
    """
    split = table.recipe.split
    if split.kind == "random":
        held = split_at_random(table.rows, share, seed)
    elif split.kind == "time":
        (start,) = borders(table, [table.rows - round(table.rows * share)])
        held = split_by(table) >= start
    else:
        groups, sizes = grouped(table, fewest=2)
        held = np.isin(groups, draw_groups(sizes, table.rows * share, seed))
    return Fold(~held, held)


def cross_validation(table: Table, count: int, seed: int) -> list[Fold]:
    """Hold out each row once in `count` folds and see the others, in the way that the recipe splits by.

    By time a fold holds out the part that follows what it sees, and each sees all that the one before did;
    the first of `count` + 1 parts is never held out. Raises DataError for too few rows, groups or times.
    """
    split = table.recipe.split
    if count * FEWEST_HELD_OUT > table.rows:
        message = (
            f"{count} folds of the {table.rows} rows of {table.source} leave fewer than {FEWEST_HELD_OUT} "
            f"rows to a fold. Give more rows, or {way_out(table)}"
        )
        raise DataError(message)
    if split.kind == "time":
        return folds_in_time(table, count)
    if split.kind == "group":
        groups, sizes = grouped(table, fewest=count)
        labels = spread_groups(sizes, count, seed)[groups]
    else:
        labels = np.random.default_rng(seed).permutation(np.arange(table.rows) % count)
    return [Fold(labels != label, labels == label) for label in range(count)]


def folds_in_time(table: Table, count: int) -> list[Fold]:
    """The second to the last of `count` + 1 parts about as long, each held out after all the parts before.

    Raises DataError for too few different times.
    """
    times = split_by(table)
    starts = borders(table, [round(table.rows * part / (count + 1)) for part in range(1, count + 1)])
    return [
        Fold(times < start, (start <= times) & (times < end))
        for start, end in zip(starts, [*starts[1:], np.inf], strict=True)
    ]


def since(table: Table, folds: Sequence[Fold]) -> str | None:
    """The earliest time that is held out, for people; None where rows are not split by time."""
    if table.recipe.split.kind != "time":
        return None
    earliest = min(float(split_by(table)[fold.held].min()) for fold in folds)
    return time_text(earliest, dated=table.dated)


def split_by(table: Table) -> Matrix:
    """The time or the group of every row, (rows,)."""
    assert table.split_by is not None
    return table.split_by


def split_at_random(rows: int, share: float, seed: int) -> Mask:
    """A mask of shape (rows,) that holds out the share `share` of the rows, drawn at random."""
    held_out = np.arange(rows) < round(rows * share)
    np.random.default_rng(seed).shuffle(held_out)
    return held_out


def borders(table: Table, cuts: list[int]) -> list[float]:
    """The times that begin new parts, nearest to where the ordered rows would be cut, each after the last.

    Raises DataError when there are too few different times for that.
    """
    ordered = np.sort(split_by(table))
    changes = np.flatnonzero(np.diff(ordered)) + 1
    nearest = [int(np.abs(changes - cut).argmin()) for cut in cuts] if len(changes) else []
    if len(set(nearest)) < len(cuts):
        raise DataError(too_few(table, "times", len(changes) + 1, len(cuts) + 1))
    return [float(ordered[changes[index]]) for index in nearest]


def grouped(table: Table, fewest: int) -> tuple[Labels, Labels]:
    """Each row's group as a number from 0 on, (rows,), and the rows of each group, (groups,).

    Raises DataError for fewer than `fewest` groups.
    """
    _, groups, sizes = np.unique(split_by(table), return_inverse=True, return_counts=True)
    if len(sizes) < fewest:
        raise DataError(too_few(table, "groups", len(sizes), fewest))
    return groups, sizes


def too_few(table: Table, what: str, there: int, needed: int) -> str:
    """What to say where a column has too few different values to split the rows by."""
    column = table.recipe.beside[0]
    return (
        f"the column {column!r} of {table.source} has {there} different {what} in {table.rows} rows, too few "
        f"or too uneven to split them into {needed} parts. Take --split random, or {way_out(table)}"
    )


def way_out(table: Table) -> str:
    """What to do where too little is left to score on."""
    return "fewer folds" if table.recipe.cross_validate else "--holdout 0 to go without scores"


def draw_groups(sizes: Labels, wanted: float, seed: int) -> list[int]:
    """Groups drawn at random whose rows come as near to `wanted` as that order allows; never none nor all."""
    drawn: list[int] = []
    total = 0
    for group in np.random.default_rng(seed).permutation(len(sizes))[:-1].tolist():
        if abs(total + sizes[group] - wanted) < abs(total - wanted):
            drawn.append(group)
            total += sizes[group]
    return drawn or [int(sizes.argmin())]


def spread_groups(sizes: Labels, count: int, seed: int) -> Labels:
    """The fold of each group, (groups,): the largest first, each to the fold with the fewest rows so far."""
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    folds, rows = np.empty(len(sizes), np.intp), np.zeros(count, np.intp)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")].tolist():
        folds[group] = rows.argmin()
        rows[folds[group]] += sizes[group]
    return folds
