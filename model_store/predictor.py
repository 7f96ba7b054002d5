"""The forward pass in numpy, and the checks that weights must pass before it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model_store.columns import Columns, Matrix, Row, encode
from model_store.errors import TensorsInvalid
from model_store.manifest import Description, Mlp


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
        encoded: list[float] = []
        for index, is_one, encode_value in self._row_encoders:
            if is_one:
                encoded.append(encode_value(row[index]))
            else:
                encoded += encode_value(row[index])
        if self._line is None:
            return float(self._forward(np.array([encoded]))[0])
        total: float = weighted_sum(*self._line, encoded)
        return total

    @cached_property
    def _row_encoders(self) -> list[tuple[int, bool, Any]]:
        features = enumerate(self.description.features)
        return [(index, feature.width == 1, feature.row_encoder()) for index, feature in features]

    @cached_property
    def _line(self) -> tuple[float, list[tuple[int, float]]] | None:
        """The bias and the numbered weights of a linear network."""
        if isinstance(self.description.network, Mlp):
            return None
        weights = self.weights["layers.0.weight"][0].tolist()
        return float(self.weights["layers.0.bias"][0]), list(enumerate(weights))

    def _forward(self, encoded: Matrix) -> Matrix:
        network = self.description.network
        with np.errstate(over="ignore", invalid="ignore"):
            if self._line is not None:
                total: Matrix = weighted_sum(*self._line, encoded.T)
                return total
            activations = encoded.T
            for index in range(len(network.layers)):
                if index and isinstance(network, Mlp):
                    activations = activate(network, activations)
                weight, bias = self.weights[f"layers.{index}.weight"], self.weights[f"layers.{index}.bias"]
                activations = affine(weight, bias, activations)
            predictions: Matrix = activations[0]
            return predictions


def weighted_sum(bias: float, weights: Sequence[tuple[int, float]], inputs: Any) -> Any:
    """weights · inputs + bias, added up in order: for inputs that are floats, or columns of shape (n,)."""
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
