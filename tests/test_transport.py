"""What goes over the wire when answers are gathered: nothing is lost, nothing piles up."""

import json
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from model_store.store import open_store
from tests.conftest import free_port, wait_until_ready
from tests.toys import AGE, FUEL, POWER, publish_toy

ROW = json.dumps({AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}).encode()
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(ROW) + ROW
HEADER, LINE = f"{AGE.name},{POWER.name},{FUEL.name}\n", "4.0,90.5,diesel\n"
CSV = {"Content-Type": "text/csv", "Via": "1.1 proxy"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = open_store(str(tmp_path_factory.mktemp("transport") / "store"))
    store.promote("toy", publish_toy(store).version)
    return store.url


@contextmanager
def service(
    store: str, largest_file: int = resource.RLIM_INFINITY
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service and its port; it can write no larger file than that."""
    port = free_port()
    limit = ["prlimit", f"--fsize={largest_file}", "--"] if largest_file > 0 else []
    command = [*limit, sys.executable, "-m", "app", "--store", store, "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}")
            yield process, port
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def shared(store: str) -> Iterator[int]:
    """The port of a service that many tests call."""
    with service(store) as (_, port):
        yield port


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes, or cuts the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(2**16):
            received += part
    return received


def test_callers_that_send_no_more_get_their_answer(shared: int) -> None:
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", shared), timeout=20) as caller:
            caller.sendall(POST)
            caller.shutdown(socket.SHUT_WR)
            answer = read_all(caller)
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_was_held_goes_out_in_bounded_memory(store: str) -> None:
    table = (HEADER + LINE * 1_500_000).encode()
    with service(store) as (process, port):
        url = f"http://127.0.0.1:{port}"
        httpx.post(f"{url}/predict/batch", content=(HEADER + LINE * 1000).encode(), headers=CSV)
        before = peak_memory(process)
        with httpx.stream("POST", f"{url}/predict/batch", content=table, headers=CSV, timeout=120) as answer:
            lines = sum(part.count(b"\n") for part in answer.iter_raw())
        grown = peak_memory(process) - before
    assert lines == 1_500_001
    assert grown < 40


def peak_memory(process: subprocess.Popen[str]) -> float:
    """The most memory that the process has had, in MB."""
    found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.needs("prlimit")
@pytest.mark.parametrize("headers", [CSV, {"Content-Type": "text/csv"}], ids=["held", "not held"])
def test_a_disk_without_room_ends_one_answer_and_nothing_else(store: str, headers: dict[str, str]) -> None:
    table = (HEADER + LINE * 200_000).encode()
    with service(store, largest_file=2_000_000) as (_, port):
        url = f"http://127.0.0.1:{port}"
        given = {"Host": "x", "Connection": "close", "Content-Length": str(len(table)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        request = f"POST /predict/batch HTTP/1.1\r\n{head}\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
            caller.sendall(request.encode() + table)
            time.sleep(1)
            assert httpx.get(f"{url}/livez", timeout=5).status_code == 200
            answer = read_all(caller)
        if "Via" in headers:
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"application/problem+json" in answer
        # An answer that has begun can only be cut, which its chunks tell.
        assert not answer.endswith(b"0\r\n\r\n")
        assert httpx.post(f"{url}/predict", content=ROW).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict?explain=true", "/predict/batch"])
@pytest.mark.parametrize("kind", ["application/json", "text/csv"])
def test_a_caller_who_leaves_is_no_error_of_the_service(shared: int, path: str, kind: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n\r\n"
    with httpx.Client(base_url=f"http://127.0.0.1:{shared}") as client:
        with socket.create_connection(("127.0.0.1", shared)) as caller:
            caller.sendall(head.encode() + HEADER.encode())
            time.sleep(0.3)
        time.sleep(0.3)
        counted = re.findall(
            r'seconds_count\{route="/predict[^"]*",status="(\d+)"\}', client.get("/metrics").text
        )
    assert counted
    assert set(counted) <= {"499", "200", "422"}


def test_a_body_that_would_be_refused_is_not_asked_for(shared: int) -> None:
    with socket.create_connection(("127.0.0.1", shared), timeout=20) as caller:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
        caller.sendall(head.encode())
        assert caller.recv(100).startswith(b"HTTP/1.1 413 ")
