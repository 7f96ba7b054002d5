"""What a number reaches the network as beside its z-score: that smoothly clipped, and hats.

A hat is 1 at its knot and falls to 0 at the knots beside it, so that between two knots theirs sum to 1;
outside the knots the hat of the nearest is 1. A line over hats is piecewise linear in the number. They span
what the piecewise linear encoding does (Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical
Features in Tabular Deep Learning", NeurIPS 2022), but no more than two of them are not 0.

All of it is +, -, ×, ÷ and square roots, which have the same bits for a float, for an array and on every
processor.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import fsum, inf, sqrt

import numpy as np
from numpy.typing import NDArray

# From here on z / sqrt(1 + z²/9) is 3 but for rounding, and a much larger z has a square beyond float64.
STEEPEST = 1e9
SUM_TOLERANCE = 1e-9


def clipped_z_score(mean: float, std: float) -> Callable[[float], float]:
    """What gives z / sqrt(1 + z²/9), which is between -3 and 3, for one number with the z-score z."""

    def clipped(number: float) -> float:
        z = (number - mean) / std
        if not -STEEPEST < z < STEEPEST:
            z = STEEPEST if z > 0 else -STEEPEST
        return z / sqrt(1.0 + z * z / 9.0)

    return clipped


def all_clipped(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """z / sqrt(1 + z²/9) of z-scores (n,)."""
    z = np.clip(z, -STEEPEST, STEEPEST)
    return z / np.sqrt(1.0 + z * z / 9.0)


def hats(knots: Sequence[float], numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The hats of numbers (n,) at k knots, (k, n)."""
    at, inside = np.array(knots), np.clip(numbers, knots[0], knots[-1])
    right = np.clip(np.searchsorted(at, inside, side="right"), 1, len(at) - 1)
    share = (inside - at[right - 1]) / (at[right] - at[right - 1])
    encoded, rows = np.zeros((len(at), len(inside))), np.arange(len(inside))
    encoded[right - 1, rows], encoded[right, rows] = 1.0 - share, share
    return encoded


def row_hats(knots: Sequence[float], first: int) -> Callable[[float], tuple[int, int, float]]:
    """What gives, for one number, where the hats are of the two knots that it is between, and the second hat.

    The hats' positions are counted from `first`; the other hat is 1 less that, and all others are 0.
    """
    lowest, highest, end = knots[0], knots[-1], len(knots) - 1
    pieces = [(first, first, lowest, 0.0)]
    pieces += [
        (first + k, first + k + 1, left, right - left) for k, (left, right) in enumerate(pairwise(knots))
    ]

    def near(number: float) -> tuple[int, int, float]:
        inside = number if lowest < number < highest else lowest if number <= lowest else highest
        left_place, right_place, left, apart = pieces[bisect_right(knots, inside, 1, end)]
        return left_place, right_place, (inside - left) / apart

    return near


def check_knots(name: str, knots: Sequence[float], shares: Sequence[float]) -> None:
    """Raise ValueError unless knots ascend, at least two if any, and have as many shares, which sum to 1."""
    apart = [right - left for left, right in pairwise(knots)]
    if len(knots) == 1 or not all(0.0 < each < inf for each in apart):
        message = f"the knots of {name} are not two or more that ascend"
        raise ValueError(message)
    if len(shares) != len(knots) or (knots and abs(fsum(shares) - 1.0) > SUM_TOLERANCE):
        message = f"{name} has not a share for each knot, which sum to 1"
        raise ValueError(message)
