import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread

import pytest

from app.healthcheck import address, is_live
from tests.conftest import free_port

EVERYWHERE = str(IPv4Address(0))


def healthcheck(**variables: str) -> int:
    command = [sys.executable, "-m", "app.healthcheck"]
    return subprocess.run(command, env=variables, timeout=30, check=False).returncode


def test_the_healthcheck_passes_for_a_service_that_answers(first_service: str) -> None:
    assert healthcheck(PLUMBLINE_PORT=first_service.rpartition(":")[2]) == 0


def test_the_healthcheck_finds_a_service_that_listens_everywhere(first_service: str) -> None:
    assert healthcheck(PLUMBLINE_HOST=EVERYWHERE, PORT=first_service.rpartition(":")[2]) == 0


def test_the_healthcheck_fails_where_nothing_listens() -> None:
    assert healthcheck(PORT=str(free_port())) == 1


def test_a_listener_that_never_answers_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.healthcheck.PATIENCE", 0.2)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not is_live(*silent.getsockname())
    assert time.monotonic() - began < 5


class Unavailable(BaseHTTPRequestHandler):
    """A service with an error for everybody."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def unavailable() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Unavailable) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_answer_that_is_no_success_is_not_live(unavailable: HTTPServer) -> None:
    assert not is_live("127.0.0.1", unavailable.server_port)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("127.0.0.1", 8000)),
        ({"HOST": "::", "PORT": "9000"}, ("::", 9000)),
        ({"HOST": "::", "PLUMBLINE_HOST": "::1", "PORT": "9000", "PLUMBLINE_PORT": "9001"}, ("::1", 9001)),
        ({"PLUMBLINE_HOST": "", "PLUMBLINE_PORT": "", "PORT": "9000"}, ("127.0.0.1", 9000)),
    ],
)
def test_the_healthcheck_asks_where_the_variables_say(
    variables: dict[str, str], expected: tuple[str, int]
) -> None:
    assert address(variables) == expected


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to see the handlers in")
def test_a_container_can_be_stopped_before_the_service_is_imported(first_model: Path) -> None:
    command = [sys.executable, "-m", "app.container", "--store", str(first_model), "--port", "0"]
    with subprocess.Popen(command) as process:
        try:
            while not handles_sigterm(process.pid):
                assert process.poll() is None
                time.sleep(0.001)
            loaded = Path(f"/proc/{process.pid}/maps").read_text()
            process.terminate()
            assert process.wait(timeout=5) == 0
            assert "pydantic_core" not in loaded
        finally:
            process.kill()


def handles_sigterm(process: int) -> bool:
    """Whether it has a handler; https://man7.org/linux/man-pages/man5/proc_pid_status.5.html."""
    (line,) = [
        line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("SigCgt")
    ]
    return bool(int(line.split()[1], 16) & 1 << 14)
