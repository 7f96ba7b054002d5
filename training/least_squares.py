"""The line with the least mean squared error, solved for, and how well its rows determine it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.blocks import Blocks
from training.descent import Fitted
from training.network import FeedForward
from training.rows import Rows, Slice, mean_squared_error

# Of centred columns of length 1: one-hot columns, which depend on one another exactly, come out at up to
# 3e-13, and a line that hung on less would carry the rounding of its inputs into its fifth digit.
LEAST_SINGULAR = 1e-11
# A weight moves with a combination of columns of which it is a larger part.
FREE = 1e-6


@dataclass(frozen=True)
class Line(Fitted):
    """The least-squares line of `rows` rows through k encoded columns.

    `rank` is how many of its k weights and the bias the rows determine, `condition` the ratio of the greatest
    to the least of the singular values that do, of the centred columns, each divided by its length. `free`
    (k, k + 1 - rank) are orthonormal combinations of the columns so divided that are constant but for
    rounding. `errors` (k + 1,) are the standard errors of the weights, the bias's last: NaN for one that the
    rows do not determine, and for all where the rows are no more than the rank.
    """

    rows: int
    rank: int
    condition: float
    free: Tensor
    errors: Tensor


def solve(network: FeedForward, data: Blocks) -> Line:
    """Set a linear network's weights to the optimum for encoded rows, the target in their last column.

    The standard errors are those of ordinary least squares: the roots of the diagonal of s² (XᵀX)⁻¹, where s²
    is the residual sum of squares divided by rows - rank (Seber and Lee, Linear Regression Analysis, 2003,
    section 3.3). Where rows are weighted, both are of rows multiplied by the roots of their weights.
    """
    rows = Rows(data)
    design = Design(rows)
    history = [mean_squared_error(network, rows)]
    network.set_line(design.weights())
    history.append(mean_squared_error(network, rows))
    spare = data.rows - design.rank
    deviation = math.sqrt(history[-1] * data.rows / spare) if spare > 0 else math.nan
    return Line(
        network,
        tuple(history),
        rows=data.rows,
        rank=design.rank,
        condition=design.condition,
        free=design.free,
        errors=deviation * design.unit_errors(),
    )


def least_squares(data: Blocks) -> Tensor:
    """The weights, the bias last, that minimise the mean squared error of a line; shape (k + 1,).

    Of several optima the shortest, each weight multiplied by the length of its centred column; so are those
    that differ in less than LEAST_SINGULAR.
    """
    return Design(Rows(data)).weights()


class Design:
    """Encoded rows, the target in their last column, as the singular values of their k centred columns.

    The columns are divided by their lengths, so that neither the solution nor the rank depends on units.
    """

    def __init__(self, rows: Rows) -> None:
        shift, triangle = reduce_table(rows)
        self._root_of_weight = float(triangle[0, 0])
        self._means = shift + triangle[0, 1:] / triangle[0, 0]
        centred, self._target = triangle[1:, 1:-1], triangle[1:, -1]
        lengths = centred.norm(dim=0)
        self._lengths = torch.where(lengths > 0, lengths, 1.0)
        self._left, values, right = torch.linalg.svd(centred / self._lengths)
        count = int((values > LEAST_SINGULAR * values.amax()).sum())
        self._values, self._right, self.free = values[:count], right[:count].T, right[count:].T
        self.rank = count + 1
        self.condition = float(self._values[0] / self._values[-1]) if count else 1.0

    def weights(self) -> Tensor:
        """The weights of the least-squares line, the bias last, (k + 1,)."""
        projected = self._left[:, : len(self._values)].T @ self._target
        weights = self._right @ (projected / self._values) / self._lengths
        bias = self._means[-1] - self._means[:-1] @ weights
        return torch.cat([weights, bias[None]])

    def unit_errors(self) -> Tensor:
        """The standard errors of the weights and of the bias, (k + 1,), for residuals of variance 1.

        NaN for one that changes along a free combination of the columns.
        """
        means, of_ones = self._means[:-1] / self._lengths, 1 / abs(self._root_of_weight)
        spread = self._right / self._values
        weights = spread.norm(dim=1) / self._lengths
        bias = math.hypot(float((means @ spread).norm()), of_ones)
        moves = self.free.norm(dim=1) > FREE
        bias_moves = float((means @ self.free).norm()) > FREE * math.hypot(float(means.norm()), of_ones)
        errors = torch.where(moves, math.nan, weights)
        return torch.cat([errors, torch.tensor([math.nan if bias_moves else bias], dtype=errors.dtype)])


def reduce_table(rows: Rows) -> tuple[Tensor, Tensor]:
    """A number for each input and the target, (k + 1,), and the triangle of a one and what is left of them.

    The triangle, (at most k + 2, k + 2), has the normal equations of the rows less those numbers, each row
    times the root of its weight. The numbers are the means of the first slice, near enough to those of all
    rows to keep the digits of what is left; the ones, which come first, take off the rest. Later slices are
    stacked under the triangle (Golub and Van Loan, Matrix Computations, section 5.3).
    """
    first, _ = next(rows.slices())
    shift = torch.cat([first.inputs, first.target], dim=1).mean(dim=0)
    triangle = shift.new_empty((0, len(shift) + 1))
    for part, _ in rows.slices():
        left = Slice(part.inputs - shift[:-1], part.target - shift[-1], part.weights).equations()
        ones_first = torch.cat([left[:, -2:-1], left[:, :-2], left[:, -1:]], dim=1)
        triangle = torch.linalg.qr(torch.cat([triangle, ones_first]), mode="r").R
    return shift, triangle
