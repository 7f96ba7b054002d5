"""The one encoder: from raw columns, or one raw row, to what the network sees.

Training and serving both call it, so the two cannot drift apart. Every operation is elementwise, which makes
a row's 64 bits independent of the rows around it; each rule is written once, for a float and for an array.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.manifest import CategoricalFeature, Feature, NumericFeature

Matrix: TypeAlias = NDArray[np.float64]
Column: TypeAlias = Sequence[float | str | None] | Matrix
Columns: TypeAlias = Mapping[str, Column]
Row: TypeAlias = Sequence[float | str | None]


def encode(features: Sequence[Feature], columns: Columns) -> Matrix:
    """Encode raw columns, one of n values for every feature, as the network's input.

    Numbers become z-scores with the feature's training mean and std, categories become one-hot columns.
    The result has shape (n, total width), float64, column-major, in the features' order. Raises KeyError
    for a missing column or an unknown category, ValueError for text where a number is due.
    """
    planes: list[Matrix] = []
    for feature in features:
        if isinstance(feature, NumericFeature):
            planes.append(z_scores(feature, columns[feature.name]))
        else:
            planes.extend(one_hot(feature, columns[feature.name]))
    return np.stack(planes).T


class RowEncoder:
    """Encodes raw rows one by one, with the bits that `encode` has for them; made once from the features."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._steps = [
            (index, feature.values, 0.0, 0.0, None)
            if isinstance(feature, CategoricalFeature)
            else (index, None, feature.mean, feature.std, feature.fill)
            for index, feature in enumerate(features)
        ]

    def encode(self, row: Row) -> list[float]:
        """The row, its values in the features' order, as the network's inputs."""
        encoded: list[float] = []
        for index, known, mean, std, fill in self._steps:
            value = row[index]
            if known is None:
                encoded.append(standardised(fill if value is None else value, mean, std))
            else:
                encoded += [float(value == category) for category in known]
        return encoded


def standardised(x: Any, mean: float, std: float) -> Any:
    """(x - mean) / std with a feature's training statistics."""
    return (x - mean) / std


def z_scores(feature: NumericFeature, values: Column) -> Matrix:
    """(x - mean) / std, shape (n,), the feature's `fill` in place of a missing x (None or NaN)."""
    x = np.asarray(values)
    if feature.fill is not None and x.dtype == object:
        x = np.array([np.nan if value is None else value for value in values])
    if x.dtype.kind not in "fiu":
        message = f"{feature.name} is not numeric"
        raise ValueError(message)
    if feature.fill is not None:
        x = np.where(np.isnan(x), feature.fill, x)
    z: Matrix = standardised(x.astype(np.float64, copy=False), feature.mean, feature.std)
    return z


def one_hot(feature: CategoricalFeature, values: Column) -> Matrix:
    """1.0 where the row has the category, shape (categories, n)."""
    position = {value: index for index, value in enumerate(feature.values)}
    known = np.array([position[str(value)] for value in values], dtype=np.intp)
    planes = np.zeros((feature.width, len(known)))
    planes[known, np.arange(len(known))] = 1.0
    return planes


def out_of_range(features: Sequence[Feature], columns: Columns) -> dict[str, list[int]]:
    """The rows at which a number lies outside the feature's training range, by feature; none, no entry."""
    outside: dict[str, list[int]] = {}
    for feature in features:
        if isinstance(feature, NumericFeature):
            values = np.asarray(columns[feature.name], dtype=np.float64)
            rows = np.flatnonzero(is_beyond(values, feature.minimum, feature.maximum))
            if rows.size:
                outside[feature.name] = rows.tolist()
    return outside


class RowRanges:
    """Tells of raw rows one by one what `out_of_range` tells of them; made once from the features."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._ranges = [
            (index, feature.name, feature.minimum, feature.maximum)
            for index, feature in enumerate(features)
            if isinstance(feature, NumericFeature)
        ]

    def outside(self, row: Row) -> list[str]:
        """The features whose number, in a row in the features' order, lies outside the training range."""
        return [
            name
            for index, name, minimum, maximum in self._ranges
            if row[index] is not None and is_beyond(row[index], minimum, maximum)
        ]


def is_beyond(x: Any, minimum: float, maximum: float) -> Any:
    """Whether x lies outside a feature's training range."""
    return (x < minimum) | (x > maximum)
