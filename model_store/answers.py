"""From columns to answers: predictions, their intervals, what is out of range, what float64 cannot hold.

A row with an input far outside the training range (`columns.FAR`) has a prediction, but no interval.

One function answers columns, whoever asks and in whatever form; another a single row, with the same bits.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import isfinite

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_store.columns import Columns, Matrix, Row, far_rows, out_of_range
from model_store.predictor import Predictor


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One row's prediction and its interval's bounds, in the target's unit, and the inputs out of range.

    Both bounds are None if the model has no interval, or if an input is so far outside training that none
    can be claimed.
    """

    value: float
    lower: float | None
    upper: float | None
    out_of_range: list[str]

    @property
    def is_finite(self) -> bool:
        """Whether float64 could hold all of it."""
        value, lower, upper = self.value, self.lower, self.upper
        if lower is None or upper is None:
            return isfinite(value)
        # The sum is finite if all are, unless they are so large that each has to be looked at.
        return isfinite(lower + value + upper) or all(map(isfinite, (lower, value, upper)))


@dataclass(frozen=True)
class Answers:
    """n rows' predictions and their intervals' bounds, each (n,), in the target's unit.

    If the model has no interval, both bounds are None; they are NaN for a row with an input so far outside
    training that none can be claimed. `out_of_range` gives row numbers, from 0, by input.
    """

    values: Matrix
    lower: Matrix | None
    upper: Matrix | None
    out_of_range: dict[str, list[int]]

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        """The rows, (n,), that float64 could hold all of."""
        finite = np.isfinite(self.values)
        for bound in (self.lower, self.upper):
            if bound is not None:
                finite &= ~np.isinf(bound)
        return finite


@dataclass(frozen=True)
class Tally:
    """Rows: how many were predicted in each tenth of the training target, how many were refused, and how
    often each feature was out of range.
    """

    tenths: Sequence[int]
    out_of_range: Mapping[str, int]
    refused: int = 0


class Answerer:
    """Answers with a model whose weights were checked; made once from it."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        description = predictor.description
        self._features, self._target = description.features, description.target
        self._is_transformed = self._target.transform != "none"
        self._interval = description.interval
        self._row_bounds = self._interval.row_bounds() if self._interval else None
        self._rangers = [
            (index, feature.name, ranger)
            for index, feature in enumerate(self._features)
            if (ranger := feature.row_ranger())
        ]
        self._far_rangers = [
            (index, ranger)
            for index, feature in enumerate(self._features)
            if (ranger := feature.far_ranger())
        ]

    def answer(self, columns: Columns) -> Answers:
        """Answer n rows, given as columns (n,) of accepted values; raises KeyError for a missing column.

        The same row gives the same 64 bits alone and anywhere in a batch. An input far outside the
        training range may overflow to an infinity: the caller decides what that means.
        """
        outputs = self._predictor.outputs(columns)
        outside = out_of_range(self._features, columns)
        lower = upper = None
        if self._interval is not None:
            lower, upper = map(self._target.untransformed, self._interval.bounds(outputs))
            far = far_rows(self._features, columns, outside)
            lower[far] = upper[far] = np.nan
        return Answers(self._target.untransformed(outputs), lower, upper, outside)

    def answer_row(self, row: Row) -> Answer:
        """Answer one row, its values in the features' order: the same bits as `answer`."""
        value = lower = upper = self._predictor.row_output(row)
        row_bounds = self._row_bounds
        if row_bounds is not None:
            lower, upper = row_bounds(value)
        if self._is_transformed:
            lower, value, upper = map(float, map(self._target.untransformed, (lower, value, upper)))
        outside = [name for index, name, is_outside in self._rangers if is_outside(row[index])]
        if row_bounds is None or (outside and self._is_far(row)):
            return Answer(value, None, None, outside)
        return Answer(value, lower, upper, outside)

    def _is_far(self, row: Row) -> bool:
        return any(is_far(row[index]) for index, is_far in self._far_rangers)

    def tenth(self, value: float) -> int:
        """The tenth of the training target, from 0, in which a prediction lies."""
        return bisect_left(self._target.deciles, value)

    def tally(self, answers: Answers, refused: int = 0) -> Tally:
        """What there is to count of rows that were answered, and of others that were refused."""
        values = answers.values[answers.finite]
        below = [int(np.count_nonzero(values <= bound)) for bound in self._target.deciles]
        tenths = [upper - lower for lower, upper in pairwise([0, *below, len(values)])]
        return Tally(tenths, {name: len(rows) for name, rows in answers.out_of_range.items()}, refused)
