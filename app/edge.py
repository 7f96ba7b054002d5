"""Around the framework: what is let in, and what every request gets, whichever route answers it."""

import itertools
import re
import secrets
from collections.abc import MutableMapping
from http import HTTPStatus
from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.logs import RequestLog
from app.problems import Problem
from app.telemetry import OVERLOADS, Telemetry
from app.tracing import current_trace_id, given_trace_id

ALWAYS_ADMITTED = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
PROCESS, NUMBERS = secrets.token_hex(8).encode(), itertools.count()


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

    def __init__(self, app: ASGIApp, telemetry: Telemetry, admission: Admission, log: RequestLog) -> None:
        self._app, self._telemetry, self._admission, self._log = app, telemetry, admission, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the server leaves the body of HEAD away."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 0
        headers = dict(reversed(scope["headers"]))
        request_id, trace_id = sane_id(headers.get(b"x-request-id")), given_trace_id(headers)
        state = {**scope.get("state", {}), "request_id": request_id.decode()}
        inner: MutableMapping[str, Any] = {**scope, "state": state}
        if scope["method"] == "HEAD":
            inner["method"] = "GET"

        async def send_with_id(message: Message) -> None:
            nonlocal status, trace_id
            if message["type"] == "http.response.start":
                status, trace_id = message["status"], trace_id or current_trace_id()
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        app = self._admitted(scope["path"])
        try:
            with self._admission:
                await app(inner, receive, send_with_id)
        finally:
            seconds, route = perf_counter() - began, getattr(inner.get("route"), "path", "other")
            status = status or problems.CLIENT_LEFT
            self._telemetry.requests(route, status).add(seconds)
            self._log(
                method=scope["method"],
                route=route,
                status=status,
                seconds=seconds,
                rows=state.get("rows"),
                version=state.get("version"),
                request_id=request_id,
                trace_id=trace_id,
            )

    def _admitted(self, path: str) -> ASGIApp:
        if path in ALWAYS_ADMITTED or not self._admission.is_full:
            return self._app
        self._telemetry.count(OVERLOADS)
        return overloaded


async def overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that is one too many."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    problem = Problem(status.phrase, status, "Too many requests are being answered; try again.")
    await problems.answer(Request(scope), problem, {"Retry-After": "1"})(scope, receive, send)


def sane_id(given: bytes | None) -> bytes:
    """The caller's id for its request if it is harmless in a log line, one of our own otherwise."""
    return given if given and SANE_ID.fullmatch(given) else b"%s%016x" % (PROCESS, next(NUMBERS))
