"""A request and its answer: the id that both have, and what is counted and logged when they are over."""

import itertools
import re
import secrets
from dataclasses import dataclass
from fractions import Fraction

from starlette.types import Message, Send

from app.logs import logger
from app.telemetry import Telemetry
from app.tracing import current_trace_id

# No status of HTTP's, which has none for it, but nginx's: the caller did not wait for an answer.
CLIENT_LEFT = 499
SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
PROCESS, NUMBERS = secrets.token_hex(8).encode(), itertools.count()


def sane_id(given: bytes | None) -> bytes:
    """The caller's id for its request if it is harmless in a log line, one of our own otherwise."""
    return given if given and SANE_ID.fullmatch(given) else b"%s%016x" % (PROCESS, next(NUMBERS))


class Sender:
    """Sends an answer, its head with the request's id; notes its status, and its trace if none was given."""

    def __init__(self, send: Send, request_id: bytes, trace_id: str | None = None) -> None:
        self._send, self._request_id = send, request_id
        self.status, self.trace_id = CLIENT_LEFT, trace_id

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.trace_id = self.trace_id or current_trace_id()
            message["headers"] = [*message["headers"], (b"x-request-id", self._request_id)]
        await self._send(message)


@dataclass(frozen=True)
class Exchange:
    """A request that is over, and what came of it."""

    method: str
    route: str
    status: int
    seconds: float
    request_id: bytes
    trace_id: str | None
    rows: int | None = None
    version: str | None = None


class Accounts:
    """Counts the requests that are over and logs a share: what came of them, never what they held."""

    def __init__(self, telemetry: Telemetry, share: float) -> None:
        self._telemetry, self.is_logging = telemetry, share > 0
        # Whole numbers, because a tenth as a float is not one in ten when it is added up.
        self._part, self._whole = Fraction(str(share)).as_integer_ratio()
        self._saved = 0

    def add(self, exchange: Exchange) -> None:
        """Count one, and log it if it is its turn."""
        self._telemetry.requests(exchange.route, exchange.status).add(exchange.seconds)
        self.log(exchange)

    def log(self, exchange: Exchange) -> None:
        """Log one that was counted, if it is its turn."""
        self._saved += self._part
        if self._saved < self._whole:
            return
        self._saved -= self._whole
        known = {"rows": exchange.rows, "version": exchange.version, "trace_id": exchange.trace_id}
        logger.info(
            "request",
            method=exchange.method,
            route=exchange.route,
            status=int(exchange.status),
            duration_seconds=round(exchange.seconds, 6),
            request_id=exchange.request_id.decode(),
            **{name: value for name, value in known.items() if value is not None},
        )
