"""How far a model errs by what it predicts: a piecewise-linear scale, in +, -, × and ÷ alone.

So it has the same bits for one output and for many, on every processor.
"""

from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from math import isfinite
from typing import Annotated, Self

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from model_store.columns import Matrix
from model_store.parts import Part


class Scale(Part):
    """Sizes at ascending outputs of the network, linear between them; beyond, those of the first and last.

    Outputs and sizes are in the unit of the network's output: the target's, or its natural logarithm.
    """

    outputs: Annotated[tuple[float, ...], Field(min_length=2)]
    sizes: tuple[PositiveFloat, ...]

    def at(self, outputs: Matrix) -> Matrix:
        """The sizes at outputs (n,): (n,)."""
        knots, sizes = np.array(self.outputs), np.array(self.sizes)
        inside = np.clip(outputs, knots[0], knots[-1])
        left = np.zeros(len(inside), np.intp)
        for knot in self.outputs[1:-1]:
            left += inside >= knot
        start = knots[left]
        share = (inside - start) / (knots[left + 1] - start)
        between: Matrix = sizes[left] * (1.0 - share) + sizes[left + 1] * share
        return between

    def row_scale(self) -> Callable[[float], float]:
        """What gives the size at one output: the same bits as `at`."""
        knots, sizes, inner = self.outputs, self.sizes, self.outputs[1:-1]
        first, last = knots[0], knots[-1]

        def size(output: float) -> float:
            inside = min(max(output, first), last)
            left = bisect_right(inner, inside)
            start = knots[left]
            share = (inside - start) / (knots[left + 1] - start)
            return sizes[left] * (1.0 - share) + sizes[left + 1] * share

        return size

    @property
    def steepest(self) -> float:
        """The most that the size changes by with the output, one for the other."""
        steps = zip(pairwise(self.outputs), pairwise(self.sizes), strict=True)
        return max(abs(size - before) / (output - at) for (at, output), (before, size) in steps)

    @model_validator(mode="after")
    def _piecewise(self) -> Self:
        if len(self.sizes) != len(self.outputs):
            message = f"{len(self.outputs)} outputs have {len(self.sizes)} sizes"
            raise ValueError(message)
        if any(output <= before for before, output in pairwise(self.outputs)):
            message = "outputs do not ascend"
            raise ValueError(message)
        if not isfinite(self.outputs[-1] - self.outputs[0]):
            message = "outputs are too far apart"
            raise ValueError(message)
        return self
