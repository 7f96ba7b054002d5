"""The hot path: the plain `POST /predict`, answered ahead of the framework by the functions of its route.

Whatever is not plain, and whatever anything is wrong with, goes on to the route, which answers or says why.
"""

from collections.abc import Sequence
from http import HTTPStatus
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import Access
from app.live import Live
from app.problems import Refused
from app.protocol import SMALL_BODY, sane_id

PATH = "/predict"
CONTENT_TYPE = (b"content-type", b"application/json")


class Lane:
    """In front of the whole application."""

    def __init__(self, app: ASGIApp, live: Live, access: Access) -> None:
        self._app, self._live, self._access = app, live, access
        self._series = live.telemetry.durations.series(PATH, HTTPStatus.OK)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on with what was read of it."""
        is_plain = scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST"
        if not is_plain or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        message = await receive()
        answer = self._answer(scope["headers"], message)
        if answer is None:
            await self._app(scope, read_again(message, receive), send)
            return
        request_id, content = answer
        length = (b"content-length", b"%d" % len(content))
        headers = [length, CONTENT_TYPE, (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        self._series.add(perf_counter() - began)

    def _answer(self, headers: Sequence[tuple[bytes, bytes]], message: Message) -> tuple[bytes, bytes] | None:
        """The request's id and its answer; None if it is for the route to answer."""
        served, body = self._live.served, message.get("body", b"")
        if served is None or message.get("more_body") or len(body) > SMALL_BODY:
            return None
        # Of two headers of a name the first one counts, as on the route.
        given = dict(reversed(headers))
        if b"content-encoding" in given or not self._access.allows(given.get(b"authorization")):
            return None
        try:
            return sane_id(given.get(b"x-request-id")), served.predict(body)
        except Refused:
            return None


def read_again(message: Message, receive: Receive) -> Receive:
    """A `receive` that gives a message that was taken already, then goes on."""
    messages = [message]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
