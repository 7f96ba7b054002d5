"""The shapes of requests and answers, each defined once: these types decode, encode and document.

What a request may hold depends on the served version, so its types are made from the manifest.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from model_store.columns import Feature, Matrix
from model_store.manifest import Metrics, Network, ResidualQuantiles, Target, Training
from model_store.parts import Part, Sha256

PIECE = 2**14
# Arrays (n,) by what JSON has of each: numbers, or numbers and null where there is NaN.
NUMBER, NULL = {"type": "number"}, {"type": "null"}
Numbers = Annotated[Matrix, Meta(extra_json_schema={"items": NUMBER})]
Bounds = Annotated[Matrix, Meta(extra_json_schema={"items": {"anyOf": [NUMBER, NULL]}})]


class Interval(Struct, frozen=True, gc=False):
    """Where the actual value lies for the share `coverage` of new rows, in the target's unit.

    That is claimed of rows like those of training: where an input is far outside, there is no interval.
    """

    coverage: float
    lower: float
    upper: float


class Prediction(Struct, frozen=True, gc=False):
    """The answer for one row; `out_of_range` names the inputs outside their training range.

    `interval` is null if the model has none, and where an input is so far outside training that none can be
    claimed: beyond the least or the greatest by more than a tenth of the distance between them.
    """

    prediction: float
    interval: Interval | None
    out_of_range: list[str]
    model: str
    version: str


class ExplainedPrediction(Prediction, frozen=True, gc=False):
    """The answer for one row, taken apart: `baseline` is what the average training row would get.

    Baseline and contributions, one an input and in the target's unit, add up to the prediction.
    """

    baseline: float
    contributions: dict[str, float]


class Intervals(Struct, frozen=True):
    """The intervals of a batch, two bounds for each row.

    They are null where an input is so far outside training that none can be claimed, as in `Prediction`.
    """

    coverage: float
    lower: Bounds
    upper: Bounds


class BatchPrediction(Struct, frozen=True):
    """The answer for many rows, in their order; `out_of_range` gives row numbers, from 0, by input."""

    predictions: Numbers
    interval: Intervals | None
    out_of_range: dict[str, list[int]]
    model: str
    version: str


def encode_numbers(answer: object) -> bytes:
    """An answer or an array (n,) as JSON, NaN as null; it takes orjson a third of msgspec's time."""
    return orjson.dumps(answer, default=encodable)


def encodable(part: Any) -> object:
    """A struct as its members; an array as JSON, made in pieces, between which other threads have a turn."""
    if not isinstance(part, np.ndarray):
        return msgspec.structs.asdict(part)
    encode = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)
    if len(part) <= PIECE:
        return orjson.Fragment(encode(part))
    pieces = (encode(part[start : start + PIECE])[1:-1] for start in range(0, len(part), PIECE))
    return orjson.Fragment(b"[%b]" % b",".join(pieces))


class Health(Struct, frozen=True, omit_defaults=True):
    """Whether the service can answer, with what, and what keeps it from a newer version."""

    status: Annotated[
        Literal["live", "ready", "not ready", "healthy", "unhealthy"],
        Meta(extra_json_schema={"type": "string"}),
    ]
    model: str | None = None
    version: str | None = None
    detail: str | None = None


class Versions(Struct, frozen=True):
    """The versions of the served model in the store, which is promoted, and which one answers."""

    model: str
    served: str
    promoted: str | None
    versions: list[str]


class ServedModel(Part):
    """What is served: the manifest's account of the model, and the digest that names it exactly."""

    name: str
    version: str
    digest: Sha256
    created_at: datetime
    target: Target
    features: tuple[Feature, ...]
    network: Network
    training: Training
    metrics: Metrics | None
    interval: ResidualQuantiles | None


def row_type(features: Sequence[Feature]) -> type[Struct]:
    """One row: a member for every feature, none else."""
    return tabular_type("Row", {feature.name: value_type(feature) for feature in features})


def batch_type(features: Sequence[Feature], row: type[Struct]) -> type[Struct]:
    """Many rows, either as `instances` or as `columns`; absent members are UNSET."""
    columns = tabular_type(
        "Columns", {feature.name: at_least_one(value_type(feature)) for feature in features}
    )
    return defstruct(
        "Batch",
        [("instances", at_least_one(row) | UnsetType, UNSET), ("columns", columns | UnsetType, UNSET)],
        forbid_unknown_fields=True,
    )


def tabular_type(name: str, members: dict[str, Any]) -> type[Struct]:
    """A struct with the attributes f0, f1, …, so that a member may have any characters in its name."""
    attributes = [f"f{index}" for index in range(len(members))]
    return defstruct(
        name,
        list(zip(attributes, members.values(), strict=True)),
        rename=dict(zip(attributes, members, strict=True)),
        forbid_unknown_fields=True,
        gc=False,
    )


def value_type(feature: Feature) -> Any:
    """What a feature takes, with what the documentation says of it."""
    return Annotated[feature.value_type, Meta(extra_json_schema=feature.json_schema)]


def at_least_one(item: Any) -> Any:
    """A list of `item` that is not empty."""
    return Annotated[GenericAlias(list, (item,)), Meta(min_length=1)]


def columns_of(features: Sequence[Feature], rows: Sequence[Struct]) -> dict[str, list[Any]]:
    """The members of rows that were decoded, by the features' names."""
    return {feature.name: list(map(attrgetter(f"f{index}"), rows)) for index, feature in enumerate(features)}


def texts_in(features: Sequence[Feature], columns: Mapping[str, list[Any]]) -> int:
    """How many texts are in columns that were decoded; a missing one is none."""
    return sum(
        len(columns[feature.name]) - (columns[feature.name].count(None) if feature.accepts(None) else 0)
        for feature in features
        if feature.is_text
    )
