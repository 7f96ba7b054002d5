"""Everything that is wrong with a refused request, each fault with its JSON Pointer and what was expected.

Nothing here runs for a good request. A fault never repeats what was sent.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, NoReturn

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType, defstruct

from app.refusals import Fault, Refused
from app.schemas import at_least_one, row_type, value_type
from model_store.manifest import CategoricalFeature, Feature, is_fillable

EITHER = "an object with just one member is due, either 'instances' or 'columns'"
TWICE = "an object has the same member twice"
MOST_NAMED = 5
LONGEST_NAME = 200
LARGE = 2**18
NAME = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
RUN, STEP = 1000, 4096
TOO_LONG = object()


def refuse(found: Iterator[Fault]) -> NoReturn:
    """Raise the Refused (422) of what was found in a body that is JSON."""
    detail = "The request is not what the schema at /openapi.json asks for."
    raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail, found)


def refuse_rows(limit: int) -> NoReturn:
    """Raise Refused (413) for more rows than are answered at once."""
    detail = f"A batch of at most {limit} rows, with known members only, is due; a CSV may be of any length."
    raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


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
    raise unreadable(reason)


def refuse_constant(_name: str) -> NoReturn:
    """Refuse the three words that Python takes for numbers and JSON does not."""
    message = "NaN and Infinity are not JSON"
    raise ValueError(message)


def unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members as a dict; raises ValueError for a name that comes twice or is not Unicode text."""
    unique = dict(members)
    if len(unique) < len(members):
        raise ValueError(TWICE)
    for name in unique:
        name.encode()
    return unique


def single_row_faults(features: Sequence[Feature], body: bytes) -> Iterator[Fault]:
    """The faults of a body that should be one row; raises Refused as `parse` does."""
    if len(body) > LARGE:
        members_of(body, [feature.name for feature in features])
    return row_faults(features, opened(body))


def row_faults(features: Sequence[Feature], row: Any, pointer: str = "") -> Iterator[Fault]:
    """The faults of one row."""
    if row is TOO_LONG:
        yield Fault(pointer, f"a row of at most {LARGE} bytes is due")
        return
    yield from member_faults(features, row, pointer)
    if isinstance(row, dict):
        for feature in features:
            if feature.name in row and not acceptable(feature, row[feature.name]):
                yield Fault(f"{pointer}/{escape(feature.name)}", f"{expected(feature)} is due")


def batch_faults(features: Sequence[Feature], body: bytes) -> Iterator[Fault]:
    """The faults of many rows, given as `instances` or as `columns`; raises Refused as `parse` does."""
    batch = parse(body) if len(body) <= LARGE else outline(body, features)
    if not isinstance(batch, dict) or batch.keys() not in ({"instances"}, {"columns"}):
        yield Fault("", EITHER)
    elif "columns" in batch:
        yield from columns_faults(features, batch["columns"])
    elif not isinstance(batch["instances"], list) or not batch["instances"]:
        yield Fault("/instances", "an array of at least one row is due")
    else:
        texts = sum(isinstance(feature, CategoricalFeature) for feature in features)
        for index, row in suspects(batch["instances"], row_type(features), len(features) + texts):
            yield from row_faults(features, row, f"/instances/{index}")


def columns_faults(features: Sequence[Feature], columns: Any) -> Iterator[Fault]:
    """The faults of rows given as columns."""
    yield from member_faults(features, columns, "/columns")
    given = [feature for feature in features if isinstance(columns, dict) and feature.name in columns]
    lengths: set[int] = set()
    for feature in given:
        pointer, values = f"/columns/{escape(feature.name)}", columns[feature.name]
        if not isinstance(values, list) or not values:
            yield Fault(pointer, "an array of at least one value is due")
        if isinstance(values, list):
            lengths.add(len(values))
            text = isinstance(feature, CategoricalFeature)
            for index, value in suspects(values, value_type(feature), int(text)):
                if not acceptable(feature, value):
                    yield Fault(f"{pointer}/{index}", f"{expected(feature)} is due")
    if len(lengths) > 1:
        found = f"these have {min(lengths)} to {max(lengths)} values"
        yield Fault("/columns", f"columns of equal length are due, {found}")


def suspects(items: list[Any], good: Any, quoted: int) -> Iterator[tuple[int, Any]]:
    """The items, parsed, with their positions, but for those of `outline` that the fast decoder takes.

    `quoted` is how many names and texts a good item has.
    """
    decode = msgspec.json.Decoder(at_least_one(good)).decode
    for start in range(0, len(items), RUN):
        run = items[start : start + RUN]
        if not isinstance(run[0], bytes):
            yield from enumerate(run, start)
        elif not is_good(b"[" + b",".join(run) + b"]", decode, quoted * len(run)):
            yield from ((index, opened(item)) for index, item in enumerate(run, start))


def is_good(run: bytes, decode: Callable[[bytes], Any], quoted: int) -> bool:
    """Whether a run of items can be answered."""
    try:
        decode(run)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return has_plain_members(run, quoted)


def opened(piece: bytes) -> Any:
    """A piece of a body, parsed; TOO_LONG if that would hold up the requests beside it."""
    return parse(piece) if len(piece) <= LARGE else TOO_LONG


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


def members_of(content: bytes, known: Sequence[str]) -> dict[str, bytes]:
    """An object's members, not parsed yet; {} for anything else.

    Raises Refused if it is not JSON, has a member twice, or has so much beside the `known` members that
    reading it would hold up others.
    """
    members = known_members(content, known, strict=True)
    if members is None:
        members = known_members(content, known, strict=False)
        if members is None:
            return {}
        if len(content) - sum(map(len, members.values())) > LARGE:
            refuse(iter([Fault("", f"an object with no other members than {listed(known)} is due")]))
        members = {
            name: bytes(value) for name, value in msgspec.json.decode(content, type=dict[str, Raw]).items()
        }
    refuse_repeated(content, members)
    return members


def known_members(content: bytes, known: Sequence[str], *, strict: bool) -> dict[str, bytes] | None:
    """An object's known members; None if it is no object or, if `strict`, has others."""
    names = {f"f{index}": name for index, name in enumerate(known)}
    fields = [(field, Raw | UnsetType, UNSET) for field in names]
    envelope = defstruct("Envelope", fields, rename=names, forbid_unknown_fields=strict)
    try:
        found = msgspec.structs.astuple(msgspec.json.decode(content, type=envelope))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        refuse_malformed(content)
        return None
    return {name: bytes(value) for name, value in zip(known, found, strict=True) if value is not UNSET}


def refuse_malformed(content: bytes) -> None:
    """Raise Refused (400) for what is no JSON at all."""
    try:
        msgspec.json.decode(content, type=Raw)
    except RecursionError:
        reason = "it is nested too deeply"
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except msgspec.DecodeError as error:
        reason = str(error) if content.strip() else "it is empty"
    else:
        return
    raise unreadable(reason)


def unreadable(reason: str) -> Refused:
    """What is raised (400) for a body that is not JSON."""
    return Refused(HTTPStatus.BAD_REQUEST, f"The body cannot be read as JSON: {reason}.")


def refuse_repeated(content: bytes, members: Mapping[str, bytes]) -> None:
    """Raise Refused (400) if the object that these are the members of has one of them twice."""
    names: set[str] = set()
    position = skip_space(content, content.index(b"{") + 1)
    while found := NAME.match(content, position):
        name = msgspec.json.decode(found[0], type=str)
        start = skip_space(content, skip_space(content, found.end()) + 1)
        end = skip_space(content, start + len(members[name]))
        # Of two members of a name the later's value is known: where it does not fit is the earlier.
        fits = content.startswith(members[name], start) and content[end : end + 1] in b",}"
        if name in names or not fits:
            raise unreadable(TWICE)
        names.add(name)
        position = skip_space(content, end + 1)


def skip_space(content: bytes, position: int) -> int:
    """Where the white space that starts at a position ends; a step at a time, there may be megabytes."""
    while step := content[position : position + STEP]:
        if rest := step.lstrip(b" \t\r\n"):
            return position + len(step) - len(rest)
        position += len(step)
    return position


def items_of(content: bytes) -> list[bytes] | None:
    """An array's items, not parsed yet; None for anything else."""
    try:
        return [bytes(item) for item in msgspec.json.decode(content, type=list[Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def has_plain_members(body: bytes, quoted: int) -> bool:
    """Whether a decoded body surely has no member twice, which the decoder overlooks.

    Every member is known and there, so only one that comes twice, or an escaped quote, can leave more
    quotes in the body than its `quoted` names and texts need. The careful parse tells the two apart.
    """
    return count(body, b'"') == 2 * quoted


def count(body: bytes, mark: bytes) -> int:
    """How often a byte is in a body; in a large one with many of them far faster than `bytes.count`."""
    if len(body) < STEP:
        return body.count(mark)
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == mark[0]))


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
