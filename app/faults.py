"""Everything that is wrong with a refused request, each fault with its JSON Pointer and what was expected.

Nothing here runs for a good request. A fault never repeats what was sent.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import msgspec

from app.refusals import Fault
from app.schemas import at_least_one, columns_of, row_type, texts_in, value_type
from app.strict_json import (
    LARGE,
    TOO_LONG,
    has_plain_members,
    items_of,
    members_of,
    opened,
    parse,
)
from model_store.columns import Feature, listed

EITHER = "an object with just one member is expected, either 'instances' or 'columns'"
LONGEST_NAME = 200
RUN = 1000


def single_row_faults(features: Sequence[Feature], body: bytes) -> Iterator[Fault]:
    """The faults of a body that should be one row; raises Refused as `parse` does."""
    if len(body) > LARGE:
        members_of(body, [feature.name for feature in features])
    return row_faults(features, opened(body))


def row_faults(features: Sequence[Feature], row: Any, pointer: str = "") -> Iterator[Fault]:
    """The faults of one row."""
    if row is TOO_LONG:
        yield Fault(pointer, f"a row of at most {LARGE} bytes is expected")
        return
    yield from member_faults(features, row, pointer)
    if isinstance(row, dict):
        for feature in features:
            if feature.name in row and not feature.accepts(row[feature.name]):
                yield Fault(f"{pointer}/{escape(feature.name)}", expected(feature, row[feature.name]))


def expected(feature: Feature, refused: object) -> str:
    """What a feature takes, and what a value that it refuses may have meant."""
    return f"{feature.takes} is expected{feature.hint(refused)}"


def batch_faults(features: Sequence[Feature], body: bytes) -> Iterator[Fault]:
    """The faults of many rows, given as `instances` or as `columns`; raises Refused as `parse` does."""
    batch = parse(body) if len(body) <= LARGE else outline(body, features)
    if not isinstance(batch, dict) or batch.keys() not in ({"instances"}, {"columns"}):
        yield Fault("", EITHER)
    elif "columns" in batch:
        yield from columns_faults(features, batch["columns"])
    elif not isinstance(batch["instances"], list) or not batch["instances"]:
        yield Fault("/instances", "an array of at least one row is expected")
    else:
        rows = msgspec.json.Decoder(at_least_one(row_type(features))).decode
        run = Run(features, lambda content: columns_of(features, rows(content)), len(features))
        for index, row in suspects(batch["instances"], run):
            yield from row_faults(features, row, f"/instances/{index}")


def columns_faults(features: Sequence[Feature], columns: Any) -> Iterator[Fault]:
    """The faults of rows given as columns."""
    yield from member_faults(features, columns, "/columns")
    given = [feature for feature in features if isinstance(columns, dict) and feature.name in columns]
    lengths: set[int] = set()
    for feature in given:
        pointer, values = f"/columns/{escape(feature.name)}", columns[feature.name]
        if not isinstance(values, list) or not values:
            yield Fault(pointer, "an array of at least one value is expected")
        if isinstance(values, list):
            lengths.add(len(values))
            for index, value in suspects(values, run_of_values(feature)):
                if not feature.accepts(value):
                    yield Fault(f"{pointer}/{index}", expected(feature, value))
    if len(lengths) > 1:
        found = f"these have {min(lengths)} to {max(lengths)} values"
        yield Fault("/columns", f"columns of equal length are expected, {found}")


@dataclass(frozen=True)
class Run:
    """How good items of one form look: decoded to columns of the features, with so many names an item."""

    features: Sequence[Feature]
    decode: Callable[[bytes], dict[str, list[Any]]]
    names: int

    def is_good(self, items: Sequence[bytes]) -> bool:
        """Whether all of the items can be answered."""
        content = b"[" + b",".join(items) + b"]"
        try:
            columns = self.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        unsure = (feature for feature in self.features if not feature.type_decides)
        if any(feature.read(columns[feature.name]).refused.size for feature in unsure):
            return False
        return has_plain_members(content, self.names * len(items) + texts_in(self.features, columns))


def run_of_values(feature: Feature) -> Run:
    """How good values of a feature look."""
    values = msgspec.json.Decoder(at_least_one(value_type(feature))).decode
    return Run([feature], lambda content: {feature.name: values(content)}, 0)


def suspects(items: list[Any], run: Run) -> Iterator[tuple[int, Any]]:
    """The items, parsed, with their positions, but for those of `outline` that look good."""
    for start in range(0, len(items), RUN):
        some = items[start : start + RUN]
        if not isinstance(some[0], bytes):
            yield from enumerate(some, start)
        elif not run.is_good(some):
            yield from ((index, opened(item)) for index, item in enumerate(some, start))


def outline(body: bytes, features: Sequence[Feature]) -> dict[str, Any]:
    """A large batch with its rows or values not parsed yet; raises Refused as `members_of` does."""
    members: dict[str, Any] = dict(members_of(body, ["instances", "columns"]))
    if "instances" in members:
        members["instances"] = items_of(members["instances"])
    if "columns" in members:
        columns = members["columns"]
        values = members_of(columns, [feature.name for feature in features])
        is_object = columns.startswith(b"{")
        members["columns"] = {name: items_of(value) for name, value in values.items()} if is_object else None
    return members


def member_faults(features: Sequence[Feature], members: Any, pointer: str) -> Iterator[Fault]:
    """What is wrong with the names: unknown ones, missing ones, or no object at all."""
    names = [feature.name for feature in features]
    if not isinstance(members, dict):
        yield Fault(pointer, f"an object with {listed(names)} is expected")
        return
    folded = {name.casefold(): name for name in names}
    for name in members.keys() - set(names):
        nearest = get_close_matches(name[:LONGEST_NAME].strip().casefold(), folded, n=1)
        hint = f"did you mean {folded[nearest[0]]!r}?" if nearest else f"known are {listed(names)}"
        yield Fault(pointer, f"it has an unknown member: {hint}")
    for feature in features:
        if feature.name not in members:
            yield Fault(f"{pointer}/{escape(feature.name)}", f"it is missing: {feature.takes} is expected")


def escape(name: str) -> str:
    """A member's name as a token of a JSON Pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")
