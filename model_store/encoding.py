"""The one encoder: from raw columns to the matrix the network sees.

Training and serving both call `encode`, so the two cannot drift apart. Every operation is elementwise, which
makes a row's 64 bits independent of the rows around it.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.manifest import CategoricalFeature, Feature, NumericFeature

Matrix: TypeAlias = NDArray[np.float64]
Column: TypeAlias = Sequence[float | str | None] | Matrix
Columns: TypeAlias = Mapping[str, Column]


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
    z: Matrix = (x.astype(np.float64, copy=False) - feature.mean) / feature.std
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
            rows = np.flatnonzero((values < feature.minimum) | (values > feature.maximum))
            if rows.size:
                outside[feature.name] = rows.tolist()
    return outside
