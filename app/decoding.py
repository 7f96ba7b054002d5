"""From a request's bytes to columns, strictly: one decoder a version, made from its features.

A good request is decoded by the types in `schemas` alone. Only when those refuse it is the body parsed a
second time, by `faults`, to say everything that is wrong with it.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct

from app import faults
from app.schemas import batch_type, row_type
from model_store.encoding import Column, Row
from model_store.manifest import CategoricalFeature, Feature


class Decoder:
    """Decodes the bodies of `POST /predict` and `POST /predict/batch` for one version's features."""

    def __init__(self, features: Sequence[Feature], max_rows: int) -> None:
        row = row_type(features)
        self._features, self._max_rows = features, max_rows
        self._decode_row: Callable[[bytes], Struct] = msgspec.json.Decoder(row).decode
        self._decode_batch: Callable[[bytes], Any] = msgspec.json.Decoder(batch_type(features, row)).decode
        self._members = {feature.name: attrgetter(f"f{index}") for index, feature in enumerate(features)}
        self._texts = sum(isinstance(feature, CategoricalFeature) for feature in features)
        self._quoted = len(features) + self._texts
        self._most_commas, self._most_braces = (max_rows * marks_a_row(features, mark) + 2 for mark in ",{")

    def row(self, body: bytes) -> Row:
        """The row's values in the features' order; raises Refused."""
        try:
            row = self._decode_row(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            faults.refuse(faults.single_row_faults(self._features, body))
        if not faults.has_plain_members(body, self._quoted):
            faults.parse(body)
        return msgspec.structs.astuple(row)

    def batch(self, body: bytes) -> tuple[dict[str, Column], str]:
        """The rows as columns, in their order, and the JSON Pointer of row {}; raises Refused."""
        if faults.count(body, b",") > self._most_commas:
            faults.refuse_rows(self._max_rows)
        if faults.count(body, b"{") > self._most_braces:
            faults.refuse_malformed(body)
            faults.refuse_rows(self._max_rows)
        try:
            batch = self._decode_batch(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            faults.refuse(faults.batch_faults(self._features, body))
        if (batch.instances is UNSET) == (batch.columns is UNSET):
            faults.refuse(faults.batch_faults(self._features, body))
        if batch.columns is UNSET:
            rows, pointer = batch.instances, "/instances/{}"
            given = {name: list(map(member, rows)) for name, member in self._members.items()}
            names = 1 + len(given) * len(rows)
        else:
            given = {name: member(batch.columns) for name, member in self._members.items()}
            pointer = "/columns"
            names = 1 + len(given)
        counts = {len(values) for values in given.values()}
        if len(counts) > 1:
            faults.refuse(faults.batch_faults(self._features, body))
        count = counts.pop()
        if count > self._max_rows:
            faults.refuse_rows(self._max_rows)
        if not faults.has_plain_members(body, names + self._texts * count):
            faults.check_members(self._features, body)
        return {feature.name: column(feature, given[feature.name]) for feature in self._features}, pointer


def column(feature: Feature, values: Sequence[float | str | None]) -> Column:
    """The values of one feature, numbers as an array (n,) with NaN for a missing one."""
    return values if isinstance(feature, CategoricalFeature) else np.array(values, dtype=np.float64)


def marks_a_row(features: Sequence[Feature], mark: str) -> int:
    """How often a brace or a comma is in a row at most, with the one that parts it from the next."""
    in_values = (
        max(value.count(mark) for value in feature.values)
        for feature in features
        if isinstance(feature, CategoricalFeature)
    )
    own = 1 if mark == "{" else len(features)
    return own + sum(feature.name.count(mark) for feature in features) + sum(in_values)
