"""A cap on what is in flight: the requests beyond it are told to come again, health and metrics are not."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from model_store.store import open_store
from tests.conftest import serving
from tests.toys import AGE, FUEL, POWER, publish_toy

CAP = 3
ROW = json.dumps({AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}).encode()
PATHS = ["/predict", "/predict?explain=true", "/predict/batch"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    store = open_store(str(tmp_path_factory.mktemp("overload") / "store"))
    store.promote("toy", publish_toy(store).version)
    with (
        serving(Path(store.url), "--max-in-flight", str(CAP)) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


def metric(client: httpx.Client, name: str) -> float:
    """The value of a metric without labels."""
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


@contextmanager
def in_flight(client: httpx.Client, path: str, count: int) -> Iterator[list[socket.socket]]:
    """So many requests whose bodies are still to come."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(ROW)}\r\n\r\n"
    with ExitStack() as stack:
        address = ("127.0.0.1", client.base_url.port or 0)
        opened = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(count)]
        for connection in opened:
            connection.sendall(head.encode() + ROW[:5])
        # The request that asks is in flight too.
        until(client, count + 1)
        yield opened
    until(client, 1)


def until(client: httpx.Client, count: int) -> None:
    """Wait until so many requests are in flight."""
    deadline = time.monotonic() + 10
    while metric(client, "plumbline_requests_in_flight") != count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("held", PATHS)
@pytest.mark.parametrize("path", PATHS)
def test_one_too_many_is_told_when_to_come_again(client: httpx.Client, held: str, path: str) -> None:
    before = metric(client, "plumbline_overload_refusals_total")
    with in_flight(client, held, CAP):
        answer = client.post(path, content=ROW, headers={"X-Request-ID": "mine"})
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0
        assert (answer.json()["status"], answer.json()["request_id"]) == (503, "mine")
        assert answer.headers["X-Request-ID"] == "mine"
        assert client.get("/model").status_code == 503
        assert metric(client, "plumbline_overload_refusals_total") == before + 2


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics"])
def test_health_and_metrics_are_answered_all_the_same(client: httpx.Client, path: str) -> None:
    with in_flight(client, "/predict", CAP):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict?explain=true"])
def test_those_that_were_let_in_are_answered_and_make_room(client: httpx.Client, path: str) -> None:
    with in_flight(client, path, CAP) as opened:
        for connection in opened:
            connection.sendall(ROW[5:])
            assert connection.recv(12) == b"HTTP/1.1 200"
    assert client.post(path, content=ROW).status_code == 200


def test_up_to_the_cap_all_are_answered(client: httpx.Client) -> None:
    with in_flight(client, "/predict", CAP - 1):
        assert client.post("/predict", content=ROW).status_code == 200


def test_a_caller_that_leaves_makes_room(client: httpx.Client) -> None:
    for path in PATHS:
        with in_flight(client, path, CAP):
            pass
    assert client.post("/predict", content=ROW).status_code == 200
