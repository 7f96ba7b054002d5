"""From a request's bytes to columns, strictly: one decoder a version, made from its features.

A good request is decoded by the types in `schemas` alone. Only when those refuse it is the body parsed a
second time, by `faults`, to say everything that is wrong with it.
"""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET, Struct

from app.faults import batch_faults, single_row_faults
from app.refusals import Refused, unacceptable
from app.schemas import batch_type, columns_of, row_type, texts_in
from app.strict_json import count_of, has_plain_members, parse, refuse_malformed
from model_store.columns import Column, Feature, Row


class Decoder:
    """Decodes the bodies of `POST /predict` and `POST /predict/batch` for one version's features."""

    def __init__(self, features: Sequence[Feature], max_rows: int) -> None:
        row = row_type(features)
        self._features, self._max_rows = features, max_rows
        self._decode_row: Callable[[bytes], Struct] = msgspec.json.Decoder(row).decode
        self._decode_batch: Callable[[bytes], Any] = msgspec.json.Decoder(batch_type(features, row)).decode
        self._quoted = len(features) + sum(feature.is_text for feature in features)
        self._unsure = [
            (index, feature.accepts) for index, feature in enumerate(features) if not feature.type_decides
        ]
        self._nullable_texts = [
            index for index, feature in enumerate(features) if feature.is_text and feature.accepts(None)
        ]
        self._most_commas, self._most_braces = (max_rows * marks_a_row(features, mark) + 2 for mark in ",{")

    def row(self, body: bytes) -> Row:
        """The row's values in the features' order; raises Refused (400, 422)."""
        try:
            row: Row = msgspec.structs.astuple(self._decode_row(body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise unacceptable(single_row_faults(self._features, body)) from None
        if self._unsure and not all(accepts(row[index]) for index, accepts in self._unsure):
            raise unacceptable(single_row_faults(self._features, body))
        quoted = self._quoted
        if self._nullable_texts:
            quoted -= sum(row[index] is None for index in self._nullable_texts)
        if not has_plain_members(body, quoted):
            parse(body)
        return row

    def batch(self, body: bytes) -> tuple[dict[str, Column], str]:
        """The rows as columns (n,), in their order, and the JSON Pointer of row {}.

        Raises Refused (400, 413, 422).
        """
        if count_of(b",", body) > self._most_commas:
            self._refuse_rows()
        if count_of(b"{", body) > self._most_braces:
            refuse_malformed(body)
            self._refuse_rows()
        try:
            batch = self._decode_batch(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._refused(body) from None
        if (batch.instances is UNSET) == (batch.columns is UNSET):
            raise self._refused(body)
        if batch.columns is UNSET:
            given, pointer = columns_of(self._features, batch.instances), "/instances/{}"
            names = 1 + len(given) * len(batch.instances)
        else:
            values = msgspec.structs.astuple(batch.columns)
            given = {feature.name: column for feature, column in zip(self._features, values, strict=True)}
            names, pointer = 1 + len(given), "/columns"
        counts = {len(values) for values in given.values()}
        if len(counts) > 1:
            raise self._refused(body)
        if counts.pop() > self._max_rows:
            self._refuse_rows()
        if not has_plain_members(body, names + texts_in(self._features, given)):
            self._check_members(body)
        return {feature.name: self._column(feature, given, body) for feature in self._features}, pointer

    def _column(self, feature: Feature, given: Mapping[str, list[Any]], body: bytes) -> Column:
        """A feature's column; raises Refused for what its type let through."""
        if feature.type_decides:
            return feature.column(given[feature.name])
        reading = feature.read(given[feature.name])
        if reading.refused.size:
            raise self._refused(body)
        return reading.column

    def _refused(self, body: bytes) -> Refused:
        """What is raised (422) for a batch that can be read, but has faults."""
        return unacceptable(batch_faults(self._features, body))

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


def marks_a_row(features: Sequence[Feature], mark: str) -> float:
    """How often a brace or a comma is in a row at most, with the one that parts it from the next."""
    own = 1 if mark == "{" else len(features)
    return own + sum(feature.name.count(mark) + feature.most(mark) for feature in features)
