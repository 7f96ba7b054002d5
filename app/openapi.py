"""The OpenAPI document: what each operation takes and answers, for the inputs of the served version."""

import json
from collections.abc import Sequence
from inspect import cleandoc
from typing import Any, TypeAlias

import msgspec
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from starlette.routing import BaseRoute

from app.problems import MEDIA_TYPE, Problem
from app.schemas import (
    BatchPrediction,
    ExplainedPrediction,
    Health,
    Prediction,
    ServedModel,
    Versions,
    batch_type,
    row_type,
)
from app.serving import Served
from model_store.columns import example_row
from model_store.manifest import Manifest, Target

Part: TypeAlias = dict[str, Any]
JSON, CSV = "application/json", "text/csv"


def schema(name: str) -> Part:
    """One of `components`."""
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def body(name: str, media_type: str = JSON) -> Part:
    """A request's or an answer's body."""
    return {"content": {media_type: schema(name)}}


def either(*names: str) -> Part:
    """One of several bodies, fullest first: clients take the first that fits."""
    return {"content": {JSON: {"schema": {"anyOf": [schema(name)["schema"] for name in names]}}}}


def problem(description: str) -> Part:
    """An error."""
    return {"description": description, **body("Problem", MEDIA_TYPE)}


def header(name: str, description: str, kind: str = "string") -> Part:
    """A header of an answer."""
    return {"headers": {name: {"description": description, "schema": {"type": kind}}}}


CSV_BODY = {CSV: {"schema": {"type": "string", "description": "The columns' names, then a row a line."}}}
NOT_READY = {
    503: problem("No verified version is loaded yet.") | header("Retry-After", "Seconds to wait.", "integer")
}
REFUSALS = {
    400: problem("The body is not JSON, or an empty CSV."),
    413: problem("The body is too large, or has too many rows."),
    415: problem("The body is compressed."),
    422: problem("The body can be read, but is not what the schema asks for; `errors` says where."),
    **NOT_READY,
}
ETAG = header("ETag", "Changes with what is sent; for If-None-Match.")
KNOWN = {304: {"description": "It is what If-None-Match names.", **ETAG}, **NOT_READY}
HEALTHY = {200: {"description": "It is so.", **body("Health")}}
UNHEALTHY = {503: {"description": "It is not so; `detail` says what fails.", **body("Health")}}
NO_KEY: Part = {"security": []}
KEY_REFUSED: dict[int | str, Part] = {401: problem("A key is expected.")}
KEY: Part = {"type": "http", "scheme": "bearer", "description": "A key of the service."}
EXPLAIN = {
    "name": "explain",
    "in": "query",
    "description": "Take the prediction apart: a baseline and what each input adds to it.",
    "schema": {"type": "boolean", "default": False},
}

# What the routes say of themselves, each by the name of its operation, which generated clients take over.
PREDICT: Part = {
    "operation_id": "predict",
    "openapi_extra": {"requestBody": {"required": True, **body("Row")}, "parameters": [EXPLAIN]},
    "responses": {
        200: {"description": "The prediction.", **either("ExplainedPrediction", "Prediction")},
        **REFUSALS,
    },
}
PREDICT_BATCH: Part = {
    "operation_id": "predict_batch",
    "openapi_extra": {"requestBody": {"required": True, "content": {JSON: schema("Batch"), **CSV_BODY}}},
    "responses": {
        200: {
            "description": "The predictions, in order; for a CSV its own lines with columns added.",
            "content": {JSON: schema("BatchPrediction"), **CSV_BODY},
        },
        **REFUSALS,
    },
}
MODEL: Part = {
    "operation_id": "model",
    "responses": {200: {"description": "The served version.", **body("ServedModel"), **ETAG}, **KNOWN},
}
MODEL_VERSIONS: Part = {
    "operation_id": "model_versions",
    "responses": {
        200: {"description": "The versions.", **body("Versions")},
        503: problem("No verified version is loaded yet, or the store does not answer."),
    },
}
MODEL_REPORT: Part = {
    "operation_id": "model_report",
    "responses": {
        200: {
            "description": "The report.",
            "content": {"text/html": {"schema": {"type": "string"}}},
            **ETAG,
        },
        404: problem("The served version has no report."),
        **KNOWN,
    },
}
LIVE: Part = {"operation_id": "live", "responses": HEALTHY, "openapi_extra": NO_KEY}
READY: Part = {"operation_id": "ready", "responses": HEALTHY | UNHEALTHY, "openapi_extra": NO_KEY}
HEALTH: Part = {"operation_id": "health", "responses": HEALTHY | UNHEALTHY, "openapi_extra": NO_KEY}
METRICS: Part = {
    "operation_id": "metrics",
    "responses": {
        200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
}
OPEN_METRICS = METRICS | {"openapi_extra": NO_KEY}


class WithoutDefaults(GenerateJsonSchema):
    """Schemas of answers, whose members are always there; clients' generators stumble over some defaults."""

    def default_schema(self, schema: Any) -> Part:
        """What the member holds, and nothing of what it would hold if it were absent."""
        return self.generate_inner(schema["schema"])


def document(served: Served, routes: Sequence[BaseRoute], *, is_restricted: bool) -> bytes:
    """The OpenAPI document of the application's routes for a version's inputs, as JSON."""
    made = get_openapi(
        title=served.name,
        version=served.version,
        description=f"{served.sentence} Served by Plumbline. Every answer has an X-Request-ID.",
        servers=[{"url": "."}],
        routes=routes,
    )
    made["components"] = {"schemas": components(served.manifest)}
    if is_restricted:
        made["components"]["securitySchemes"] = {"key": KEY}
        made["security"] = [{"key": []}]
    return json.dumps(made).encode()


def components(manifest: Manifest) -> Part:
    """The JSON Schemas of every request and answer."""
    row = row_type(manifest.features)
    _, schemas = msgspec.json.schema_components(
        (
            *(row, batch_type(manifest.features, row), Prediction, ExplainedPrediction, BatchPrediction),
            *(Versions, Health, Problem),
        ),
        schema_hook=lambda _matrix: {"type": "array"},
        ref_template="#/components/schemas/{name}",
    )
    _, defined = models_json_schema(
        [(ServedModel, "serialization")],
        ref_template="#/components/schemas/{model}",
        schema_generator=WithoutDefaults,
    )
    schemas |= defined["$defs"]
    for shape in schemas.values():
        if "description" in shape:
            shape["description"] = cleandoc(shape["description"])
    add_target(schemas, manifest.target)
    schemas["Batch"] |= {
        "minProperties": 1,
        "maxProperties": 1,
        "examples": [{"instances": [example_row(manifest.features)]}],
    }
    return schemas


def add_target(schemas: Part, target: Target) -> None:
    """Say of each prediction what it is of, and in which unit."""
    estimate = f"The {target.estimate} of " if target.transform == "log" else ""
    predicted = f"{estimate}{target.name}{f', {target.unit}' if target.unit else ''}."
    for name in ("Prediction", "ExplainedPrediction", "BatchPrediction"):
        member = "predictions" if name == "BatchPrediction" else "prediction"
        schemas[name]["properties"][member]["description"] = predicted
