"""Traces as a collector receives them: one span a request, on the hot path as behind it."""

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from model_store.store import Store, open_store
from tests.conftest import each_anew, free_port, wait_until_ready
from tests.load import Load
from tests.test_live import ROW, Service, eventually, running
from tests.test_logs import BODY, CASES, MALFORMED, PARENT, TRACE, VALID, Case, line_of, send
from tests.toys import publish_toy

# The framework names what is below a mount, as no log line and no metric does.
TRACED = {name: case for name, case in CASES.items() if name != "asset"}
SLOW = "/predict?explain=true"
SOON = 15.0
PRINT_MODULES = (
    "import json, sys; from app.__main__ import main; code = main();"
    "json.dump(list(sys.modules), sys.stderr); sys.exit(code)"
)


class Collector(ThreadingHTTPServer):
    """Receives spans as OpenTelemetry's protocol sends them over HTTP (OTLP/HTTP, protobuf)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.calls: list[str] = []
        self.spans: list[Span] = []
        self.services: set[str] = set()

    @property
    def url(self) -> str:
        """Where it receives."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Receiver(BaseHTTPRequestHandler):
    """Takes one export."""

    server: Collector

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append(self.path)
        for resource in ExportTraceServiceRequest.FromString(content).resource_spans:
            attributes = attributes_of(resource.resource)
            self.server.services.add(str(attributes.get("service.name")))
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *_: Any) -> None:
        """Say nothing."""


def attributes_of(described: Any) -> dict[str, str | int]:
    """The attributes of a span or of a resource."""
    return {
        pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in described.attributes
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that receives until the end."""
    with Collector() as collector:
        thread = Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


@contextmanager
def exporting(url: str, **variables: str) -> Iterator[None]:
    """Have the processes that are started meanwhile send their spans there, soon."""
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "50", **variables}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def toy_store(store: Store) -> Store:
    store.promote("toy", publish_toy(store).version)
    return store


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that logs and traces every request."""
    store = open_store(str(tmp_path_factory.mktemp("tracing") / "store"))
    store.promote("toy", publish_toy(store).version)
    arguments = ("--log-requests", "1", "--tracing", "true")
    with exporting(collector.url), running(store, *arguments) as service:
        yield service


def spans_of(service: Service, collector: Collector, answer: httpx.Response) -> list[Span]:
    """The spans of the trace that the answer's log line names, after those of a later request came in."""
    trace = line_of(service, answer)["trace_id"]
    later = line_of(service, service.client.post("/predict", content=BODY))["trace_id"]
    for awaited in (trace, later):
        eventually("the span has come", partial(has_come, collector, awaited))
    return [span for span in collector.spans if span.trace_id.hex() == trace]


def has_come(collector: Collector, trace: str) -> bool:
    return trace in {span.trace_id.hex() for span in list(collector.spans)}


@pytest.mark.parametrize("case", TRACED.values(), ids=TRACED)
def test_every_request_is_one_span_of_the_same_form(
    traced: Service, collector: Collector, case: Case
) -> None:
    (span,) = spans_of(traced, collector, send(traced.client, case))
    # The framework sees GET where HEAD is asked for.
    method = "GET" if case.method == "HEAD" else case.method
    described = attributes_of(span)
    route = None if case.route == "other" else case.route
    assert described.get("http.route") == route
    assert span.name == (f"{method} {route}" if route else method)
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.status.code == 0
    assert described["http.request.method"] == method
    assert described["http.response.status_code"] == case.status
    assert described["url.path"] == case.path.partition("?")[0]
    assert described["url.scheme"] == "http"
    assert described["network.protocol.version"] == "1.1"
    assert span.parent_span_id == b""


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/predict", BODY, 200),
        (SLOW, BODY, 200),
        ("/predict", b"{}", 422),
        ("/predict", b"{", 400),
        (SLOW, b"{}", 422),
        ("/predict/batch", b"{}", 422),
        ("/nowhere", b"", 404),
    ],
)
@pytest.mark.parametrize("given", [given for name, given in VALID.items() if name != "not sampled"])
def test_the_callers_trace_is_continued_by_one_span(
    traced: Service, collector: Collector, path: str, body: bytes, status: int, given: str
) -> None:
    trace = new_trace()
    sent = given.replace(TRACE, trace)
    answer = traced.client.post(path, content=body, headers={"traceparent": sent})
    assert answer.status_code == status
    (span,) = spans_of(traced, collector, answer)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, PARENT)
    assert attributes_of(span)["http.response.status_code"] == status


def new_trace() -> str:
    """The id of a trace that no other test has."""
    return secrets.token_hex(16)


@pytest.mark.parametrize("path", ["/predict", SLOW])
def test_a_trace_that_its_caller_does_not_record_is_named_and_not_sent(
    traced: Service, collector: Collector, path: str
) -> None:
    trace = new_trace()
    headers = {"traceparent": f"00-{trace}-{PARENT}-00"}
    assert line_of(traced, traced.client.post(path, content=BODY, headers=headers))["trace_id"] == trace
    assert spans_of(traced, collector, traced.client.post(path, content=BODY))
    assert not has_come(collector, trace)


@pytest.mark.parametrize("path", ["/predict", SLOW])
@pytest.mark.parametrize("given", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_trace_is_not_continued_and_the_log_names_the_new_one(
    traced: Service, collector: Collector, path: str, given: str
) -> None:
    answer = traced.client.post(path, content=BODY, headers={"traceparent": given})
    (span,) = spans_of(traced, collector, answer)
    assert span.parent_span_id == b""
    assert span.trace_id.hex() != TRACE


@pytest.mark.parametrize("path", ["/predict", SLOW])
def test_a_spans_time_is_that_of_its_request(traced: Service, collector: Collector, path: str) -> None:
    for _ in range(5):
        before = time.time_ns()
        answer = traced.client.post(path, content=BODY)
        after = time.time_ns()
        (span,) = spans_of(traced, collector, answer)
        # The span may end a little after its answer has arrived.
        assert before <= span.start_time_unix_nano < after
        assert span.start_time_unix_nano < span.end_time_unix_nano < after + 1e9
        took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        logged = line_of(traced, answer)["duration_seconds"]
        if path == "/predict":
            assert took == pytest.approx(logged, abs=2e-6)
        else:
            assert logged / 10 < took < logged


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_spans_that_wait_are_sent_before_the_end(toy_store: Store, workers: str) -> None:
    waits = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_SERVICE_NAME": "cars"}
    arguments = ("--tracing", "true", "--workers", workers)
    with collecting() as collector, exporting(collector.url, **waits):
        with running(toy_store, *arguments) as service, each_anew(service.client.base_url) as client:
            traces = [new_trace() for _ in range(40)]
            for number, trace in enumerate(traces):
                path = SLOW if number % 2 else "/predict"
                headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
                assert client.post(path, content=BODY, headers=headers).status_code == 200
            assert collector.spans == []
        assert collector.spans
    posts = [span for span in collector.spans if span.name.startswith("POST")]
    assert sorted(span.trace_id.hex() for span in posts) == sorted(traces)
    assert len({span.span_id for span in collector.spans}) == len(collector.spans)
    assert collector.services == {"cars"}
    assert set(collector.calls) == {"/v1/traces"}


@pytest.mark.parametrize("traces", [True, False])
def test_what_traces_is_loaded_and_sends_only_if_it_is_asked_for(toy_store: Store, *, traces: bool) -> None:
    port = free_port()
    words = ["--store", toy_store.url, "--port", str(port), "--tracing", str(traces)]
    with collecting() as collector, exporting(collector.url):
        with started_with(PRINT_MODULES, *words) as process:
            wait_until_ready(process, f"http://127.0.0.1:{port}")
            for path in ("/predict", SLOW):
                headers = {"traceparent": VALID["sampled"]}
                httpx.post(f"http://127.0.0.1:{port}{path}", content=BODY, headers=headers)
            process.terminate()
            _, errors = process.communicate(timeout=SOON)
        assert process.returncode == 0
        loaded = set(json.loads(errors))
    assert "app.tracing" in loaded
    for name in ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests"):
        assert (name in loaded) is traces
    assert bool(collector.calls) is traces


@contextmanager
def started_with(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the code; it is gone afterwards."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("requests", [5, 5_000])
@pytest.mark.parametrize("state", ["down", "hanging"])
def test_a_collector_that_is_down_or_hangs_holds_up_neither_answers_nor_the_end(
    toy_store: Store, state: str, requests: int
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        port = silent.getsockname()[1]
        if state == "down":
            silent.close()
        with (
            exporting(f"http://127.0.0.1:{port}"),
            running(toy_store, "--tracing", "true") as service,
        ):
            service.client.post(SLOW, json=ROW)
            with Load(service.client.base_url.port or 0, "/predict", [BODY], 4) as load:
                eventually("enough are answered", lambda: len(load.answers.seconds) >= requests)
            ends = time.monotonic()
    assert time.monotonic() - ends < SOON
    assert load.answers.dropped == []
    assert {status for _, status, _ in load.answers.seen} == {200}
    assert load.answers.quantile(0.5) < 0.05
    assert max(load.answers.seconds) < 2.0


def test_the_operators_own_limit_for_a_hanging_collector_is_kept(toy_store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            exporting(url, OTEL_EXPORTER_OTLP_TIMEOUT="6"),
            running(toy_store, "--tracing", "true") as service,
        ):
            service.client.post("/predict", json=ROW)
            ends = time.monotonic()
    assert time.monotonic() - ends > 5
