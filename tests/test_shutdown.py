"""How a service ends: told to, with callers that stall, and when its supervisor or a worker is killed."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from model_store.store import Store
from tests.conftest import each_anew, events, free_port, wait_until_ready
from tests.load import Load
from tests.toys import AGE, FUEL, POWER, publish_toy

ROW = json.dumps({AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(ROW)
PATIENCE = 20.0


@pytest.fixture
def toy(store: Store) -> Store:
    store.promote("toy", publish_toy(store).version)
    return store


@contextmanager
def service(
    store: Store, *options: object, log: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service of the store and its port."""
    port = free_port()
    command = [sys.executable, "-m", "app", "--store", store.url, "--port", str(port), *map(str, options)]
    with (log or Path(os.devnull)).open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, text=True)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        yield process, port
    finally:
        process.kill()
        process.wait()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def answered(connection: socket.socket) -> int:
    """The status of the answer on a connection whose request is complete."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def seconds_to_end(process: subprocess.Popen[str]) -> float:
    """How long the process still takes; it must end with code 0."""
    began = time.monotonic()
    assert process.wait(60) == 0
    return time.monotonic() - began


def is_free(port: int) -> bool:
    """Whether the port can be listened on."""
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def seconds_until_free(port: int) -> float:
    began = time.monotonic()
    while not is_free(port):
        assert time.monotonic() < began + PATIENCE
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("workers", [1, 2])
def test_while_it_drains_it_is_not_ready_and_still_answers(toy: Store, workers: int) -> None:
    with service(toy, "--drain-seconds", 3, "--workers", workers) as (process, port):
        told = time.monotonic()
        process.terminate()
        with each_anew(f"http://127.0.0.1:{port}") as client:
            while client.get("/readyz").status_code == 200:
                assert time.monotonic() < told + 2
            statuses = set()
            for _ in range(20):
                ready, answer = client.get("/readyz"), client.post("/predict", content=ROW)
                statuses.add((ready.status_code, ready.json()["status"], answer.status_code))
            assert (503, "not ready", 200) in statuses
            assert {status for _, _, status in statuses} == {200}
            assert client.get("/livez").status_code == 200
        seconds_to_end(process)
        assert 3 < time.monotonic() - told < 15
        assert is_free(port)


def test_without_time_to_drain_it_ends_at_once(toy: Store) -> None:
    with service(toy) as (process, _port):
        process.terminate()
        assert seconds_to_end(process) < 3


def test_told_twice_it_drains_no_longer(toy: Store) -> None:
    with service(toy, "--drain-seconds", 30) as (process, _port):
        process.terminate()
        time.sleep(0.3)
        process.terminate()
        assert seconds_to_end(process) < 5


def test_what_is_in_flight_is_answered(toy: Store) -> None:
    with service(toy) as (process, port), connect(port) as half:
        half.sendall(HEAD + ROW[:5])
        time.sleep(0.3)
        process.terminate()
        assert seconds_until_free(port) < 5
        assert process.poll() is None
        half.sendall(ROW[5:])
        assert answered(half) == 200
        assert seconds_to_end(process) < 5


STALLED = {
    "says nothing": b"",
    "half a request line": b"POST /pre",
    "half a head": HEAD[:-2],
    "half a body": HEAD + ROW[:5],
    "a CSV without end": b"POST /predict/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nage,x\r\n",
    "answered and kept": HEAD + ROW,
}


@pytest.mark.parametrize("workers", [1, 2])
def test_clients_that_stall_do_not_keep_it(toy: Store, workers: int) -> None:
    with service(toy, "--grace-seconds", 2, "--workers", workers) as (process, port), ExitStack() as stack:
        for begun in STALLED.values():
            stack.enter_context(connect(port)).sendall(begun)
        time.sleep(0.5)
        process.terminate()
        assert seconds_to_end(process) < 8


def test_a_client_that_does_not_read_its_answer_does_not_keep_it(toy: Store) -> None:
    table = f"{AGE.name},{POWER.name},{FUEL.name}\n" + "4.0,90.5,diesel\n" * 400_000
    head = "POST /predict/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    with service(toy, "--grace-seconds", 2) as (process, port), connect(port) as slow:
        slow.sendall(f"{head}Content-Length: {len(table)}\r\n\r\n{table}".encode())
        process.terminate()
        assert seconds_to_end(process) < 8


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6])
def test_told_while_it_starts_it_ends(toy: Store, delay: float) -> None:
    command = [sys.executable, "-m", "app", "--store", toy.url, "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(delay)
        process.terminate()
        output, errors = process.communicate(timeout=PATIENCE)
    # Before the first line of it has run, the signal ends Python itself.
    assert process.returncode in {0, -signal.SIGTERM}
    assert "Traceback" not in output + errors


def children(process: subprocess.Popen[str]) -> list[int]:
    """The workers of a supervisor."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in map(int, found) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_for_workers(process: subprocess.Popen[str], log: Path, count: int) -> None:
    """Wait until so many workers have ever started to answer."""
    deadline = time.monotonic() + PATIENCE
    while sum(event["event"] == "Application startup complete." for event in events(log.read_text())) < count:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)


def test_a_supervisor_that_is_killed_leaves_no_worker_and_its_port_free(toy: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with service(toy, "--workers", 2, "--drain-seconds", 30, "--grace-seconds", 1, log=log) as (
        process,
        port,
    ):
        wait_for_workers(process, log, 2)
        workers = children(process)
        stalled = [connect(port) for _ in range(4)]
        for connection in stalled:
            connection.sendall(HEAD + ROW[:5])
        process.kill()
        assert seconds_until_free(port) < 2
        deadline = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for connection in stalled:
            connection.close()
    assert len(workers) == 2


def test_a_worker_that_is_killed_costs_only_its_own_requests(toy: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with service(toy, "--workers", 2, log=log) as (process, port):
        wait_for_workers(process, log, 2)
        with Load(port, "/predict", [ROW], 8) as load:
            time.sleep(0.5)
            os.kill(children(process)[0], signal.SIGKILL)
            wait_for_workers(process, log, 3)
            time.sleep(0.5)
        assert {status for _, status, _ in load.answers.seen} == {200}
        # Each connection to the killed worker loses the one request that it had there.
        assert len(load.answers.dropped) <= 8
        assert len(children(process)) == 2


def test_workers_without_anything_to_serve_keep_looking_and_so_does_one_that_comes_later(
    store: Store, tmp_path: Path
) -> None:
    log, port = tmp_path / "log", free_port()
    command = ["app", "--store", store.url, "--port", str(port), "--workers", "2", "--refresh-seconds", "0.2"]
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=output, text=True)
    try:
        wait_for_workers(process, log, 2)
        os.kill(children(process)[0], signal.SIGKILL)
        wait_for_workers(process, log, 3)
        with each_anew(f"http://127.0.0.1:{port}") as client:
            assert client.get("/livez").status_code == 200
            assert client.get("/readyz").status_code == 503
            store.promote("toy", publish_toy(store).version)
            deadline = time.monotonic() + PATIENCE
            while {client.get("/readyz").status_code for _ in range(10)} != {200}:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


HANGING = """
import sys
from threading import Event
from app.__main__ import main
from model_store._storage import LocalDisk

listed = LocalDisk.list
LocalDisk.list = lambda disk, folder: listed(disk, folder) if folder != "toy/versions" else Event().wait(40)
sys.exit(main())
"""


def test_a_store_that_hangs_does_not_keep_it(toy: Store) -> None:
    port = free_port()
    words = ["--store", toy.url, "--name", "toy", "--port", str(port), "--grace-seconds", "2"]
    command = [sys.executable, "-c", HANGING, *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        callers = [connect(port) for _ in range(8)]
        for caller in callers:
            caller.sendall(b"GET /model/versions HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.5)
        process.terminate()
        try:
            assert seconds_to_end(process) < 20
        finally:
            process.kill()
        for caller in callers:
            caller.close()
