"""Answers that are made while their requests arrive, and wait on disk until their callers take them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.refusals import Refused

MOST_ON_DISK, MOST_IN_MEMORY, TAKEN_AT_ONCE = 2**30, 2**20, 2**16
FORWARDED = frozenset({"forwarded", "via", "x-forwarded-for"})


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
