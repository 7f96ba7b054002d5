"""What HTTP lets in and what every answer has: a body and its limits, an id, a count, HEAD, conditions."""

import asyncio
import hashlib
import itertools
import re
import secrets
from collections.abc import AsyncIterator, MutableMapping
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from tempfile import TemporaryFile
from time import perf_counter
from typing import IO, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.logs import RequestLog
from app.problems import Problem, Refused
from app.telemetry import OVERLOADS, Telemetry
from app.tracing import current_trace_id, given_trace_id

MOST_ON_DISK, MOST_IN_MEMORY, TAKEN_AT_ONCE = 2**30, 2**20, 2**16
SMALL_BODY = 2**15
FORWARDED = frozenset({"forwarded", "via", "x-forwarded-for"})
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


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body of at most `limit` bytes, whatever its Content-Type says.

    Raises Refused: 413 for a longer one, of which no more is read, 415 for a compressed one.
    """
    refuse_compressed(request)
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if int(declared) <= limit:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body of at most {limit} bytes is due.")


def refuse_compressed(request: Request) -> None:
    """Raise Refused for a body that would have to be inflated."""
    if request.headers.get("content-encoding", "").lower() not in {"", "identity"}:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body without Content-Encoding.")


def is_unchanged(request: Request, etag: str) -> bool:
    """Whether the caller has this very representation already (If-None-Match, RFC 9110, section 13.1.2)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    known = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return etag in known or "*" in known


def conditional(request: Request, content: bytes, media_type: str) -> Response:
    """The content with its SHA-256 as strong ETag, or 304 if the caller has it."""
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if is_unchanged(request, etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def is_forwarded(request: Request) -> bool:
    """Whether the request came through a proxy that says so."""
    return not FORWARDED.isdisjoint(request.headers)


class Streamed(Response):
    """An answer that is made, and unless it is held sent, while the request may still be arriving.

    A held one is sent once it is whole, or no more of it can wait: many proxies, nginx among them, forward no
    more of a request once its answer has begun.
    """

    def __init__(
        self, parts: AsyncIterator[bytes], media_type: str, headers: dict[str, str], *, held: bool
    ) -> None:
        super().__init__(headers=headers, media_type=media_type)
        del self.headers["content-length"]
        self._parts, self._held = parts, held

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send each part as soon as the caller takes it, until the end or until the caller leaves."""
        parts = ahead(self._parts, held=self._held)
        with suppress(ClientDisconnect):
            first = await anext(parts, b"") if self._held else b""
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            await send({"type": "http.response.body", "body": first, "more_body": True})
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ahead(parts: AsyncIterator[bytes], *, held: bool = False) -> AsyncIterator[bytes]:
    """The parts, made ahead of a caller who takes none before having sent the whole request."""
    backlog = Backlog()

    async def fill() -> None:
        async for part in parts:
            await backlog.put(part)

    filling = asyncio.create_task(fill())
    filling.add_done_callback(lambda _: backlog.changed.set())
    try:
        while held and not filling.done() and not backlog.is_full:
            backlog.changed.clear()
            await backlog.changed.wait()
        if held and filling.done():
            filling.result()
        while not filling.done() or backlog.length:
            while part := backlog.take():
                yield part
            backlog.changed.clear()
            if not filling.done():
                await backlog.changed.wait()
        await filling
    finally:
        filling.cancel()
        backlog.close()


class Backlog:
    """Bytes that wait to be taken, in an unnamed file; few, and in memory, where no file can be made."""

    def __init__(self) -> None:
        self._file = scratch_file()
        self._limit = MOST_IN_MEMORY if isinstance(self._file, BytesIO) else MOST_ON_DISK
        self._start = self._end = 0
        self.changed, self._taken = asyncio.Event(), asyncio.Event()

    @property
    def length(self) -> int:
        """How many bytes wait."""
        return self._end - self._start

    @property
    def is_full(self) -> bool:
        """Whether no more can wait."""
        return self.length > self._limit

    async def put(self, part: bytes) -> None:
        """Add a part, as soon as there is room for it; raises Refused (503) if the disk has none."""
        while self.is_full:
            self._taken.clear()
            await self._taken.wait()
        try:
            self._file.seek(self._end)
            while part:
                written = self._file.write(part)
                self._end += written
                part = part[written:]
        except OSError:
            detail = "There is no room for an answer of this length; send fewer rows, or take it as it comes."
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "10"}) from None
        self.changed.set()

    def take(self) -> bytes:
        """The first bytes that wait; none if there are none."""
        self._file.seek(self._start)
        part = self._file.read(TAKEN_AT_ONCE)
        self._start += len(part)
        if self._start == self._end:
            self._start = self._end = self._file.truncate(0)
        self._taken.set()
        return part

    def close(self) -> None:
        """Give the room back."""
        self._file.close()


def scratch_file() -> IO[bytes]:
    """A file that goes away when it is closed; on a read-only file system one in memory."""
    try:
        return TemporaryFile(buffering=0)
    except OSError:
        return BytesIO()
