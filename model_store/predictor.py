"""The forward pass in numpy, and the checks that weights must pass before it runs.

All sums are added up in order, bias first, by + and × alone, so they have the same bits on every processor.
Inputs that are 0 may be left out of a sum: 0 · weight changes no bit of it unless it is -0.0, as no bias is.
tanh and exp (of a target's logarithm) are numpy's, whose last bits may differ from one processor to another.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model_store.columns import Columns, Matrix, Row, SparseInputs, encode, row_encoder
from model_store.errors import TensorsInvalid
from model_store.manifest import Description, Mlp

# As many rows at a time pass through a network as stay in the processor's cache with what is made of them.
ROWS_AT_ONCE = 1024
# numpy copies what it broadcasts unless its rows fill a buffer: then copying takes longer than the products.
SMALL_BUFFER = 128


@dataclass(frozen=True)
class Predictor:
    """A model that answers: `weights` are the tensors that `description.tensor_shapes` asks for."""

    description: Description
    weights: dict[str, Matrix]

    def predict(self, columns: Columns) -> Matrix:
        """Predict the target, in its own unit, for columns (n,) of accepted values: (n,), float64.

        The same row gives the same 64 bits alone and anywhere in a batch. An input far outside the
        training range may overflow to an infinity: the caller decides what that means. Raises KeyError
        for a missing column.
        """
        return self.description.target.untransformed(self.outputs(columns))

    def predict_encoded(self, encoded: Matrix) -> Matrix:
        """Predictions (n,) in the target's unit for rows that are encoded already, (n, width)."""
        return self.description.target.untransformed(self._forward(encoded))

    def outputs(self, columns: Columns) -> Matrix:
        """What the network gives for the rows, (n,): the prediction, or its logarithm if that was trained."""
        return self._forward(encode(self.description.features, columns))

    def row_output(self, row: Row) -> float:
        """What the network gives for one row, in the features' order: the same bits as `outputs`."""
        encoded = self._encode_row(row)
        if self._line is not None and isinstance(encoded, list):
            total: float = weighted_sum(*self._line, encoded)
            return total
        if isinstance(encoded, dict):
            return self._sparse_output(encoded)
        with np.errstate(over="ignore", invalid="ignore"):
            return float(self._through(np.asarray(encoded))[0])

    def _sparse_output(self, encoded: SparseInputs) -> float:
        """What the network gives for one row that is encoded but for zeros."""
        if self._line is not None:
            start, weights = self._line
            total: float = weighted_sum(start, map(weights.__getitem__, encoded), encoded)
            return total
        weight, bias = self._layers[0]
        places = np.fromiter(encoded, np.intp, len(encoded))
        inputs = np.fromiter(encoded.values(), np.float64, len(encoded))
        with np.errstate(over="ignore", invalid="ignore"):
            sums = affine_row(weight.take(places, axis=0), bias, inputs)
            return float(self._through(sums, after=1)[0])

    @cached_property
    def _encode_row(self) -> Callable[[Row], list[float] | Matrix | SparseInputs]:
        return row_encoder(self.description.features)

    @cached_property
    def _layers(self) -> list[tuple[Matrix, Matrix]]:
        """The weights (k, units) and the bias (units,), never -0.0, of every layer."""
        return [
            (np.ascontiguousarray(self.weights[f"{layer}.weight"].T), self.weights[f"{layer}.bias"] + 0.0)
            for layer in (f"layers.{index}" for index in range(len(self.description.network.layers)))
        ]

    @cached_property
    def _line(self) -> tuple[float, list[tuple[int, float]]] | None:
        """The bias and the numbered weights of a linear network."""
        if isinstance(self.description.network, Mlp):
            return None
        weights = self.weights["layers.0.weight"][0].tolist()
        return float(self.weights["layers.0.bias"][0]) + 0.0, list(enumerate(weights))

    def _forward(self, encoded: Matrix) -> Matrix:
        with np.errstate(over="ignore", invalid="ignore"):
            if self._line is not None:
                total: Matrix = weighted_sum(*self._line, encoded.T)
                return total
            np.setbufsize(SMALL_BUFFER)  # until errstate ends
            starts = range(0, max(len(encoded), 1), ROWS_AT_ONCE)
            return np.concatenate(
                [self._through(encoded[start : start + ROWS_AT_ONCE].T)[0] for start in starts]
            )

    def _through(self, activations: Matrix, after: int = 0) -> Matrix:
        """What the network gives for one encoded row, (width,), or for n, (width, n): (1,) or (1, n).

        Or for what the first layers give, if it is to go on `after` so many of them.
        """
        network, is_row = self.description.network, activations.ndim == 1
        for index, (weight, bias) in enumerate(self._layers[after:], after):
            if index and isinstance(network, Mlp):
                activations = activate(network, activations)
            if is_row:
                activations = affine_row(weight, bias, activations)
            else:
                activations = affine(weight.T, bias, activations)
        return activations


def weighted_sum(bias: float, weights: Iterable[tuple[int, float]], inputs: Any) -> Any:
    """weights · inputs + bias, added up in order: for inputs that are floats, or columns of shape (n,).

    The weights come with the numbers of their inputs.
    """
    total = bias
    for index, weight in weights:
        total = total + weight * inputs[index]
    return total


def affine(weight: Matrix, bias: Matrix, inputs: Matrix) -> Matrix:
    """weight · inputs + bias: (units, k) · (k, n) + (units, 1), summed over k in order.

    Not a BLAS product: its order of summation, and so the last bit, depends on the batch's size.
    """
    outputs = np.repeat(bias[:, np.newaxis], inputs.shape[1], axis=1)
    for index, row in enumerate(inputs):
        outputs += weight[:, index, np.newaxis] * row
    return outputs


def affine_row(weight: Matrix, bias: Matrix, inputs: Matrix) -> Matrix:
    """The bits of `affine` for one row: (k,) · (k, units) + (units,), where `weight` is C-contiguous."""
    if bias.size == 1:  # of a single column `reduce` would add up pairs
        products = weight[:, 0] * inputs
        products[0] += bias[0]
        running: Matrix = np.add.accumulate(products)
        return running[-1:]
    products = weight * inputs[:, np.newaxis]
    first = products[0]
    first += bias
    outputs: Matrix = np.add.reduce(products)
    return outputs


def activate(network: Mlp, values: Matrix) -> Matrix:
    """The network's activation, elementwise: any shape gives the same."""
    return np.maximum(values, 0.0) if network.activation == "relu" else np.tanh(values)


def dump_weights(weights: dict[str, Matrix]) -> bytes:
    """The bytes of `weights.safetensors`, from tensors of the shapes that the description asks for."""
    return save({name: np.ascontiguousarray(tensor) for name, tensor in weights.items()})


def load_weights(description: Description, content: bytes, path: str) -> dict[str, Matrix]:
    """Parse the bytes of `weights.safetensors`, which were read from `path`.

    Raises TensorsInvalid unless names and shapes are exactly those the network needs, all float64 and finite.
    """
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise TensorsInvalid(path, f"not a safetensors file ({error})") from None
    except KeyError as error:
        raise TensorsInvalid(path, f"it holds a tensor of type {error}, float64 is expected") from None
    shapes = description.tensor_shapes
    if tensors.keys() != shapes.keys():
        raise TensorsInvalid(path, f"it holds {sorted(tensors)} where {sorted(shapes)} are expected")
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name] or tensor.dtype != np.float64:
            raise TensorsInvalid(
                path, f"{name} is {tensor.dtype} {tensor.shape}, float64 {shapes[name]} is expected"
            )
        if not np.isfinite(tensor).all():
            raise TensorsInvalid(path, f"{name} is not finite")
    return tensors
