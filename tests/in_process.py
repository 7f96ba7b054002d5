"""The application and the command lines in the tests' own process: no sockets, no signals, no workers.

The application is called over ASGI as its server calls it. httpx's own transport for that never sends a body
in one message, and so never comes to the hot path.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from subprocess import CompletedProcess
from typing import Any, Self

import httpx
from anyio.from_thread import start_blocking_portal
from starlette.types import ASGIApp, Message, Scope

from app.live import Live
from app.main import create_app
from app.settings import Settings
from app.telemetry import Telemetry
from model_store.store import Store

MOST_AT_ONCE = 2**16


class InProcess(httpx.BaseTransport):
    """Calls an application in an event loop in a thread of its own, which lasts as long as the client."""

    def __init__(self, application: ASGIApp) -> None:
        self._application, self._opened = application, ExitStack()

    def __enter__(self) -> Self:
        self._portal = self._opened.enter_context(start_blocking_portal())
        return self

    def close(self) -> None:
        """End the event loop."""
        self._opened.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The application's answer, once it is whole; raises whatever the application does."""
        return self._portal.call(exchange, self._application, request, body_of(request))


async def exchange(application: ASGIApp, request: httpx.Request, arriving: deque[Message]) -> httpx.Response:
    """One request and its answer."""
    answer: list[Message] = []
    answered = asyncio.Event()

    async def receive() -> Message:
        if arriving:
            return arriving.popleft()
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answer.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            answered.set()

    await application(scope_of(request), receive, send)
    start, *parts = answer
    content = b"".join(part.get("body", b"") for part in parts)
    headers = httpx.Headers(start["headers"])
    assert int(headers.get("content-length", len(content))) == len(content)
    stream = httpx.ByteStream(b"" if request.method == "HEAD" else content)
    return httpx.Response(start["status"], headers=headers, stream=stream)


def body_of(request: httpx.Request) -> deque[Message]:
    """The body as it arrives: a short one whole, a long one in parts, a streamed one as it is streamed."""
    if isinstance(request.stream, httpx.ByteStream):
        body = request.read()
        parts = [body[start : start + MOST_AT_ONCE] for start in range(0, len(body) or 1, MOST_AT_ONCE)]
    else:
        assert isinstance(request.stream, httpx.SyncByteStream)
        parts = [*request.stream, b""]
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    return deque(messages)


def scope_of(request: httpx.Request) -> Scope:
    """What the server says of a request before its body."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "root_path": "",
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


def assembled(store: Store, **settings: Any) -> tuple[Live, ASGIApp]:
    """An application, and what is live in it: what the store has now."""
    chosen = Settings(store=store.url, **settings)
    live = Live(store, Telemetry(), chosen)
    live.look()
    return live, create_app(live, chosen)


def client_of(application: ASGIApp) -> httpx.Client:
    """A client that calls an application."""
    return httpx.Client(transport=InProcess(application), base_url="http://test")


@contextmanager
def calling(store: Store, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a service of what the store has now."""
    _, application = assembled(store, **settings)
    with client_of(application) as client:
        yield client


def run_here(main: Callable[[Sequence[str]], int], *arguments: object) -> CompletedProcess[str]:
    """What a command line prints, and its exit code."""
    words = list(map(str, arguments))
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        try:
            code: Any = main(words)
        except SystemExit as ended:
            code = ended.code
    return CompletedProcess(words, code, output.getvalue(), errors.getvalue())
