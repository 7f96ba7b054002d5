"""The line with the least mean squared error, solved for exactly."""

import torch
from torch import Tensor

from training.blocks import Blocks
from training.descent import Fitted
from training.network import FeedForward
from training.rows import Rows, mean_squared_error


def solve(network: FeedForward, data: Blocks) -> Fitted:
    """Set a linear network's weights to the optimum for encoded rows, the target in their last column."""
    rows = Rows(data)
    history = [mean_squared_error(network, rows)]
    network.set_line(least_squares(data))
    history.append(mean_squared_error(network, rows))
    return Fitted(network, tuple(history))


def least_squares(data: Blocks) -> Tensor:
    """The weights, the bias last, that minimise the mean squared error of a line exactly; shape (k + 1,).

    Of several optima the shortest. Tables of several slices are first reduced to a triangle with the same
    normal equations, slice by slice (Golub and Van Loan, Matrix Computations, section 5.3).
    """
    triangle: Tensor | None = None
    for part, _ in Rows(data).slices():
        rows = part.equations()
        triangle = rows if triangle is None else reduce_rows(rows, triangle)
    assert triangle is not None
    weights: Tensor = torch.linalg.lstsq(triangle[:, :-1], triangle[:, -1:], driver="gelsd").solution
    return weights[:, 0]


def reduce_rows(rows: Tensor, triangle: Tensor) -> Tensor:
    """The triangular factor, (at most k + 2, k + 2), of rows (n, k + 2) stacked under the triangle so far."""
    factor: Tensor = torch.linalg.qr(torch.cat([triangle, rows]), mode="r").R
    return factor
