"""A tall float64 matrix, kept in memory while it is small and in a temporary file beyond that."""

import math
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from model_store.columns import Matrix

BLOCK_VALUES = 1_000_000


class Blocks:
    """Rows of equal width, to be gone over again and again in blocks of at most a million values (8 MB).

    A matrix of a single block stays in memory; a longer one is written to an unnamed file, which is gone
    with this object, so that the memory it takes does not grow with its length. `weights` (rows,), which stay
    in memory, say how much each row counts; None: all alike.
    """

    def __init__(self, pieces: Iterable[Matrix], width: int, weights: Matrix | None = None) -> None:
        self.width = width
        self.rows = 0
        self.weights = weights
        self.block_rows = max(BLOCK_VALUES // width, 1)
        self._memory = np.empty((0, width))
        self._file: IO[bytes] | None = None
        for block in regroup(pieces, width, self.block_rows):
            self._append(block)

    @property
    def in_memory(self) -> bool:
        """Whether there is at most one block, which stays in memory."""
        return self._file is None

    def _append(self, block: Matrix) -> None:
        if self.rows == 0:
            self._memory = block
        elif self._file is None:
            self._file = tempfile.TemporaryFile(prefix="plumbline-")  # noqa: SIM115  (closed with this object)
            weakref.finalize(self, self._file.close)
            self._memory.tofile(self._file)
            self._memory = np.empty((0, self.width))
        if self._file is not None:
            block.tofile(self._file)
        self.rows += len(block)

    def __len__(self) -> int:
        """How many blocks there are."""
        return math.ceil(self.rows / self.block_rows)

    def __getitem__(self, index: int) -> Matrix:
        """A block, of shape (at most a million / width, width)."""
        if self._file is None:
            return self._memory
        self._file.seek(index * self.block_rows * self.width * self._memory.itemsize)
        values = np.fromfile(self._file, np.float64, self.block_rows * self.width)
        return values.reshape(-1, self.width)

    def __iter__(self) -> Iterator[Matrix]:
        """All blocks in order."""
        return map(self.__getitem__, range(len(self)))

    def take(self, chosen: NDArray[np.bool_]) -> "Blocks":
        """The rows that a mask of shape (rows,) chooses."""
        weights = None if self.weights is None else self.weights[chosen]
        return Blocks(self._chosen(chosen), self.width, weights)

    def _chosen(self, chosen: NDArray[np.bool_]) -> Iterator[Matrix]:
        start = 0
        for block in self:
            yield block[chosen[start : start + len(block)]]
            start += len(block)


def regroup(pieces: Iterable[Matrix], width: int, rows: int) -> Iterator[Matrix]:
    """The same rows, from pieces (any number, width), in pieces of exactly `rows`, the last one shorter."""
    waiting, count = [np.empty((0, width))], 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece)
        if count >= rows:
            pending = np.concatenate(waiting)
            for start in range(0, count - count % rows, rows):
                yield pending[start : start + rows].copy()
            waiting, count = [pending[count - count % rows :].copy()], count % rows
    if count:
        yield np.concatenate(waiting)
