"""Around the framework: what is let in, and what every request gets, whichever route answers it."""

from collections.abc import MutableMapping
from http import HTTPStatus
from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.exchange import Accounts, Exchange, Sender, sane_id
from app.refusals import Refused
from app.telemetry import OVERLOADS, Telemetry
from app.tracing import given_trace_id
from app.voices import voiced

ALWAYS_ADMITTED = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})


class Admission:
    """How many requests are in flight, and whether another may be."""

    def __init__(self, most: int, telemetry: Telemetry) -> None:
        self._most, self._in_flight = most, telemetry.in_flight

    @property
    def is_full(self) -> bool:
        """Whether no more are let in."""
        return self._in_flight[0] >= self._most

    def __enter__(self) -> None:
        """Let a request in."""
        self._in_flight[0] += 1

    def __exit__(self, *_: object) -> None:
        """It is answered."""
        self._in_flight[0] -= 1


class Edge:
    """Around the framework: lets requests in, gives them an id, counts and logs them, and answers HEAD as GET
    without its body.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, admission: Admission, accounts: Accounts) -> None:
        self._app, self._telemetry, self._admission, self._accounts = app, telemetry, admission, accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the server leaves the body of HEAD away."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, headers = perf_counter(), dict(reversed(scope["headers"]))
        request_id = sane_id(headers.get(b"x-request-id"))
        sender = Sender(send, request_id, given_trace_id(headers))
        state = {**scope.get("state", {}), "request_id": request_id.decode()}
        inner: MutableMapping[str, Any] = {**scope, "state": state}
        if scope["method"] == "HEAD":
            inner["method"] = "GET"
        app = self._admitted(scope["path"])
        try:
            with self._admission:
                await app(inner, receive, sender.send)
        finally:
            exchange = Exchange(
                method=scope["method"],
                route=getattr(inner.get("route"), "path", "other"),
                status=sender.status,
                seconds=perf_counter() - began,
                request_id=request_id,
                trace_id=sender.trace_id,
                rows=state.get("rows"),
                version=state.get("version"),
            )
            self._accounts.add(exchange)

    def _admitted(self, path: str) -> ASGIApp:
        if path in ALWAYS_ADMITTED or not self._admission.is_full:
            return self._app
        self._telemetry.count(OVERLOADS)
        return overloaded


async def overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that is one too many."""
    refused = Refused(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Too many requests are being answered; try again.",
        headers={"Retry-After": "1"},
    )
    await voiced(Request(scope), refused)(scope, receive, send)
