"""Residuals by what was predicted: what bounds them, and their scale where one width does not do."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model_store.columns import Matrix
from model_store.scale import Scale
from training.splits import Labels, Mask
from training.uncertainty import COVERAGE

FEWEST_ROWS, PARTS = 9, 5
# What holds nine of ten rows is known to about an eighth from so many.
ROWS_IN_GROUP, MOST_GROUPS = 50, 20
# Predictions count as equal if they differ by less of their range.
EQUAL = 1e-6
# The least size, as a share of the mean magnitude.
LEAST = 0.01


@dataclass(frozen=True)
class Residuals:
    """What n rows have more than was predicted, `values`, each (n,) and in the unit of the network's outputs.

    `folds` (n,) numbers those of held-out rows from 0.
    """

    outputs: Matrix
    values: Matrix
    folds: Labels | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.values)

    @property
    def in_folds(self) -> bool:
        """Whether there are several folds."""
        return self.folds is not None and bool(np.ptp(self.folds))

    def parts(self) -> Iterator[tuple[Mask, Mask]]:
        """Up to five parts of the rows and what is left without each, as masks (n,).

        Folds stay whole if there are several; else a part is every fifth row in the order of predictions.
        """
        if self.folds is None or not np.ptp(labels := self.folds % PARTS):
            labels = np.argsort(np.argsort(self.outputs, kind="stable")) % PARTS
        for label in np.unique(labels):
            yield labels == label, labels != label

    def take(self, rows: Mask) -> "Residuals":
        """Those of the true rows (n,)."""
        folds = None if self.folds is None else self.folds[rows]
        return Residuals(self.outputs[rows], self.values[rows], folds)


@dataclass(frozen=True)
class Scaled:
    """A scale, and residuals (n,) divided by what the other parts of the rows make of it."""

    scale: Scale
    values: Matrix


def scaled(residuals: Residuals) -> Scaled | None:
    """Residuals on the scale that they need; None where one width does as well or rows are too few to tell.

    One width does if it holds as many of each group of predictions as of all, but for chance, or if a scale
    from other parts of the rows does not at least halve how unevenly it holds them.
    """
    groups, scale, values = groups_by_output(residuals.outputs), scale_of(residuals), normalised(residuals)
    if scale is None or values is None:
        return None
    uneven = unevenness(residuals.values, groups)
    if uneven <= len(groups) + 3 * math.sqrt(2 * len(groups)) or unevenness(values, groups) > uneven / 2:
        return None
    return Scaled(scale, values)


def normalised(residuals: Residuals) -> Matrix | None:
    """Residuals (n,), each divided by its size on a scale from the parts without it; None if one has none."""
    divided = np.empty_like(residuals.values)
    for rows, others in residuals.parts():
        scale = scale_of(residuals.take(others))
        if scale is None:
            return None
        divided[rows] = residuals.values[rows] / scale.at(residuals.outputs[rows])
    return divided


def scale_of(residuals: Residuals) -> Scale | None:
    """What bounds the magnitudes of nine in ten residuals of each group, at its median prediction.

    None for a single group, or where nearly all residuals are zero.
    """
    groups, errors = groups_by_output(residuals.outputs), np.abs(residuals.values)
    least = LEAST * float(errors.mean())
    if len(groups) == 1 or not least:
        return None
    return Scale(
        outputs=tuple(float(np.median(residuals.outputs[group])) for group in groups),
        sizes=tuple(max(least, float(np.quantile(errors[group], COVERAGE))) for group in groups),
    )


def groups_by_output(outputs: Matrix) -> list[Labels]:
    """The rows (n,) in the order of what was predicted, in up to 20 groups of about equal size.

    They have about 50 rows, 25 at least; rows of equal predictions stay together.
    """
    order = np.argsort(outputs, kind="stable")
    ordered, count = outputs[order], min(MOST_GROUPS, len(outputs) // ROWS_IN_GROUP)
    steps = np.floor((ordered - ordered[0]) / (EQUAL * np.ptp(ordered) or 1.0))
    changes = np.flatnonzero(np.diff(steps)) + 1
    starts = [0]
    cuts = np.arange(1, count if len(changes) else 1) * len(outputs) // max(count, 1)
    for start in changes[np.searchsorted(changes[:-1], cuts)].tolist():
        if min(start - starts[-1], len(outputs) - start) >= ROWS_IN_GROUP / 2:
            starts.append(start)
    return np.split(order, starts[1:])


def unevenness(values: Matrix, groups: Sequence[Labels]) -> float:
    """How far one width for residuals (n,) is from holding the same share of each group as of all.

    The sum of squared deviations in binomial standard errors: by chance a chi-squared number of at most as
    many degrees of freedom as there are groups, which are its mean and half of its variance.
    """
    bounds = tails(values) or magnitudes(values) or (0.0, 0.0)
    is_held = (bounds[0] <= values) & (values <= bounds[1])
    share = is_held.mean()
    deviations = sum(len(group) * (is_held[group].mean() - share) ** 2 for group in groups)
    return float(deviations / (share * (1 - share))) if share < 1 else 0.0


def tails(values: Matrix) -> tuple[float, float] | None:
    """What bounds half of the rest of n residuals on each side; None for fewer than 19."""
    n = len(values)
    rank = math.ceil((n + 1) * (1 + COVERAGE) / 2)
    ordered = np.sort(values)
    return (float(ordered[n - rank]), float(ordered[rank - 1])) if rank <= n else None


def magnitudes(values: Matrix) -> tuple[float, float] | None:
    """What bounds n residuals alike on both sides; None for fewer than 9."""
    n = len(values)
    if n < FEWEST_ROWS:
        return None
    largest = float(np.sort(np.abs(values))[math.ceil((n + 1) * COVERAGE) - 1])
    return -largest, largest
