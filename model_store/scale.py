"""How far a model errs by what it predicts: a piecewise-linear scale, in +, - and × alone.

So it has the same bits for one output and for many, on every processor.
"""

from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from math import isfinite
from operator import itemgetter
from typing import Annotated, Self

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from model_store.columns import Matrix
from model_store.parts import Part

# So many fit a byte: counting in bytes how many outputs a number has passed is the fastest way to its piece.
MOST_OUTPUTS = 100


class Scale(Part):
    """Sizes at ascending outputs of the network, linear between them; beyond, those of the first and last.

    Outputs and sizes are in the unit of the network's output: the target's, or its natural logarithm.
    """

    outputs: Annotated[tuple[float, ...], Field(min_length=2, max_length=MOST_OUTPUTS)]
    sizes: tuple[PositiveFloat, ...]

    @property
    def pieces(self) -> list[tuple[float, float, float]]:
        """Before each output and behind the last: size = least + (output - start) · slope, for these three.

        A piece starts from its smaller end, so that no rounding makes a size negative.
        """
        ends = pairwise(zip(self.outputs, self.sizes, strict=True))
        between = [
            (*min((start, size), (end, other), key=itemgetter(1)), (other - size) / (end - start))
            for (start, size), (end, other) in ends
        ]
        return [(0.0, self.sizes[0], 0.0), *between, (0.0, self.sizes[-1], 0.0)]

    @property
    def steepest(self) -> float:
        """The most that the size changes by with the output, one for the other."""
        return max(abs(slope) for _, _, slope in self.pieces)

    def at(self, outputs: Matrix) -> Matrix:
        """The sizes at outputs (n,): (n,); NaN at what is not finite."""
        passed = np.zeros(len(outputs), np.int8)
        for knot in self.outputs:
            passed += (outputs >= knot).view(np.int8)
        piece = passed.astype(np.intp)
        start, least, slope = (column.take(piece) for column in np.array(self.pieces).T)
        with np.errstate(invalid="ignore", over="ignore"):
            sizes: Matrix = least + (outputs - start) * slope
            return sizes

    def row_scale(self) -> Callable[[float], float]:
        """What gives the size at one output: the same bits as `at`."""
        knots, pieces = self.outputs, self.pieces

        def size(output: float) -> float:
            start, least, slope = pieces[bisect_right(knots, output)]
            return least + (output - start) * slope

        return size

    @model_validator(mode="after")
    def _piecewise(self) -> Self:
        if len(self.sizes) != len(self.outputs):
            message = f"{len(self.outputs)} outputs have {len(self.sizes)} sizes"
            raise ValueError(message)
        if any(output <= before for before, output in pairwise(self.outputs)):
            message = "outputs do not ascend"
            raise ValueError(message)
        if not isfinite(self.outputs[-1] - self.outputs[0]) or not isfinite(self.steepest):
            message = "outputs are too far apart, or too near"
            raise ValueError(message)
        return self
