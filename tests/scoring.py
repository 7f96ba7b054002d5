"""The service's answer to a table, in the test's own process, by models that predict one of their inputs."""

import asyncio
import csv
import io
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from starlette.requests import Request

from app.csv_stream import answer_csv
from app.serving import Served
from model_store.columns import Feature, example_row
from model_store.forms import Form
from model_store.manifest import FileEntry, GoldenRow, Manifest
from model_store.predictor import Predictor
from model_store.versions import Version
from tests.toys import toy_description


class Scored(NamedTuple):
    """A table that was answered: its media type, its bytes and its rows as Python's csv module reads them."""

    media_type: str
    content: bytes
    rows: list[dict[str, str]]


def echo(features: tuple[Feature, ...], name: str, form: Form | None = None) -> Served:
    """A model that predicts the number in one of its inputs, or its category's place among those known."""
    features = tuple(
        feature.model_copy(update={"mean": 0.0, "std": 1.0}) if feature.kind == "numeric" else feature
        for feature in features
    )
    weights = [
        weight * (feature.name == name)
        for feature in features
        for weight in ([1.0] if feature.kind == "numeric" else range(feature.width))
    ]
    golden = GoldenRow(inputs={**example_row(features)}, prediction=0.0)
    described = toy_description(features=features, golden=(golden,) * 32, interval=None)
    training = described.training.model_copy(update={"form": form})
    manifest = Manifest(
        **dict(described) | {"training": training},
        version=1,
        created_at=datetime.now(UTC),
        files={"weights.safetensors": FileEntry.of(b"x")},
    )
    tensors = {"layers.0.weight": np.array([weights]), "layers.0.bias": np.zeros(1)}
    return Served(Version(manifest, "0" * 64, Predictor(manifest, tensors), None, None), 100_000)


def score(served: Served, content: bytes, media_type: str = "text/csv") -> Scored:
    """The answer to a table; raises Refused as the service does."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def exchange() -> None:
        request = Request({"type": "http", "headers": [(b"content-type", media_type.encode())]}, receive)
        answer = await answer_csv(served, request, lambda _tally: None)
        await answer(request.scope, receive, send)

    asyncio.run(exchange())
    answered = dict(sent[0]["headers"])[b"content-type"].decode()
    body = b"".join(message["body"] for message in sent[1:])
    return Scored(answered, body, rows_of(body, answered))


def rows_of(content: bytes, media_type: str) -> list[dict[str, str]]:
    """The rows of an answer, with the separator that is in its header."""
    charset = media_type.partition("charset=")[2].partition(";")[0]
    text = content.decode(charset, "surrogatepass" if "16" in charset else "surrogateescape")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    header = lines.partition("\n")[0]
    separator = header[-len("_lower_upper_error")] if header.endswith("error") else ","
    return list(csv.DictReader(io.StringIO(lines, newline=""), delimiter=separator))
