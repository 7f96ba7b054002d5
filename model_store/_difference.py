"""What differs between two versions: weights, statistics, scores and how they were trained."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.columns import Matrix
from model_store.manifest import WEIGHTS, Linear
from model_store.versions import Version

COMPARED = ("target", "features", "network", "metrics", "interval", "training")
Value = float | int | str | bool | None


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same, by its dotted name; None where a version does not have it."""

    what: str
    version: Value
    against: Value

    @property
    def change(self) -> float | None:
        """How much more the version has than the other, if both are numbers."""
        if isinstance(self.version, bool) or isinstance(self.against, bool):
            return None
        if isinstance(self.version, (int, float)) and isinstance(self.against, (int, float)):
            change = self.version - self.against
            return change if math.isfinite(change) else None
        return None


def differences(version: Version, against: Version) -> list[Difference]:
    """Everything that differs, the weights first."""
    ours, theirs = facts(version), facts(against)
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [
        Difference(name, ours.get(name), theirs.get(name))
        for name in names
        if ours.get(name) != theirs.get(name)
    ]


def facts(version: Version) -> dict[str, Value]:
    """The weights and every compared part of the manifest as names and plain values."""
    document = version.manifest.model_dump(mode="json", include=set(COMPARED))
    return dict(weights(version)) | {
        name: value for part in COMPARED for name, value in flattened(part, document[part])
    }


def weights(version: Version) -> Iterator[tuple[str, Value]]:
    """A linear model's weights, one for each encoded column, or the size of each of a network's tensors."""
    tensors = version.predictor.weights
    if isinstance(version.manifest.network, Linear):
        yield "bias", float(tensors["layers.0.bias"][0])
        columns = encoded_columns(version)
        yield from zip(
            (f"weight of {name}" for name in columns), tensors["layers.0.weight"][0].tolist(), strict=True
        )
        return
    yield "weights, SHA-256", version.manifest.files[WEIGHTS].sha256
    for name, tensor in sorted(tensors.items()):
        yield f"{name} {list(tensor.shape)}, root mean square", root_mean_square(tensor)


def root_mean_square(tensor: Matrix) -> float:
    """The square root of the mean square of a tensor of any shape, also where squares overflow or vanish."""
    largest = float(np.abs(tensor).max())
    return largest * float(np.sqrt(np.mean((tensor / largest) ** 2))) if largest else 0.0


def encoded_columns(version: Version) -> Iterator[str]:
    """The name of each column that reaches the network."""
    for feature in version.manifest.features:
        yield from feature.labels


def flattened(name: str, value: Any) -> Iterator[tuple[str, Value]]:
    """Nested JSON as dotted names; a part that has a name or a value is called by it, not by its position."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flattened(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            label = inner.get("name", inner.get("value", index)) if isinstance(inner, dict) else index
            yield from flattened(f"{name}.{label}", inner)
    else:
        yield name, value
