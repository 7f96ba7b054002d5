"""An additive model of encoded rows, by ridge regression: a curve for each number, a level for each category.

A number is encoded by hats: piecewise-linear functions at knots, of which two are not zero and sum to one.
Its curve is straight between the knots. The regression sees the rises from knot to knot (the piecewise-linear
encoding of Gorishniy, Rubachev and Babenko, On Embeddings for Numerical Features in Tabular Deep Learning,
2022) and penalises changes of slope, so that a great strength leaves nearly a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.columns import Matrix

STRENGTHS = np.logspace(-4, 4, 25)
UNIT = 0.01
STEEPNESS = 0.02


@dataclass(frozen=True)
class Layout:
    """What the encoded columns of one input are, in their order.

    First `scores` z-scores (none or one), then a hat for each of `knots`, then `others`: levels, marks. Knots
    are in units of the input's standard deviation and ascend; there are none or at least two.
    """

    scores: int = 0
    knots: tuple[float, ...] = ()
    others: int = 0


@dataclass(frozen=True)
class Additive:
    """A fitted additive model: inputs @ weights + bias.

    `weights` (k,) are for the encoded columns, 0 for the z-score of a number that has hats. `out_of_fold`
    (n,) are the predictions for each row by the fit that did not see its fold, of the same `strength`.
    """

    weights: Matrix
    bias: float
    out_of_fold: Matrix
    strength: float


class Ridge:
    """The ridge regressions of every strength on some rows, known by the sums of products of their columns.

    `moments` (p + 2, p + 2) has those of a one, p inputs and the target, each row's times its weight.
    """

    def __init__(self, moments: Matrix) -> None:
        self._rows = moments[0, 0]
        self._means = moments[0, 1:] / self._rows
        centred = moments[1:, 1:] - self._rows * np.outer(self._means, self._means)
        values, self._vectors = np.linalg.eigh(centred[:-1, :-1])
        self._values = np.maximum(values, 0)
        self._projected = self._vectors.T @ centred[:-1, -1]

    def errors(self, strengths: Matrix) -> Matrix:
        """What to multiply a one, the inputs and the target with for prediction - target: (p + 2, strengths).

        The bias and the weights of each strength, and a -1. They minimise the mean squared error plus
        0.01 · strength · the sum of the weights' squares.
        """
        shrunk = self._projected[:, None] / (self._values[:, None] + UNIT * self._rows * strengths)
        weights = self._vectors @ shrunk
        bias = self._means[-1] - self._means[:-1] @ weights
        return np.vstack([bias, weights, np.full(len(strengths), -1.0)])


def fit_additive(
    inputs: Matrix,
    target: Matrix,
    layouts: Sequence[Layout],
    labels: NDArray[np.intp],
    weights: Matrix | None = None,
) -> Additive:
    """Fit encoded inputs (n, k) to a target (n,), with the strength whose out-of-fold squared error is least.

    `layouts` say what the k columns are: without hats the model is the ridge line. Levels, marks and z-scores
    without hats are penalised alike. `labels` (n,) are the folds of the rows, 0, 1, 2 … of which none is
    empty. `weights` (n,) say how much each row's square counts; None: all alike.
    """
    basis = block_diagonal([smooth_block(layout) for layout in layouts])
    columns = np.column_stack([inputs @ basis, target])
    counts = np.ones(len(target)) if weights is None else weights
    means = columns.mean(axis=0)
    table = np.column_stack([np.ones(len(target)), columns - means])
    errors = held_out_errors(table, counts, labels)
    chosen = int(np.argmin(counts @ errors**2))
    line = Ridge(moments(table, counts)).errors(STRENGTHS[[chosen]])[:, 0]
    return Additive(
        weights=basis @ line[1:-1],
        bias=float(line[0] - means @ line[1:]),
        out_of_fold=target + errors[:, chosen],
        strength=float(STRENGTHS[chosen]),
    )


def held_out_errors(table: Matrix, counts: Matrix, labels: NDArray[np.intp]) -> Matrix:
    """The errors for each row of regressions on the rows of all other folds, by strength: (n, strengths).

    `table` (n, p + 2) has a one, the inputs and the target of each row, `counts` (n,) its weight.
    """
    everything = moments(table, counts)
    errors = np.empty((len(table), len(STRENGTHS)))
    for fold in range(int(labels.max()) + 1):
        held = labels == fold
        others = Ridge(everything - moments(table[held], counts[held]))
        errors[held] = table[held] @ others.errors(STRENGTHS)
    return errors


def moments(table: Matrix, counts: Matrix) -> Matrix:
    """The sums over n rows of the products of p + 2 columns, each row's times its count: (p + 2, p + 2)."""
    return (table.T * counts) @ table


def block_diagonal(blocks: Sequence[Matrix]) -> Matrix:
    """The matrix of these blocks along its diagonal."""
    ends = np.cumsum([block.shape for block in blocks], axis=0)
    matrix = np.zeros(ends[-1])
    for (row, column), block in zip(ends, blocks, strict=True):
        matrix[row - block.shape[0] : row, column - block.shape[1] : column] = block
    return matrix


def rising_block(layout: Layout) -> Matrix:
    """What turns the k columns of an input into the rises between its hats and the rest unchanged: (k, p).

    The rise from knot t to the next is full for the hats beyond it. So the weights of rises, multiplied by
    this, become the weights of the k columns: that of a hat is the sum of the rises before it.
    """
    hats = len(layout.knots)
    rises = np.tri(hats, max(hats - 1, 0), -1)
    return block_diagonal([np.eye(layout.scores), rises, np.eye(layout.others)])


def smooth_block(layout: Layout) -> Matrix:
    """The same in coordinates whose squares sum to the penalty, without a z-score beside hats: (k, p)."""
    block = rising_block(layout)
    if layout.knots:
        hats = slice(layout.scores, layout.scores + len(layout.knots) - 1)
        block[:, hats] = block[:, hats] @ np.linalg.inv(np.linalg.qr(roughness(layout.knots), mode="r"))
        block[:, : layout.scores] = 0
    return block


def roughness(knots: tuple[float, ...]) -> Matrix:
    """A matrix by which b rises become what is squared and summed in their penalty: (2 b - 1, b).

    It is the changes of slope from bin to bin, of which the mean counts, and a little of each rise; of the
    only rise of a number with two knots all, as of a level.
    """
    bins = len(knots) - 1
    slopes = np.diag(1 / np.diff(knots))
    little = np.sqrt(STEEPNESS) if bins > 1 else 1.0
    return np.vstack([np.diff(slopes, axis=0) / np.sqrt(bins), little * np.eye(bins)])
