import getpass
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
import yaml

from app.__main__ import configure
from app.settings import Settings
from model_store.store import open_store
from tests.conftest import free_port, started
from tests.toys import AGE, FUEL, POWER, publish_toy

ROOT = Path(__file__).parent.parent
CONFIGURATION = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
REPLICAS = ("replica-a:8000", "replica-b:8000")
ROW: dict[str, float | str] = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
CSV = {"Content-Type": "text/csv"}

needs_nginx = pytest.mark.needs("nginx")


class Echo(BaseHTTPRequestHandler):
    """Answers 200 with the headers that came."""

    protocol_version = "HTTP/1.1"
    status = 200
    has_come = Event()

    def do_POST(self) -> None:
        self.has_come.set()
        self.rfile.read(int(self.headers["Content-Length"]))
        content = json.dumps(dict(self.headers.items())).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", "5")
        self.send_header("X-Request-ID", self.headers["X-Request-ID"])
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Full(Echo):
    """Answers 503, as a replica does that has as much to do as it takes."""

    status = 503


@contextmanager
def stub(kind: type[Echo]) -> Iterator[str]:
    """A server that is no Plumbline; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.block_on_close = False
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def wait_until_listening(port: int) -> None:
    """Wait until something takes connections."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("nothing listens")


def write_configuration(folder: Path, port: int, replicas: Sequence[str]) -> Path:
    """A copy of the configuration for addresses of this machine, which writes to the folder only."""
    (written_to,) = re.findall(r"^pid (.+)/nginx\.pid;$", CONFIGURATION, re.MULTILINE)
    text = CONFIGURATION.replace(f"{written_to}/", f"{folder}/")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    for name, address in zip(REPLICAS, replicas, strict=True):
        assert name in text
        text = text.replace(name, address)
    path = folder / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def nginx(folder: Path, *replicas: str) -> Iterator[httpx.Client]:
    """A client of a real nginx in front of the replicas."""
    port = free_port()
    path = write_configuration(folder, port, replicas)
    # Its workers would have no access to the test's folder, were they another user's.
    directives = f"daemon off; user {getpass.getuser()};"
    command = ["nginx", "-c", str(path), "-g", directives]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until_listening(port)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield client
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a toy that is promoted."""
    path = tmp_path_factory.mktemp("toy") / "store"
    store = open_store(str(path))
    store.promote("toy", publish_toy(store).version)
    return path


@needs_nginx
def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    path = write_configuration(tmp_path, free_port(), ["127.0.0.1:1", "127.0.0.1:2"])
    command = ["nginx", "-t", "-c", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "[warn]" not in result.stderr


def test_the_replicas_are_services_of_docker_compose_and_the_port_is_published() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    asked = set(re.findall(r"\bserver ([\w-]+):(\d+)", CONFIGURATION))
    assert asked == {("replica-a", "8000"), ("replica-b", "8000")}
    assert {name for name, _ in asked} <= services.keys()
    (listened,) = re.findall(r"\blisten (\d+);", CONFIGURATION)
    assert services["nginx"]["ports"] == [f"127.0.0.1:{listened}:{listened}"]


def test_nginx_gives_an_idle_connection_up_before_the_service_does() -> None:
    upstream = CONFIGURATION.partition("upstream plumbline {")[2].partition("}")[0]
    (seconds,) = re.findall(r"\bkeepalive_timeout (\d+)s;", upstream)
    assert int(seconds) < configure(lambda: None, Settings()).timeout_keep_alive


def test_nginx_takes_more_than_the_service_so_that_the_service_says_what_is_too_large() -> None:
    limits = [int(size) * 2**20 for size in re.findall(r"\bclient_max_body_size (\d+)m;", CONFIGURATION)]
    assert min(limits) > Settings().max_body_bytes


@needs_nginx
def test_no_request_fails_while_one_of_two_replicas_ends(tmp_path: Path, toy_store: Path) -> None:
    ports = [free_port(), free_port()]
    start = partial(started, "app", "--store", toy_store, "--port")
    with (
        start(ports[0], port=ports[0]) as ending,
        start(ports[1], port=ports[1]),
        nginx(tmp_path, *(f"127.0.0.1:{port}" for port in ports)) as client,
        ThreadPoolExecutor(4) as callers,
    ):
        answers = [callers.submit(client.post, "/predict", json=ROW) for _ in range(600)]
        answers[100].result()
        ending.send_signal(signal.SIGTERM)
        assert {answer.result().status_code for answer in answers} == {200}
        assert ending.wait(20) == 0
        assert client.post("/predict", json=ROW).status_code == 200


@needs_nginx
def test_a_csv_longer_than_any_buffer_comes_back_whole(tmp_path: Path, mixed_service: str) -> None:
    header = ",".join((AGE.name, POWER.name, FUEL.name))
    content = f"{header}\n".encode() + b"4.0,90.5,diesel\n" * 600_000
    assert len(content) > 9_000_000
    address = mixed_service.removeprefix("http://")
    with nginx(tmp_path, address, address) as client:
        answer = client.post("/predict/batch", content=content, headers=CSV)
    direct = httpx.post(f"{mixed_service}/predict/batch", content=content, headers=CSV)
    assert (answer.status_code, answer.content) == (200, direct.content)


@needs_nginx
def test_a_csv_goes_on_to_the_replica_before_it_has_come_whole(tmp_path: Path) -> None:
    Echo.has_come.clear()

    def halves() -> Iterator[bytes]:
        yield b"a\n"
        assert Echo.has_come.wait(10)
        yield b"1\n"

    with stub(Echo) as address, nginx(tmp_path, address, address) as client:
        headers = {"Content-Length": "4", **CSV}
        assert client.post("/predict/batch", content=halves(), headers=headers).status_code == 200


@needs_nginx
def test_a_batch_of_json_is_answered_on_the_path_of_the_csv(tmp_path: Path, mixed_service: str) -> None:
    address = mixed_service.removeprefix("http://")
    with nginx(tmp_path, address, address) as client:
        answer = client.post("/predict/batch", json={"instances": [ROW, ROW]})
    assert len(answer.json()["predictions"]) == 2


@needs_nginx
@pytest.mark.parametrize(
    ("path", "kind"), [("/predict", {}), ("/predict/batch", {}), ("/predict/batch", CSV)]
)
def test_the_callers_id_and_trace_go_on_to_the_replica(
    tmp_path: Path, path: str, kind: dict[str, str]
) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"X-Request-ID": "call-7:a", "traceparent": trace, "tracestate": "a=1", **kind}
    with stub(Echo) as address, nginx(tmp_path, address, address) as client:
        answer = client.post(path, content="1", headers=headers)
    came = {name.lower(): value for name, value in answer.json().items()}
    assert (came["traceparent"], came["tracestate"]) == (trace, "a=1")
    assert came["x-request-id"] == "call-7:a"
    assert came["x-forwarded-for"] == "127.0.0.1"
    assert answer.headers.get_list("X-Request-ID") == ["call-7:a"]


@needs_nginx
def test_an_id_that_the_service_would_not_take_is_replaced_by_one_that_it_takes(tmp_path: Path) -> None:
    with stub(Echo) as address, nginx(tmp_path, address, address) as client:
        answer = client.post("/predict", content="1", headers={"X-Request-ID": 'a"b'})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert answer.json()["X-Request-ID"] == answer.headers["X-Request-ID"]
    assert "traceparent" not in answer.json()


@needs_nginx
def test_a_replica_that_is_full_costs_no_caller_an_answer(tmp_path: Path) -> None:
    with stub(Full) as full, stub(Echo) as free, nginx(tmp_path, full, free) as client:
        assert {client.post("/predict", content="1").status_code for _ in range(20)} == {200}


@needs_nginx
def test_when_all_replicas_are_full_each_caller_is_told_when_to_come_back(tmp_path: Path) -> None:
    with stub(Full) as one, stub(Full) as other, nginx(tmp_path, one, other) as client:
        answers = [client.post("/predict", content="1") for _ in range(20)]
    told = {(answer.status_code, answer.headers["Retry-After"]) for answer in answers}
    # The replicas' own answer, or nginx's while it counts both as failed.
    assert (503, "5") in told
    assert told <= {(503, "5"), (503, "1")}


@needs_nginx
def test_nginx_itself_answers_as_the_service_does(tmp_path: Path) -> None:
    with nginx(tmp_path, "127.0.0.1:1", "127.0.0.1:1") as client:
        gone = client.post("/predict", json=ROW, headers={"X-Request-ID": "a"})
        large = client.post("/predict", content=b" " * 9_000_000)
    assert (gone.status_code, gone.headers["Retry-After"], gone.headers["X-Request-ID"]) == (503, "1", "a")
    for answer in (gone, large):
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
    assert large.status_code == 413


@needs_nginx
@pytest.mark.parametrize("path", ["/metrics", "/csv", "/rows"])
def test_what_is_not_for_callers_is_not_there(tmp_path: Path, path: str, mixed_service: str) -> None:
    address = mixed_service.removeprefix("http://")
    with nginx(tmp_path, address, address) as client:
        assert client.get("/livez").status_code == 200
        assert client.get(path).status_code == 404
