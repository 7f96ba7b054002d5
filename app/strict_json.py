"""Strict JSON (RFC 8259), read carefully: what a careless parser overlooks, in time linear in the bytes.

Nothing here runs for a good request but `has_plain_members`, which is quick.
"""

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NoReturn

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType, defstruct

from app.refusals import Fault, Refused, unacceptable
from model_store.columns import listed

TWICE = "an object has the same member twice"
LARGE = 2**18
NAME = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
STEP = 4096
TOO_LONG = object()


def has_plain_members(body: bytes, quoted: int) -> bool:
    """Whether a decoded body surely has no member twice, which the decoder overlooks.

    Every member is known and there, so only one that comes twice, or an escaped quote, can leave more
    quotes in the body than its `quoted` names and texts need. The careful parse tells the two apart.
    """
    return count_of(b'"', body) == 2 * quoted


def count_of(mark: bytes, body: bytes) -> int:
    """How often a byte is in a body; in a large one with many of them far faster than `bytes.count`."""
    if len(body) < STEP:
        return body.count(mark)
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == mark[0]))


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


def opened(piece: bytes) -> Any:
    """A piece of a body, parsed; TOO_LONG if that would hold up the requests beside it. Raises as `parse`."""
    return parse(piece) if len(piece) <= LARGE else TOO_LONG


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
            detail = f"an object with no other members than {listed(known)} is expected"
            raise unacceptable([Fault("", detail)])
        members = {
            name: bytes(value) for name, value in msgspec.json.decode(content, type=dict[str, Raw]).items()
        }
    refuse_repeated(content, members)
    return members


def known_members(content: bytes, known: Sequence[str], *, strict: bool) -> dict[str, bytes] | None:
    """An object's known members; None if it is no object or, if `strict`, has others.

    Raises Refused if it is not JSON.
    """
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
