"""The log says of every request what came of it, never what it held, and nobody waits for it."""

import fcntl
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from model_store.store import Store, open_store
from tests.conftest import each_anew, events, free_port, wait_until_ready
from tests.load import Load
from tests.test_live import ROW, Service, eventually, flip, follows, running, watching
from tests.toys import AGE, FUEL, POWER, publish_toy, toy_rows

BODY = json.dumps(ROW).encode()
HEADER = f"{AGE.name},{POWER.name},{FUEL.name}\n"
# Two of its five rows cannot be answered; the empty line is none.
CSV_BODY = f"{HEADER}4,90,diesel\nmany,90,diesel\n\n5,80,petrol\n6,70,wood\n1e9,60,petrol\n".encode()
BATCH = {"instances": toy_rows(3)}
COLUMNS = {"columns": {AGE.name: [1, 2, 3, 4], POWER.name: [60] * 4, FUEL.name: ["petrol"] * 4}}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = {
    "sampled": f"00-{TRACE}-{PARENT}-01",
    "not sampled": f"00-{TRACE}-{PARENT}-00",
    "unknown flags": f"00-{TRACE}-{PARENT}-ff",
    "a later format": f"01-{TRACE}-{PARENT}-01",
    "a later format with more": f"cc-{TRACE}-{PARENT}-01-what.the-future-brings",
}
MALFORMED = {
    "empty": "",
    "no format": f"{TRACE}-{PARENT}-01",
    "the format that none has": f"ff-{TRACE}-{PARENT}-01",
    "this format with more": f"00-{TRACE}-{PARENT}-01-more",
    "a later format with more and no dash": f"01-{TRACE}-{PARENT}-01more",
    "no trace": f"00-{'0' * 32}-{PARENT}-01",
    "no parent": f"00-{TRACE}-{'0' * 16}-01",
    "capitals": f"00-{TRACE.upper()}-{PARENT}-01",
    "not hexadecimal": f"00-{'g' * 32}-{PARENT}-01",
    "a short trace": f"00-{TRACE[1:]}-{PARENT}-01",
    "a long trace": f"00-{TRACE}0-{PARENT}-01",
    "a short parent": f"00-{TRACE}-{PARENT[1:]}-01",
    "no flags": f"00-{TRACE}-{PARENT}",
    "one flag": f"00-{TRACE}-{PARENT}-1",
    "other dashes": f"00_{TRACE}_{PARENT}_01",
    "something in front": f"x00-{TRACE}-{PARENT}-01",
}
BEHIND_SHELL = ("sh", "-c", 'exec "$@" >&-', "sh")
SOON = 8.0


@dataclass(frozen=True)
class Case:
    """A request, and what its log line is to say."""

    method: str
    path: str
    status: int
    route: str
    content: bytes = b""
    rows: int | None = None
    content_type: str = "application/json"


CASES = {
    "hot path": Case("POST", "/predict", 200, "/predict", BODY, 1),
    "explained": Case("POST", "/predict?explain=true", 200, "/predict", BODY, 1),
    "not explained": Case("POST", "/predict?explain=false", 200, "/predict", BODY, 1),
    "instances": Case("POST", "/predict/batch", 200, "/predict/batch", json.dumps(BATCH).encode(), 3),
    "columns": Case("POST", "/predict/batch", 200, "/predict/batch", json.dumps(COLUMNS).encode(), 4),
    "CSV": Case("POST", "/predict/batch", 200, "/predict/batch", CSV_BODY, 5, "text/csv"),
    "CSV without a row": Case(
        "POST", "/predict/batch", 200, "/predict/batch", HEADER.encode(), 0, "text/csv"
    ),
    "no JSON": Case("POST", "/predict", 400, "/predict", b"{"),
    "refused row": Case("POST", "/predict", 422, "/predict", b"{}"),
    "refused query": Case("POST", "/predict?explain=maybe", 422, "/predict", BODY),
    "refused batch": Case("POST", "/predict/batch", 422, "/predict/batch", b'{"instances": [{}]}'),
    "refused CSV": Case("POST", "/predict/batch", 422, "/predict/batch", b"a,b\n1,2\n", None, "text/csv"),
    "model": Case("GET", "/model", 200, "/model"),
    "HEAD": Case("HEAD", "/model", 200, "/model"),
    "unknown path": Case("GET", "/no/such/path", 404, "other"),
    "unknown path below a route": Case("POST", "/predict/once", 404, "other", BODY),
    "other method": Case("PUT", "/predict", 405, "/predict", BODY),
    "asset": Case("GET", "/docs/assets/favicon.png", 200, "other"),
}


def send(client: httpx.Client, case: Case, headers: dict[str, str] | None = None) -> httpx.Response:
    """Send a case's request; its answer has the status that is expected."""
    given = {"Content-Type": case.content_type, **(headers or {})}
    answer = client.request(case.method, case.path, content=case.content, headers=given)
    assert answer.status_code == case.status, answer.text
    return answer


@pytest.fixture
def toy_store(store: Store) -> Store:
    store.promote("toy", publish_toy(store).version)
    return store


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that logs every request."""
    store = open_store(str(tmp_path_factory.mktemp("logs") / "store"))
    store.promote("toy", publish_toy(store).version)
    with running(store, "--log-requests", "1") as service:
        yield service


def requests_in(log: str) -> list[dict[str, Any]]:
    """The lines about requests."""
    return [event for event in events(log) if event["event"] == "request"]


def line_of(service: Service, answer: httpx.Response) -> dict[str, Any]:
    """The one line with the answer's id, after those of a later request, so that a second one would show."""
    for wanted in (answer, service.client.get("/livez")):
        needle = f'"request_id": "{wanted.headers["X-Request-ID"]}"'
        eventually("the line is written", partial(is_in, service.log, needle))
    found = requests_in(service.log.read_text())
    (line,) = (line for line in found if line["request_id"] == answer.headers["X-Request-ID"])
    return line


def is_in(log: Path, text: str) -> bool:
    return text in log.read_text()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_request_has_one_line_that_says_what_came_of_it(talkative: Service, case: Case) -> None:
    began, before = time.perf_counter(), datetime.now(UTC)
    answer = send(talkative.client, case)
    line = line_of(talkative, answer)
    took = time.perf_counter() - began
    assert list(line)[:3] == ["timestamp", "level", "event"]
    written = datetime.fromisoformat(line.pop("timestamp"))
    assert before - timedelta(milliseconds=1) <= written <= before + timedelta(seconds=30)
    assert 0 < line.pop("duration_seconds") <= took
    expected = {
        "level": "info",
        "event": "request",
        "method": case.method,
        "route": case.route,
        "status": case.status,
        "request_id": answer.headers["X-Request-ID"],
    }
    answered = {} if case.rows is None else {"rows": case.rows, "version": "1"}
    assert line == expected | answered


@pytest.mark.parametrize("path", ["/predict", "/predict?explain=true", "/nowhere"])
def test_the_callers_own_id_is_the_lines(talkative: Service, path: str) -> None:
    given = f"from-the-caller{path.partition('?')[0]}/{len(path)}"
    answer = talkative.client.post(path, content=BODY, headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given
    assert line_of(talkative, answer)["request_id"] == given


@pytest.mark.parametrize("path", ["/predict", "/predict?explain=true", "/predict/batch", "/nowhere"])
@pytest.mark.parametrize("given", VALID.values(), ids=VALID)
def test_the_callers_trace_is_named(talkative: Service, path: str, given: str) -> None:
    answer = talkative.client.post(path, content=BODY, headers={"traceparent": given})
    assert line_of(talkative, answer)["trace_id"] == TRACE


@pytest.mark.parametrize("path", ["/predict", "/predict?explain=true", "/nowhere"])
@pytest.mark.parametrize("given", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_trace_is_not_named(talkative: Service, path: str, given: str) -> None:
    answer = talkative.client.post(path, content=BODY, headers={"traceparent": given})
    assert "trace_id" not in line_of(talkative, answer)


def test_a_large_csvs_rows_are_counted_in_its_one_line(talkative: Service) -> None:
    rows = [f"{age},{power},diesel" for age in range(1, 200) for power in range(50, 250)]
    rows[::100] = ["old,90,diesel"] * len(rows[::100])
    body = (HEADER + "\n".join(rows)).encode()
    answer = send(talkative.client, Case("POST", "/predict/batch", 200, "", body, None, "text/csv"))
    assert line_of(talkative, answer)["rows"] == len(rows)


def test_every_line_is_json_with_its_time_level_and_event_in_front(toy_store: Store) -> None:
    with running(toy_store, "--log-requests", "1", "--log-level", "debug") as service:
        for case in CASES.values():
            send(service.client, case)
        garbage(service)
        flip(Path(toy_store.url, "toy", "versions", str(publish_toy(toy_store).version), "manifest.json"))
        service.hang_up()
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert {tuple(line)[:3] for line in lines} == {("timestamp", "level", "event")}
    told = {re.sub(r"\[\d+\]", "", line["event"]) for line in lines}
    of_uvicorn = {"Started server process ", "Application startup complete.", "Finished server process "}
    assert of_uvicorn | {"settings", "serving", "listening", "request"} <= told


def garbage(service: Service, content: bytes = b"SECRETVERB /secretpath HTTP/9.9\r\n\r\n") -> None:
    """Send what is no HTTP, and wait until the connection ends."""
    host, port = service.client.base_url.host, service.client.base_url.port
    with socket.create_connection((host, port or 80), timeout=20) as connection:
        connection.sendall(content)
        while connection.recv(65536):
            pass


@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_line_holds_what_a_request_held(
    toy_store: Store, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "secret-of-the-caller"
    digest = hashlib.sha256(key.encode()).hexdigest()
    monkeypatch.setenv("PLUMBLINE_API_KEYS", digest)
    row = {AGE.name: 7.654321987, POWER.name: 98.76543219, FUEL.name: "diesel"}
    bodies: list[tuple[str, object]] = [
        ("/predict", row),
        ("/predict?explain=true", row),
        ("/predict?secretquery=secretvalue", row),
        ("/predict?explain=secretvalue", row),
        ("/predict", row | {FUEL.name: "secretfuel"}),
        ("/predict", row | {AGE.name: "secrettext"}),
        ("/predict", row | {"secretmember": 7.654321987}),
        ("/predict/batch", {"instances": [row, row]}),
        ("/predict/batch", {"instances": [row, row | {FUEL.name: "secretfuel"}]}),
        ("/predict/batch", {"columns": {name: [value] for name, value in row.items()}}),
        ("/secretpath/7.654321987", row),
        ("/predict/%73ecretescaped", "secrettext"),
    ]
    kept = {"Authorization": f"Bearer {key}", "Cookie": "secretcookie", "User-Agent": "secretagent"}
    with running(toy_store, "--log-requests", "1", "--log-level", level) as service:
        began = len(requests_in(service.log.read_text()))
        for path, body in bodies:
            service.client.post(path, json=body, headers=kept | {"tracestate": "secret=state"})
        csv = f"{HEADER}7.654321987,98.76543219,diesel\nsecrettext,1,secretfuel\n"
        for text in (csv, csv.replace(AGE.name, "secretcolumn"), '"secrettext', "secrettext\n" * 9000):
            headers = kept | {"Content-Type": "text/csv"}
            service.client.post("/predict/batch", content=text, headers=headers)
        for changes in ({"Authorization": "Bearer secretwrong"}, {"X-Request-ID": "secret id"}):
            for path in ("/predict", "/predict?explain=true"):
                service.client.post(path, json=row, headers=kept | changes)
        garbage(service)
        garbage(service, b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: secretlength\r\n\r\n")
    log = service.log.read_text()
    assert len(requests_in(log)) - began >= len(bodies) + 8
    assert "Invalid HTTP request" in log
    for found in ("secret", "7.654321", "98.76543", "7654321", "%73", digest):
        assert found not in log.lower()


@pytest.mark.parametrize(("share", "part"), [("0", 0), ("0.1", 10), ("0.01", 100), ("1", 1)])
def test_exactly_the_share_is_logged(toy_store: Store, share: str, part: int) -> None:
    with watching(toy_store, log_requests=share) as service:
        for number in range(500):
            service.client.post("/predict" if number % 2 else "/predict?explain=false", content=BODY)
        counts = re.findall(r"duration_seconds_count\{.*\} (\S+)", service.client.get("/metrics").text)
        # The last is the one that asked, and a round number of requests shows an inexact sum best.
        total = int(sum(map(float, counts))) + 1
        while total % 100:
            service.client.get("/livez")
            total += 1
    logged = [event for event in service.events() if event["event"] == "request"]
    assert len(logged) == (total // part if part else 0)


@pytest.mark.parametrize("share", ["0", "0.001", "1"])
def test_the_start_and_every_change_of_version_are_logged_whatever_the_share(
    toy_store: Store, share: str
) -> None:
    with running(toy_store, "--log-requests", share) as service:
        for seed in (2, 3):
            toy_store.promote("toy", publish_toy(toy_store, seed=seed).version)
            follows(service, seed)
        toy_store.rollback("toy")
        follows(service, 2)
        toy_store.promote("toy", publish_toy(toy_store, seed=4).version)
        follows(service, 4)
        Path(toy_store.url, "toy").rename(f"{toy_store.url}.elsewhere")
        eventually("the trouble is told", service.warnings)
    told = events(service.log.read_text())
    assert [event["event"] for event in told][:3] == ["settings", "serving", "listening"]
    assert told[0]["log_requests"] == float(share)
    served = [event["version"] for event in told if event["event"] == "serving"]
    assert served[:5] == ["1", "2", "3", "2", "4"]


def command(store: Store, port: int, *arguments: str) -> list[str]:
    """The words that start a service that logs every request."""
    options = ("--store", store.url, "--port", str(port), "--log-requests", "1", *arguments)
    return [sys.executable, "-m", "app", *options]


@contextmanager
def ending(process: subprocess.Popen[bytes], port: int) -> Iterator[httpx.Client]:
    """A process that is ready; it must end soon, with code 0, on SIGTERM."""
    try:
        # What a pipe holds is for the test to read.
        text: Any = process
        wait_until_ready(text, f"http://127.0.0.1:{port}")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON) == 0
    finally:
        process.kill()
        process.wait()


def dropped(client: httpx.Client) -> int:
    """How many lines the service says are lost."""
    found = re.search(r"^plumbline_log_lines_dropped_total (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found
    return int(float(found[1]))


def post_many(port: int, least: int) -> Load:
    """Post rows until so many lines were too many for a pipe and the queue before it."""
    with Load(port, "/predict", [BODY], 16) as load:
        eventually("enough requests", lambda: len(load.answers.seconds) > least)
    assert load.answers.dropped == []
    assert {status for _, status, _ in load.answers.seen} == {200}
    return load


def test_a_stdout_that_nobody_reads_stops_nothing_and_what_is_lost_is_counted(toy_store: Store) -> None:
    port = free_port()
    with (
        subprocess.Popen(command(toy_store, port), stdout=subprocess.PIPE) as process,
        ending(process, port) as client,
    ):
        post_many(port, 13_000)
        lost = dropped(client)
        assert lost > 1_000
        for _ in range(100):
            assert client.post("/predict", content=BODY).status_code == 200
        assert dropped(client) == lost + 101


def test_a_reader_that_comes_late_gets_whole_lines_and_all_that_were_not_counted_as_lost(
    toy_store: Store,
) -> None:
    port = free_port()
    read: list[bytes] = []
    words = command(toy_store, port)
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process, ending(process, port) as client:
        posted = len(post_many(port, 12_000).answers.seconds)
        lost = dropped(client)
        assert lost > 0
        assert process.stdout
        reader = Thread(target=partial(read.extend, process.stdout))
        reader.start()
        eventually("the lines are read", lambda: len(read) > 10_000)
        # The line about who asked was itself one too many.
        assert dropped(client) == lost + 1
        process.terminate()
        reader.join(SOON)
    lines = [json.loads(line) for line in read]
    assert sum(line.get("route") == "/predict" for line in lines) == posted - lost
    assert lines[-1]["event"].startswith("Finished server process")


def test_a_pipe_that_does_not_block_its_writer_still_gets_whole_lines(toy_store: Store) -> None:
    port = free_port()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    read: list[bytes] = []
    with subprocess.Popen(command(toy_store, port), stdout=writing) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe, ending(process, port) as client:
            for _ in range(1_000):
                client.post("/predict", content=BODY)
            assert dropped(client) == 0
            reader = Thread(target=partial(read.extend, pipe))
            reader.start()
            process.send_signal(signal.SIGTERM)
            reader.join(SOON)
    lines = [json.loads(line) for line in read]
    assert sum(line.get("route") == "/predict" for line in lines) == 1_000


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("way", ["closed from the start", "its reader has gone"])
def test_a_stdout_that_cannot_be_written_stops_nothing_and_the_lines_are_counted(
    toy_store: Store, way: str, workers: str
) -> None:
    port = free_port()
    started = command(toy_store, port, "--workers", workers)
    before = BEHIND_SHELL if way == "closed from the start" else ()
    with subprocess.Popen([*before, *started], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        if not before:
            process.stdout.close()
        with ending(process, port) as client:
            eventually("the start's lines are lost", lambda: dropped(client) >= 3)
            lost = dropped(client)
            for _ in range(200):
                assert client.post("/predict", content=BODY).status_code == 200
            eventually("all are counted", lambda: dropped(client) >= lost + 201)
        assert process.stderr.read() == b""
        assert process.stdout.closed or process.stdout.read() == b""


def test_a_log_whose_stdout_is_closed_goes_into_nothing_that_got_its_descriptor(
    toy_store: Store, tmp_path: Path
) -> None:
    port, taken = free_port(), tmp_path / "taken"
    code = (
        "import sys; from app.__main__ import main; taken = open(sys.argv.pop(1), 'w');"
        "assert taken.fileno() == 1; sys.exit(main())"
    )
    arguments = command(toy_store, port)[3:]
    words = [*BEHIND_SHELL, sys.executable, "-c", code, str(taken), *arguments]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process, ending(process, port) as client:
        for path in ("/predict", "/predict?explain=true", "/nowhere"):
            client.post(path, content=BODY)
        eventually("the lines are lost", lambda: dropped(client) >= 6)
        process.terminate()
        assert process.stderr
        assert process.stderr.read() == b""
    assert taken.read_bytes() == b""


def test_the_lines_of_every_worker_are_written_before_it_ends(toy_store: Store) -> None:
    with running(toy_store, "--log-requests", "1", "--workers", "2") as service:
        eventually("both began", lambda: service.log.read_text().count("startup complete") == 2)
        with each_anew(service.client.base_url) as client:
            answers = [client.post("/predict", content=BODY) for _ in range(100)]
    ids = [answer.headers["X-Request-ID"] for answer in answers]
    log = service.log.read_text()
    assert sorted(e["request_id"] for e in requests_in(log) if e["route"] == "/predict") == sorted(ids)


def test_in_a_terminal_the_lines_are_for_people(toy_store: Store) -> None:
    port = free_port()
    screen, terminal = os.openpty()
    fcntl.fcntl(screen, fcntl.F_SETFL, os.O_NONBLOCK)
    shown = bytearray()

    def shows(text: bytes) -> bool:
        with suppress(BlockingIOError):
            shown.extend(os.read(screen, 2**16))
        return text in shown

    environment = os.environ | {"NO_COLOR": "1"}
    words = command(toy_store, port)
    with (
        subprocess.Popen(words, stdout=terminal, stderr=terminal, env=environment) as process,
        ending(process, port) as client,
    ):
        client.post("/predict", content=BODY, headers={"X-Request-ID": "hot"})
        client.post("/predict?explain=true", content=BODY, headers={"X-Request-ID": "slow"})
        client.post("/predict", content=b"{}", headers={"X-Request-ID": "wrong"})
        eventually("all is shown", lambda: shows(b"request_id=wrong"))
    os.close(terminal)
    os.close(screen)
    lines = shown.decode().splitlines()
    assert not [line for line in lines if line.lstrip().startswith("{")]
    for wanted, status in (("hot", 200), ("slow", 200), ("wrong", 422)):
        (line,) = (line for line in lines if f"request_id={wanted}" in line)
        for word in ("info", "request", "method=POST", "route=/predict", f"status={status}"):
            assert word in line
    assert "Traceback" not in shown.decode()
