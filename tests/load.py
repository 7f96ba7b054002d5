"""Callers that post without pause over connections they keep, and remember every answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Self

PATIENCE = 30.0


@dataclass
class Answers:
    """What came back: how often each (number of the body, status, answer), and how many seconds each took."""

    seen: Counter[tuple[int, int, bytes]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def quantile(self, part: float) -> float:
        """The seconds within which that part of the requests was answered."""
        return sorted(self.seconds)[int(part * (len(self.seconds) - 1))]


class Load:
    """Posts the bodies to a path from many connections, in a thread of its own, from `with` to its end."""

    def __init__(self, port: int, path: str, bodies: Sequence[bytes], connections: int) -> None:
        self.answers = Answers()
        self._port, self._connections = port, connections
        self._requests = [request(path, body) for body in bodies]
        self._over = Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._call_from_all())

    async def _call_from_all(self) -> None:
        await asyncio.gather(*(self._call(number) for number in range(self._connections)))

    async def _call(self, number: int) -> None:
        """One connection; one that ends before its time is counted and replaced."""
        while not self._over.is_set():
            try:
                number = await self._call_until_over(number)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self.answers.dropped.append(f"{type(error).__name__}: {error}")

    async def _call_until_over(self, number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while not self._over.is_set():
                number = (number + 1) % len(self._requests)
                began = time.perf_counter()
                writer.write(self._requests[number])
                status, answer, is_last = await asyncio.wait_for(read_answer(reader), PATIENCE)
                self.answers.seconds.append(time.perf_counter() - began)
                self.answers.seen[number, status, answer] += 1
                if is_last:
                    break
        finally:
            writer.close()
        return number


def request(path: str, body: bytes) -> bytes:
    """A POST as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """One answer's status and body, and whether the connection ends with it; raises EOFError for none."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status_line, *lines = head.strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(status_line.split(" ")[1]), body, headers.get("connection") == "close"
