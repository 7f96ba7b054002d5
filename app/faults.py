"""Everything that is wrong with a refused request, each fault with its JSON Pointer and what was expected.

Nothing here runs for a good request. A fault never repeats what was sent. A large batch is looked at
row by row, so that no step of it holds up the requests beside it.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from itertools import islice
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, defstruct

from app.problems import MOST_FAULTS, Fault, Refused
from app.schemas import at_least_one, row_type, value_type
from model_store.manifest import CategoricalFeature, Feature, is_fillable

EITHER = "an object with just one member is due, either 'instances' or 'columns'"
MOST_NAMED = 5
LONGEST_NAME = 200
LARGE_BODY = 2**18
UNREADABLE = "The body cannot be read as JSON:"
NAME = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
BETWEEN = re.compile(rb"[ \t\r\n]*([,}])")
RUN = 1000


def refuse(found: Iterator[Fault]) -> NoReturn:
    """Raise the Refused (422) of what was found in a body that is JSON."""
    detail = "The request is not what the schema at /openapi.json asks for."
    raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail, islice(found, MOST_FAULTS))


def refuse_rows(count: int, limit: int) -> None:
    """Raise Refused (413) for more rows than are answered at once."""
    if count > limit:
        detail = f"A batch of at most {limit} rows is due, this has {count}; a CSV may be of any length."
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def count_instances(body: bytes) -> int:
    """How many instances a batch has, without a look at them; 0 for a body that is not a batch of them."""
    try:
        return len(items_of(members_of(body, ["instances", "columns"]).get("instances", b"")))
    except Refused:
        return 0


def check_members(features: Sequence[Feature], body: bytes) -> None:
    """Raise Refused (400) if a batch that could be decoded has a member twice."""
    for _ in batch_faults(features, body):
        continue


def parse(body: bytes) -> Any:
    """Parse strict JSON (RFC 8259): UTF-8 without a byte order mark, no member twice, no NaN.

    Numbers become floats, one too large for float64 an infinity. Raises Refused with status 400.
    """
    try:
        return json.loads(
            body.decode(), parse_int=float, parse_constant=refuse_constant, object_pairs_hook=unique_members
        )
    except UnicodeError:
        reason = "it is not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"{error.msg} (at character {error.pos})" if body.strip() else "it is empty"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise Refused(HTTPStatus.BAD_REQUEST, f"The body cannot be read as JSON: {reason}.")


def refuse_constant(_name: str) -> NoReturn:
    """Refuse the three words that Python takes for numbers and JSON does not."""
    message = "NaN and Infinity are not JSON"
    raise ValueError(message)


def unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members as a dict; raises ValueError for a name that comes twice or is not Unicode text."""
    unique = dict(members)
    if len(unique) < len(members):
        message = "an object has the same member twice"
        raise ValueError(message)
    for name in unique:
        name.encode()
    return unique


def single_row_faults(features: Sequence[Feature], body: bytes) -> Iterator[Fault]:
    """The faults of a body that should be one row; raises Refused as `parse` does."""
    if len(body) <= LARGE_BODY:
        return row_faults(features, parse(body))
    members_of(body, [feature.name for feature in features])
    return iter([Fault("", f"a row of at most {LARGE_BODY} bytes is due")])


def row_faults(features: Sequence[Feature], row: Any, pointer: str = "") -> Iterator[Fault]:
    """The faults of one row."""
    yield from member_faults(features, row, pointer)
    if isinstance(row, dict):
        for feature in features:
            if feature.name in row and not acceptable(feature, row[feature.name]):
                yield Fault(f"{pointer}/{escape(feature.name)}", f"{expected(feature)} is due")


def batch_faults(features: Sequence[Feature], body: bytes) -> Iterator[Fault]:
    """The faults of many rows, given as `instances` or as `columns`; raises Refused if they are not JSON."""
    if len(body) <= LARGE_BODY:
        return small_batch_faults(features, parse(body))
    return large_batch_faults(features, body)


def large_batch_faults(features: Sequence[Feature], body: bytes) -> Iterator[Fault]:
    """The faults of a batch that is parsed a row or a value at a time; raises Refused as `parse` does."""
    members = members_of(body, ["instances", "columns"])
    if members.keys() not in ({"instances"}, {"columns"}):
        yield Fault("", EITHER)
    elif "columns" in members:
        yield from large_columns_faults(features, members["columns"])
    elif not (rows := items_of(members["instances"])):
        yield Fault("/instances", "an array of at least one row is due")
    else:
        decode = msgspec.json.Decoder(row_type(features)).decode
        texts = sum(isinstance(feature, CategoricalFeature) for feature in features)
        for index, row in enumerate(rows):
            if not is_good_row(row, decode, len(features) + texts):
                yield from row_faults(features, parse(row), f"/instances/{index}")


def large_columns_faults(features: Sequence[Feature], columns: bytes) -> Iterator[Fault]:
    """The faults of columns that are parsed a value at a time."""
    members = members_of(columns, [feature.name for feature in features])
    yield from member_faults(features, members, "/columns")
    lengths: set[int] = set()
    for feature in features:
        if feature.name in members:
            pointer, values = f"/columns/{escape(feature.name)}", items_of(members[feature.name])
            lengths.add(len(values))
            if not values:
                yield Fault(pointer, "an array of at least one value is due")
            yield from (
                Fault(f"{pointer}/{index}", f"{expected(feature)} is due")
                for index, value in suspects(feature, values)
                if len(value) > LARGE_BODY or not acceptable(feature, parse(value))
            )
    if len(lengths) > 1:
        yield unequal(lengths)


def members_of(content: bytes, known: Sequence[str]) -> dict[str, bytes]:
    """An object's members, not parsed yet; {} for anything else.

    Raises Refused if it is not JSON, or has so much beside the values of the `known` members that reading it
    would hold up others.
    """
    values = known_values(content, known, strict=True)
    all_known = values is not None
    if values is None:
        values = known_values(content, known, strict=False)
    if values is None:
        return {}
    if len(content) - sum(map(len, values)) > LARGE_BODY:
        if all_known:
            raise Refused(
                HTTPStatus.BAD_REQUEST, f"{UNREADABLE} a member comes twice, or white space abounds."
            )
        refuse(iter([Fault("", f"an object with no other members than {listed(known)} is due")]))
    members = {
        name: bytes(value) for name, value in msgspec.json.decode(content, type=dict[str, Raw]).items()
    }
    parse(names_of(content, members))
    return members


def refuse_malformed(content: bytes) -> None:
    """Raise Refused (400) for what is no JSON at all."""
    try:
        msgspec.json.decode(content, type=Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(HTTPStatus.BAD_REQUEST, "The body cannot be read as JSON.") from None


def known_values(content: bytes, known: Sequence[str], *, strict: bool) -> list[Raw] | None:
    """The values of an object's known members; None if it is no object or, if `strict`, has others."""
    names = {f"f{index}": name for index, name in enumerate(known)}
    fields = [(field, Raw | UnsetType, UNSET) for field in names]
    envelope = defstruct("Envelope", fields, rename=names, forbid_unknown_fields=strict)
    try:
        found = msgspec.json.decode(content, type=envelope)
    except msgspec.ValidationError:
        if not strict:
            refuse_malformed(content)
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(HTTPStatus.BAD_REQUEST, "The body cannot be read as JSON.") from None
    return [value for value in msgspec.structs.astuple(found) if value is not UNSET]


def names_of(content: bytes, values: Mapping[str, bytes]) -> bytes:
    """The object with a 0 for each value; a name that comes twice shows as one, or as no JSON."""
    parts, position = [b"{"], content.index(b"{") + 1
    while found := NAME.match(content, position):
        value = values.get(msgspec.json.decode(found[1], type=str), b"")
        if not value or not content.startswith(value, found.end()):
            raise Refused(HTTPStatus.BAD_REQUEST, f"{UNREADABLE} a member comes twice.")
        parts.append(b"%s:0" % found[1])
        end = BETWEEN.match(content, found.end() + len(value))
        if end is None:
            raise Refused(HTTPStatus.BAD_REQUEST, f"{UNREADABLE} a member comes twice.")
        parts.append(end[1])
        position = end.end()
    return b"".join(parts) if len(parts) > 1 else b"{}"


def items_of(content: bytes) -> list[bytes]:
    """An array's items, not parsed yet; [] for anything else."""
    try:
        return [bytes(item) for item in msgspec.json.decode(content, type=list[Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def suspects(feature: Feature, values: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """The values with their positions, but for runs of them that the fast decoder takes."""
    decode = msgspec.json.Decoder(at_least_one(value_type(feature))).decode
    for start in range(0, len(values), RUN):
        run = values[start : start + RUN]
        try:
            decode(b"[" + b",".join(run) + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield from enumerate(run, start)


def is_good_row(row: bytes, decode: Callable[[bytes], Struct], quoted: int) -> bool:
    """Whether a row is one that can be answered."""
    try:
        decode(row)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return has_plain_members(row, quoted)


def has_plain_members(body: bytes, quoted: int) -> bool:
    """Whether a decoded body surely has no member twice, which the decoder overlooks.

    Every member is known and there, so only one that comes twice, or an escaped quote, can leave more
    quotes in the body than its `quoted` names and texts need. The careful parse tells the two apart.
    """
    return body.count(b'"') == 2 * quoted


def small_batch_faults(features: Sequence[Feature], batch: Any) -> Iterator[Fault]:
    """The faults of a batch that is parsed whole."""
    if not isinstance(batch, dict) or batch.keys() not in ({"instances"}, {"columns"}):
        yield Fault("", EITHER)
    elif "columns" in batch:
        yield from columns_faults(features, batch["columns"])
    elif not isinstance(batch["instances"], list) or not batch["instances"]:
        yield Fault("/instances", "an array of at least one row is due")
    else:
        for index, row in enumerate(batch["instances"]):
            yield from row_faults(features, row, f"/instances/{index}")


def columns_faults(features: Sequence[Feature], columns: Any) -> Iterator[Fault]:
    """The faults of rows given as columns."""
    yield from member_faults(features, columns, "/columns")
    if not isinstance(columns, dict):
        return
    lists = {feature: columns.get(feature.name, []) for feature in features}
    for feature, values in lists.items():
        pointer = f"/columns/{escape(feature.name)}"
        if feature.name in columns and (not isinstance(values, list) or not values):
            yield Fault(pointer, "an array of at least one value is due")
        elif isinstance(values, list):
            yield from (
                Fault(f"{pointer}/{index}", f"{expected(feature)} is due")
                for index, value in enumerate(values)
                if not acceptable(feature, value)
            )
    lengths = {len(values) for values in lists.values() if isinstance(values, list)}
    if len(lengths) > 1:
        yield unequal(lengths)


def unequal(lengths: set[int]) -> Fault:
    """The fault of columns whose lengths differ."""
    found = f"these have {min(lengths)} to {max(lengths)} values"
    return Fault("/columns", f"columns of equal length are due, {found}")


def member_faults(features: Sequence[Feature], members: Any, pointer: str) -> Iterator[Fault]:
    """What is wrong with the names: unknown ones, missing ones, or no object at all."""
    names = [feature.name for feature in features]
    if not isinstance(members, dict):
        yield Fault(pointer, f"an object with {listed(names)} is due")
        return
    folded = {name.casefold(): name for name in names}
    for name in members.keys() - set(names):
        nearest = get_close_matches(name[:LONGEST_NAME].strip().casefold(), folded, n=1)
        hint = f"did you mean {folded[nearest[0]]!r}?" if nearest else f"known are {listed(names)}"
        yield Fault(pointer, f"it has an unknown member: {hint}")
    for feature in features:
        if feature.name not in members:
            yield Fault(f"{pointer}/{escape(feature.name)}", f"it is missing: {expected(feature)} is due")


def acceptable(feature: Feature, value: Any) -> bool:
    """Whether a parsed value is one the feature takes."""
    if value is None:
        return is_fillable(feature)
    if isinstance(feature, CategoricalFeature):
        return isinstance(value, str) and value in feature.values
    return isinstance(value, float) and math.isfinite(value)


def expected(feature: Feature) -> str:
    """What a feature takes, in words."""
    if isinstance(feature, CategoricalFeature):
        return f"one of {listed(feature.values)}"
    unit = f" {feature.unit}" if feature.unit else ""
    kind = "a finite number or null" if is_fillable(feature) else "a finite number"
    return f"{kind} (in training {feature.minimum:.10g} to {feature.maximum:.10g}{unit})"


def listed(names: Sequence[str]) -> str:
    """The first few names, shortened, and how many more there are."""
    shown = ", ".join(repr(name[:40]) for name in names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def escape(name: str) -> str:
    """A member's name as a token of a JSON Pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")
