"""The hot path: the plain `POST /predict`, answered ahead of the framework by the functions of its route.

Whatever is not plain goes on to the route. A plain request's row that cannot be answered is refused here, in
the same voice and with the same account of it.
"""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import Access
from app.bodies import SMALL_BODY
from app.edge import Admission
from app.exchange import Accounts, Exchange, Sender, sane_id
from app.live import Live
from app.refusals import Refused
from app.tracing import HotPathTracer, given_trace_id
from app.voices import voice_of

PATH = "/predict"
UNUSUAL = frozenset({b"content-encoding", b"expect"})
CONTENT_TYPE = (b"content-type", b"application/json")


class Lane:
    """In front of the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        live: Live,
        access: Access,
        admission: Admission,
        accounts: Accounts,
        *,
        most_bytes: int,
        traces: bool,
    ) -> None:
        self._app, self._live, self._access, self._admission = app, live, access, admission
        self._telemetry, self._accounts = live.telemetry, accounts
        self._predicted = live.telemetry.requests(PATH, HTTPStatus.OK)
        self._most_bytes = min(most_bytes, SMALL_BODY)
        self._tracer = HotPathTracer(PATH) if traces else None
        self._is_watched = traces or accounts.is_logging

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on with what was read of it."""
        is_ours = scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST"
        if not is_ours or scope["query_string"] or self._admission.is_full:
            await self._app(scope, receive, send)
            return
        began, headers = perf_counter(), dict(scope["headers"])
        # Which of two headers of one name counts, and whether a body shall be sent at all, the route says.
        if len(headers) < len(scope["headers"]) or not UNUSUAL.isdisjoint(headers):
            await self._app(scope, receive, send)
            return
        with self._admission:
            message = await receive()
        served, body = self._live.served, self._plain_body(message, headers)
        if served is None or body is None:
            await self._app(scope, read_again(message, receive), send)
            return
        request_id = sane_id(headers.get(b"x-request-id"))
        try:
            prediction = served.predict(body)
        except Refused as refused:
            await self._refuse(refused, scope, receive, send, request_id, began)
            return
        content = served.encode(prediction)
        length = (b"content-length", b"%d" % len(content))
        head = [length, CONTENT_TYPE, (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": content})
        self._telemetry.row(served.tenth(prediction.prediction), prediction.out_of_range)
        self._predicted.add(seconds := perf_counter() - began)
        if self._is_watched:
            exchange = self._exchange(scope, HTTPStatus.OK, request_id, seconds)
            self._accounts.log(replace(exchange, rows=1, version=prediction.version))

    def _plain_body(self, message: Message, headers: Mapping[bytes, bytes]) -> bytes | None:
        """The whole body of a plain request; None for another, which is for the route to answer."""
        body: bytes = message.get("body", b"")
        is_whole = message["type"] == "http.request" and not message.get("more_body")
        if not is_whole or len(body) > self._most_bytes:
            return None
        return body if self._access.allows(headers.get(b"authorization")) else None

    async def _refuse(
        self, refused: Refused, scope: Scope, receive: Receive, send: Send, request_id: bytes, began: float
    ) -> None:
        response = voice_of(PATH)(refused, request_id.decode())
        await response(scope, receive, Sender(send, request_id).send)
        self._accounts.add(self._exchange(scope, refused.status, request_id, perf_counter() - began))

    def _exchange(self, scope: Scope, status: HTTPStatus, request_id: bytes, seconds: float) -> Exchange:
        """What came of a request, traced if that is wanted."""
        if self._tracer:
            trace_id = self._tracer.record(scope, status, seconds)
        else:
            trace_id = given_trace_id(dict(scope["headers"]))
        return Exchange("POST", PATH, status, seconds, request_id, trace_id)


def read_again(message: Message, receive: Receive) -> Receive:
    """A `receive` that gives a message that was taken already, then goes on."""
    messages = [message]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
