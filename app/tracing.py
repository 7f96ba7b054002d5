"""Spans and trace ids. FastAPI traces its routes itself; here is what the hot path ahead of it needs."""

import os
import re
from collections.abc import Mapping
from time import time_ns

from opentelemetry import propagate, trace
from starlette.types import Scope

# https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
EXPORT_SECONDS = 2


def given_trace_id(headers: Mapping[bytes, bytes]) -> str | None:
    """The id of the trace that the caller's request belongs to."""
    found = TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    return found[1].decode() if found else None


def current_trace_id() -> str | None:
    """The id of the trace that FastAPI records now."""
    return written(trace.get_current_span())


def written(span: trace.Span) -> str | None:
    """The id of a span's trace, as it is written."""
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


class HotPathTracer:
    """Records a request of the hot path as FastAPI records those of its routes."""

    def __init__(self, route: str) -> None:
        self._route = route
        # At its end the process waits for every batch of spans, up to five of them, and for each as long as
        # this says, ten seconds by default, if the collector hangs.
        # https://opentelemetry.io/docs/specs/otel/protocol/exporter/#configuration-options
        os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", str(EXPORT_SECONDS))
        self._tracer = trace.get_tracer("plumbline")

    def record(self, scope: Scope, status: int, seconds: float) -> str | None:
        """Record a request that was answered just now; return the id of its trace."""
        end = time_ns()
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        span = self._tracer.start_span(
            f"POST {self._route}",
            context=propagate.extract(given),
            kind=trace.SpanKind.SERVER,
            start_time=end - int(seconds * 1e9),
            # https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span
            attributes={
                "http.request.method": "POST",
                "http.route": self._route,
                "http.response.status_code": int(status),
                "network.protocol.version": scope["http_version"],
                "url.path": scope["path"],
                "url.scheme": scope["scheme"],
            },
        )
        span.end(end)
        return written(span)
