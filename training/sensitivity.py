"""How far single weights of a network, and its inputs, move what it gives for a row."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.columns import Matrix
from training.network import FeedForward

Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Passage:
    """n rows in a network: what enters each layer, (n, its inputs), and the output's slope by that."""

    entering: list[Tensor]
    slopes: list[Tensor]

    @classmethod
    def of(cls, network: FeedForward, encoded: Matrix) -> "Passage":
        """That of encoded rows (n, inputs)."""
        entering = [torch.tensor(encoded, requires_grad=True)]
        for layer in network.hidden:
            entering.append(network.activation(layer(entering[-1])))
        slopes = torch.autograd.grad(network.ends[1](entering[-1]).sum(), entering)
        return cls([values.detach() for values in entering], list(slopes))


def input_effects(network: FeedForward, encoded: Matrix) -> Matrix:
    """How steeply the output for each of n rows (n, inputs) changes with each input: (n, inputs)."""
    steepness: Matrix = Passage.of(network, encoded).slopes[0].abs().numpy()
    return steepness


@torch.no_grad()
def weight_effects(network: FeedForward, encoded: Matrix, asked: Mask) -> Matrix:
    """How far the output for n rows (n, inputs) moves without each of the weights asked for: (n, asked).

    What becomes of the weight's own unit is exact, also where that goes off; what this does to the output is
    taken to first order. A unit that is off shows nothing: there a somewhat other weight would do
    as well. `asked` (weights,) has the weights layer by layer, in a layer unit by
    unit, the unit's bias last.
    """
    with torch.enable_grad():
        passage = Passage.of(network, encoded)
    effects, start = [], 0
    for index, layer in enumerate((*network.hidden, network.ends[1])):
        weights = torch.column_stack([layer.weight, layer.bias])
        units, inputs = asked[start : start + weights.numel()].reshape(weights.shape).nonzero()
        entering = passage.entering[index]
        part = weights[units, inputs] * torch.column_stack([entering, torch.ones(len(entering))])[:, inputs]
        if index < len(network.hidden):
            without = network.activation(layer(entering)[:, units] - part)
            activation = passage.entering[index + 1][:, units]
            part = (without - activation) * (activation != 0) * passage.slopes[index + 1][:, units]
        effects.append(part.abs().numpy())
        start += weights.numel()
    return np.concatenate(effects, axis=1)
