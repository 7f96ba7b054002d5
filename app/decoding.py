"""From a request's bytes to columns, strictly: one decoder a version, made from its features.

A good request is decoded by the types in `schemas` alone. Only when those refuse it is the body parsed a
second time, by `faults`, to say everything that is wrong with it.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from operator import attrgetter
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET, Struct

from app.faults import batch_faults, single_row_faults
from app.refusals import Refused, unacceptable
from app.schemas import batch_type, row_type
from app.strict_json import count_of, has_plain_members, parse, refuse_malformed
from model_store.columns import Column, Feature, Row


class Decoder:
    """Decodes the bodies of `POST /predict` and `POST /predict/batch` for one version's features."""

    def __init__(self, features: Sequence[Feature], max_rows: int) -> None:
        row = row_type(features)
        self._features, self._max_rows = features, max_rows
        self._decode_row: Callable[[bytes], Struct] = msgspec.json.Decoder(row).decode
        self._decode_batch: Callable[[bytes], Any] = msgspec.json.Decoder(batch_type(features, row)).decode
        self._members = {feature.name: attrgetter(f"f{index}") for index, feature in enumerate(features)}
        self._texts = sum(feature.is_text for feature in features)
        self._quoted = len(features) + self._texts
        self._most_commas, self._most_braces = (max_rows * marks_a_row(features, mark) + 2 for mark in ",{")

    def row(self, body: bytes) -> Row:
        """The row's values in the features' order; raises Refused."""
        try:
            row = self._decode_row(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise unacceptable(single_row_faults(self._features, body)) from None
        if not has_plain_members(body, self._quoted):
            parse(body)
        return msgspec.structs.astuple(row)

    def batch(self, body: bytes) -> tuple[dict[str, Column], str]:
        """The rows as columns, in their order, and the JSON Pointer of row {}; raises Refused."""
        if count_of(b",", body) > self._most_commas:
            self._refuse_rows()
        if count_of(b"{", body) > self._most_braces:
            refuse_malformed(body)
            self._refuse_rows()
        try:
            batch = self._decode_batch(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise unacceptable(batch_faults(self._features, body)) from None
        if (batch.instances is UNSET) == (batch.columns is UNSET):
            raise unacceptable(batch_faults(self._features, body))
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
            raise unacceptable(batch_faults(self._features, body))
        count = counts.pop()
        if count > self._max_rows:
            self._refuse_rows()
        if not has_plain_members(body, names + self._texts * count):
            self._check_members(body)
        return {feature.name: feature.column(given[feature.name]) for feature in self._features}, pointer

    def _refuse_rows(self) -> NoReturn:
        """Raise Refused (413) for more rows than are answered at once."""
        detail = (
            f"A batch of at most {self._max_rows} rows, with known members only, is expected; "
            "a CSV may be of any length."
        )
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)

    def _check_members(self, body: bytes) -> None:
        """Raise Refused (400) if a batch that could be decoded has a member twice."""
        for _ in batch_faults(self._features, body):
            continue


def marks_a_row(features: Sequence[Feature], mark: str) -> int:
    """How often a brace or a comma is in a row at most, with the one that parts it from the next."""
    in_values = (
        max((value.count(mark) for value in feature.json_schema.get("enum", ())), default=0)
        for feature in features
    )
    own = 1 if mark == "{" else len(features)
    return own + sum(feature.name.count(mark) for feature in features) + sum(in_values)
