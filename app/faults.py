"""Everything that is wrong with a refused request, each fault with its JSON Pointer and what was expected.

Nothing here runs for a good request. A fault never repeats what was sent.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from itertools import islice
from typing import Any, NoReturn, TypeAlias

from app.problems import MOST_FAULTS, Fault, Refused
from model_store.manifest import CategoricalFeature, Feature, is_fillable

MOST_NAMED = 5
LONGEST_NAME = 200

FindFaults: TypeAlias = Callable[[Sequence[Feature], Any], Iterator[Fault]]


def refuse(features: Sequence[Feature], body: bytes, find: FindFaults) -> NoReturn:
    """Raise the Refused that says what is wrong with `body`: 400 if it is not JSON, 422 otherwise."""
    found = islice(find(features, parse(body)), MOST_FAULTS)
    detail = "The request is not what the schema at /openapi.json asks for."
    raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail, found)


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


def row_faults(features: Sequence[Feature], row: Any, pointer: str = "") -> Iterator[Fault]:
    """The faults of one row."""
    yield from member_faults(features, row, pointer)
    if isinstance(row, dict):
        for feature in features:
            if feature.name in row and not acceptable(feature, row[feature.name]):
                yield Fault(f"{pointer}/{escape(feature.name)}", f"{expected(feature)} is due")


def batch_faults(features: Sequence[Feature], batch: Any) -> Iterator[Fault]:
    """The faults of many rows, given as `instances` or as `columns`."""
    if not isinstance(batch, dict) or batch.keys() not in ({"instances"}, {"columns"}):
        yield Fault("", "an object with just one member is due, either 'instances' or 'columns'")
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
        found = f"these have {min(lengths)} to {max(lengths)} values"
        yield Fault("/columns", f"columns of equal length are due, {found}")


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
