"""The HTTP server's protocol, with one write for an answer's head and body.

uvicorn writes them one after the other, and each write is a system call, the dearest part of a small answer.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_WAITING = 2**16


class Gathering(asyncio.Transport):
    """A transport that keeps what is written, if it is little, until the event loop's next turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport, self._loop = transport, loop
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the bytes until the next turn; write them now if they are many, so that flow is controlled."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(bytes(data))
        self._size += len(data)
        if self._size > MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._transport.writelines(self._waiting)
            self._waiting, self._size = [], 0

    def close(self) -> None:
        """Write what waits, then close."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Take no more from the caller for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more from the caller again."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection."""
        return self._transport.get_extra_info(name, default)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol for httptools, over a transport that gathers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection."""
        self._gathering = Gathering(cast(asyncio.Transport, transport), self.loop)
        super().connection_made(self._gathering)

    def eof_received(self) -> None:
        """The caller sends no more: write what waits, because the event loop closes the connection now."""
        self._gathering.flush()
        super().eof_received()
