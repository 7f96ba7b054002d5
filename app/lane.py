"""The hot path: the plain `POST /predict`, answered ahead of the framework by the functions of its route.

Whatever is not plain, and whatever anything is wrong with, goes on to the route, which answers or says why.
"""

from collections.abc import Mapping
from http import HTTPStatus
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import Access
from app.bodies import SMALL_BODY
from app.edge import Admission, sane_id
from app.live import Live
from app.logs import RequestLog
from app.problems import Refused
from app.schemas import Prediction
from app.serving import Served
from app.tracing import HotPathTracer, given_trace_id

PATH = "/predict"
UNUSUAL = frozenset({b"content-encoding", b"expect"})
CONTENT_TYPE = (b"content-type", b"application/json")


class Lane:
    """In front of the whole application."""

    def __init__(
        self, app: ASGIApp, live: Live, access: Access, admission: Admission, log: RequestLog, *, traces: bool
    ) -> None:
        self._app, self._live, self._access, self._admission = app, live, access, admission
        self._telemetry, self._log = live.telemetry, log
        self._requests = live.telemetry.requests(PATH, HTTPStatus.OK)
        self._tracer = HotPathTracer(PATH) if traces else None

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
        served = self._live.served
        prediction = served and self._predict(served, headers, message)
        if not (served and prediction):
            await self._app(scope, read_again(message, receive), send)
            return
        request_id, content = sane_id(headers.get(b"x-request-id")), served.encode(prediction)
        length = (b"content-length", b"%d" % len(content))
        answer = [length, CONTENT_TYPE, (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": 200, "headers": answer})
        await send({"type": "http.response.body", "body": content})
        self._telemetry.row(served.tenth(prediction.prediction), prediction.out_of_range)
        self._requests.add(seconds := perf_counter() - began)
        if self._tracer or self._log.is_on:
            self._observe(scope, headers, request_id, prediction, seconds)

    def _predict(self, served: Served, headers: Mapping[bytes, bytes], message: Message) -> Prediction | None:
        """The prediction for a plain request; None if it is for the route to answer."""
        body = message.get("body", b"")
        if message.get("more_body") or len(body) > SMALL_BODY:
            return None
        if not self._access.allows(headers.get(b"authorization")):
            return None
        try:
            return served.predict(body)
        except Refused:
            return None

    def _observe(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        request_id: bytes,
        prediction: Prediction,
        seconds: float,
    ) -> None:
        """Trace and log the request, if it is wanted."""
        trace_id = self._tracer.record(scope, headers, seconds) if self._tracer else given_trace_id(headers)
        self._log(
            method="POST",
            route=PATH,
            status=HTTPStatus.OK,
            seconds=seconds,
            rows=1,
            version=prediction.version,
            request_id=request_id,
            trace_id=trace_id,
        )


def read_again(message: Message, receive: Receive) -> Receive:
    """A `receive` that gives a message that was taken already, then goes on."""
    messages = [message]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
