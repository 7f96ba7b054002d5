"""Encoded rows as tensors, in slices or in shuffled batches, and how far a network errs on them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.blocks import Blocks
from training.network import FeedForward

SLICE_ROWS = 65_536


@dataclass(frozen=True)
class Slice:
    """Some encoded rows: inputs (n, k), target (n, 1) and, where rows are weighted, weights (n, 1).

    The mean of the weights is 1 over all the rows that these are some of.
    """

    inputs: Tensor
    target: Tensor
    weights: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.target)

    def cost(self, network: FeedForward) -> Tensor:
        """The mean squared error of a network, each row's square times its weight: a tensor of shape ()."""
        if self.weights is None:
            return nn.functional.mse_loss(network(self.inputs), self.target)
        return self.mean((network(self.inputs) - self.target) ** 2)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values (n, 1), each times its row's weight: a tensor of shape ()."""
        mean: Tensor = (values if self.weights is None else self.weights * values).mean()
        return mean

    def equations(self) -> Tensor:
        """Inputs, a one and the target, (n, k + 2), each row times the root of its weight.

        Sums of squares over these rows are the weighted sums.
        """
        rows = torch.column_stack([self.inputs, torch.ones_like(self.target), self.target])
        return rows if self.weights is None else rows * self.weights.sqrt()

    def take(self, order: Tensor) -> "Slice":
        """The rows at the positions `order` (m,)."""
        weights = None if self.weights is None else self.weights[order]
        return Slice(self.inputs[order], self.target[order], weights)

    def in_slices(self, size: int) -> Iterator["Slice"]:
        """The rows in their order, `size` at a time; a rest joins the last, so that no row counts more."""
        sizes = [size] * (self.rows // size) or [0]
        sizes[-1] += self.rows - sum(sizes)
        weights = [None] * len(sizes) if self.weights is None else torch.split(self.weights, sizes)
        return map(Slice, torch.split(self.inputs, sizes), torch.split(self.target, sizes), weights)


class Rows:
    """Encoded rows as tensors, from blocks that hold the target in their last column."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._weights: Tensor | None = None
        if blocks.weights is not None:
            self._weights = torch.from_numpy(blocks.weights / blocks.weights.mean())
        self._kept = self._read(0) if blocks.in_memory else None
        self._slices = list(self._slice()) if blocks.in_memory else None

    def _read(self, index: int) -> Slice:
        values = torch.from_numpy(self._blocks[index])
        start = index * self._blocks.block_rows
        weights = None if self._weights is None else self._weights[start : start + len(values), None]
        return Slice(values[:, :-1].contiguous(), values[:, -1:].contiguous(), weights)

    def __getitem__(self, index: int) -> Slice:
        """The rows of a block."""
        return self._kept or self._read(index)

    def __iter__(self) -> Iterator[Slice]:
        """Those of all blocks in order."""
        return map(self.__getitem__, range(len(self._blocks)))

    def slices(self) -> Iterator[tuple[Slice, float]]:
        """All rows in slices that bound the memory of a forward pass, each with its share of the rows."""
        return iter(self._slices) if self._slices else self._slice()

    def _slice(self) -> Iterator[tuple[Slice, float]]:
        for block in self:
            for part in block.in_slices(SLICE_ROWS):
                yield part, part.rows / self._blocks.rows

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Slice]:
        """All rows in slices of `size`, the blocks in a new random order and so the rows of each."""
        for index in torch.randperm(len(self._blocks), generator=generator).tolist():
            block = self[index]
            yield from block.take(torch.randperm(block.rows, generator=generator)).in_slices(size)


@torch.no_grad()
def mean_squared_error(network: FeedForward, rows: Rows) -> float:
    """The cost of the network on all rows."""
    return math.fsum(share * part.cost(network).item() for part, share in rows.slices())
