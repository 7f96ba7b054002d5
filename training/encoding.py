"""A table as the network sees it: every row encoded, the target in the last column."""

from collections.abc import Iterator

import numpy as np

from model_store.columns import DateFeature, Feature, Matrix, NumericFeature, encode
from training.blocks import Blocks
from training.data import Table
from training.recipe import Recipe


def encode_table(recipe: Recipe, features: tuple[Feature, ...], table: Table) -> Blocks:
    """The table as the network sees it, (rows, total width + 1), the target or its logarithm last.

    The rows keep their weights.
    """
    width = sum(feature.width for feature in features) + 1
    return Blocks(encoded(recipe, features, table), width, table.blocks.weights)


def encoded(recipe: Recipe, features: tuple[Feature, ...], table: Table) -> Iterator[Matrix]:
    """Each block of n rows, encoded: (n, total width + 1)."""
    for block in table.blocks:
        target = np.log(block[:, -1]) if recipe.target.transform == "log" else block[:, -1]
        yield np.column_stack([encode(features, table.columns(block)), target])


def as_raw(feature: Feature) -> Feature:
    """The feature with statistics that leave its numbers as they are."""
    if isinstance(feature, NumericFeature | DateFeature):
        return feature.model_copy(update={"mean": 0.0, "std": 1.0})
    return feature


def as_z_score(feature: Feature) -> Feature:
    """The feature with its number as a z-score and no more."""
    if isinstance(feature, NumericFeature | DateFeature):
        plain = {"clip": False, "clipped_mean": None, "knots": (), "shares": ()}
        return feature.model_copy(update=plain)
    return feature


def encoded_moments(features: tuple[Feature, ...]) -> tuple[Matrix, Matrix]:
    """The mean and the std that `encode` takes off each of its columns, each (total width,)."""
    moments = [
        (feature.mean, feature.std)
        if place == 0 and isinstance(feature, NumericFeature | DateFeature)
        else (0.0, 1.0)
        for feature in features
        for place in range(feature.width)
    ]
    mean, std = np.array(moments).T
    return mean, std
