"""From a request's bytes to columns, strictly: one decoder a version, made from its features.

A good request is decoded by the types in `schemas` alone. Only when those refuse it is the body parsed a
second time, by `faults`, to say everything that is wrong with it.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from app import faults
from app.schemas import batch_type, row_type
from model_store.encoding import Column
from model_store.manifest import CategoricalFeature, Feature


class Decoder:
    """Decodes the bodies of `POST /predict` and `POST /predict/batch` for one version's features."""

    def __init__(self, features: Sequence[Feature]) -> None:
        row = row_type(features)
        self._features = features
        self._decode_row: Callable[[bytes], Struct] = msgspec.json.Decoder(row).decode
        self._decode_batch: Callable[[bytes], Any] = msgspec.json.Decoder(batch_type(features, row)).decode
        self._members = {feature.name: attrgetter(f"f{index}") for index, feature in enumerate(features)}
        self._texts = sum(isinstance(feature, CategoricalFeature) for feature in features)

    def row(self, body: bytes) -> dict[str, Column]:
        """The row as columns of one value each; raises Refused."""
        try:
            row = self._decode_row(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            faults.refuse(self._features, body, faults.row_faults)
        check_members(body, names=len(self._members), texts=self._texts)
        return self._columns([row])

    def batch(self, body: bytes) -> dict[str, Column]:
        """The rows as columns, in their order; raises Refused."""
        try:
            batch = self._decode_batch(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            faults.refuse(self._features, body, faults.batch_faults)
        if (batch.instances is UNSET) == (batch.columns is UNSET):
            faults.refuse(self._features, body, faults.batch_faults)
        if batch.columns is UNSET:
            columns = self._columns(batch.instances)
            names = 1 + len(columns) * len(batch.instances)
        else:
            columns = {name: member(batch.columns) for name, member in self._members.items()}
            names = 1 + len(columns)
        rows = {len(values) for values in columns.values()}
        if len(rows) > 1:
            faults.refuse(self._features, body, faults.batch_faults)
        check_members(body, names, texts=self._texts * rows.pop())
        return columns

    def _columns(self, rows: Sequence[Struct]) -> dict[str, Column]:
        return {name: [member(row) for row in rows] for name, member in self._members.items()}


def check_members(body: bytes, names: int, texts: int) -> None:
    """Raise Refused if a decoded body has a member twice, which the decoder overlooks.

    Every member is known and there, so only one that comes twice, or an escaped quote, can leave more
    quotes in the body than its names and texts need. The careful parse tells the two apart.
    """
    if body.count(b'"') != 2 * (names + texts):
        faults.parse(body)
