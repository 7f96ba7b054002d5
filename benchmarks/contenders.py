"""What the service is measured against: `python -m benchmarks.contenders NAME STORE PORT`.

`floor` is the least that a server on uvicorn can do: read the body and answer a constant. The others are the
service itself with one thing switched off (or, for the keys and the log, on), to see what it costs.
"""

import hashlib
import sys
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import app.__main__
import app.main
from app import decoding, lane
from app.__main__ import main as serve
from app.serving import Served
from app.telemetry import Requests, Telemetry
from model_store.columns import NumericFeature
from model_store.store import open_store
from model_store.versions import Version

NAME = "used-car-price"
KEY = b"benchmark"
EXAMPLE = b'{"Kilometers_Driven": 53103}'


def main() -> None:
    """Serve one contender until a signal ends it."""
    name, store, port = sys.argv[1:]
    if name in CHANGES:
        change = CHANGES[name]
        options = change if isinstance(change, list) else []
        if isinstance(change, tuple):
            patch.object(*change).start()
        sys.exit(serve(["--store", store, "--port", port, *options]))
    version = open_store(store).load_promoted(NAME)
    listen(floor(version), int(port))


def listen(app: ASGIApp, port: int) -> None:
    """Serve an application as the service is served."""
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


def floor(version: Version) -> ASGIApp:
    """A bare ASGI function."""
    served = Served(version, 1)
    answer = served.encode(served.predict(EXAMPLE))
    headers = [(b"content-length", str(len(answer)).encode()), (b"content-type", b"application/json")]

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        while (await receive()).get("more_body"):
            continue
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return bare


def no_interval(served: Served, version: Version, max_rows: int) -> None:
    """Make a version ready, but for its intervals."""
    manifest = version.manifest.model_copy(update={"interval": None})
    prepare(served, replace(version, manifest=manifest), max_rows)


prepare = Served.__init__
CHANGES: dict[str, tuple[Any, str, Any] | list[str]] = {
    "ours": [],
    "keys": ["--api-keys", hashlib.sha256(KEY).hexdigest()],
    "a log line for each request": ["--log-requests", "1"],
    "no histogram of durations": (Requests, "add", lambda *_: None),
    "no count of rows": (Telemetry, "row", lambda *_: None),
    "no request id": (lane, "sane_id", lambda _: b"1"),
    "no interval": (Served, "__init__", no_interval),
    "no out_of_range": (NumericFeature, "row_ranger", lambda _: None),
    "no look for repeated members": (decoding, "has_plain_members", lambda *_: True),
    "two writes an answer": (app.__main__, "Protocol", HttpToolsProtocol),
    "no lane": (app.main, "Lane", lambda inner, *_, **_options: inner),
}
if __name__ == "__main__":
    main()
