import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import numpy as np
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from app.__main__ import main
from app.live import Live
from model_store.columns import Columns
from model_store.manifest import Linear, Manifest, Mlp, ResidualQuantiles
from model_store.store import Store, open_store
from tests.conftest import each_anew, events
from tests.in_process import assembled, client_of, run_here
from tests.load import Answers, Load
from tests.toys import (
    AGE,
    FEATURES,
    FUEL,
    POWER,
    TARGET,
    expected_predictions,
    publish_toy,
    toy_rows,
    toy_weights,
)

ROW: dict[str, float | str | None] = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
OFTEN, NEVER = "0.2", "1000"
PATIENCE = 30.0
WITHOUT_ROOTS_RIGHTS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")

Change = Callable[[Store], object]


@dataclass(frozen=True)
class Follower(ABC):
    """A service that follows a store, and a client of it."""

    client: httpx.Client

    @property
    def version(self) -> str | None:
        """The version that /readyz says answers."""
        found: str | None = self.ready().get("version")
        return found

    def ready(self) -> dict[str, Any]:
        """The body of /readyz."""
        body: dict[str, Any] = self.client.get("/readyz").json()
        return body

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        found = re.search(rf"^{name} (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        assert found, name
        return float(found[1])

    @property
    def failures(self) -> float:
        """How many looks at the store failed."""
        return self.metric("plumbline_model_load_failures_total")

    @abstractmethod
    def look(self) -> None:
        """Have it look at the store, unless it does so by itself."""

    @abstractmethod
    def events(self) -> list[dict[str, Any]]:
        """The log's lines."""

    def predict(self) -> dict[str, Any]:
        """The answer for ROW."""
        answer = self.client.post("/predict", json=ROW)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def warnings(self) -> list[str]:
        """The log's lines about what is wrong, without their time."""
        return [f"{e['error']}; {e['so']}" for e in self.events() if e["level"] == "warning"]


@dataclass(frozen=True)
class Service(Follower):
    """A real process, and what it wrote."""

    process: subprocess.Popen[bytes]
    log: Path

    def look(self) -> None:
        """It looks now and then."""

    def hang_up(self) -> None:
        """Send SIGHUP."""
        self.process.send_signal(signal.SIGHUP)

    def events(self) -> list[dict[str, Any]]:
        """The lines written so far."""
        return events(self.log.read_text())


@dataclass(frozen=True)
class Here(Follower):
    """A service in this process, which looks when it is told to."""

    live: Live
    logged: list[EventDict]

    def look(self) -> None:
        """Look once."""
        self.live.look()

    def events(self) -> list[dict[str, Any]]:
        """The lines logged so far, the level under its name in a written line."""
        return [{**event, "level": event["log_level"]} for event in self.logged]


def eventually(what: str, holds: Callable[[], object]) -> None:
    """Wait until it holds; fail if it does not in good time."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)


@contextmanager
def running(
    store: Store, *arguments: str, refresh: str = OFTEN, before: Sequence[str] = ()
) -> Iterator[Service]:
    """A service of the store, ready or not; it must still run at the end, and end on SIGTERM."""
    log = Path(f"{store.url}.{secrets.token_hex(4)}.log")
    options = ("--store", store.url, "--port", "0", "--refresh-seconds", refresh, *arguments)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "app", *options], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=address(process, log), timeout=PATIENCE) as client:
            yield Service(client, process, log)
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@contextmanager
def watching(store: Store, **settings: Any) -> Iterator[Here]:
    """A service of the store in this process, ready or not; nothing it logs may be a defect of its own."""
    with capture_logs() as logged:
        live, application = assembled(store, **settings)
        with client_of(application) as client:
            here = Here(client, live, logged)
            yield here
    assert not [event for event in here.events() if event["level"] not in {"info", "warning"}]


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the process says it listens, once it answers there."""
    found: list[str] = []

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        found[:] = re.findall(r"http://127\.0\.0\.1:\d+", log.read_text())[:1]
        try:
            return bool(found) and httpx.get(f"{found[0]}/livez").status_code == 200
        except httpx.TransportError:
            return False

    eventually("the service answers", answers)
    return found[0]


def follows(service: Follower, version: int) -> None:
    """Wait until that version answers."""
    service.look()
    eventually(f"version {version} is served", lambda: service.version == str(version))


def expected(seed: int, row: dict[str, float | str | None] = ROW) -> float:
    """What a linear toy of that seed predicts."""
    return float(expected_predictions(Linear(), toy_weights(Linear(), 5, seed), [row])[0])


def answers_as(service: Follower, version: int) -> None:
    """Check that the toy whose seed is its version's number answers."""
    answer = service.predict()
    assert answer["version"] == str(version)
    assert answer["prediction"] == pytest.approx(expected(version), rel=1e-12)


@pytest.fixture
def toys(store: Store) -> Store:
    """A store with three versions that differ, the first promoted; a version's number is its seed."""
    for seed in (1, 2, 3):
        publish_toy(store, seed=seed)
    store.promote("toy", 1)
    return store


def file_of(store: Store, path: str) -> Path:
    return Path(store.url) / "toy" / path


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, in place; done twice, nothing has changed."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(content)


def rooted(before: Sequence[str]) -> Sequence[str]:
    """The words before a command that take from root the right to read everything; none for others."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which(before[0]):
        pytest.skip("root reads everything, and setpriv is not here to stop it")
    return before


def test_promotions_and_roll_backs_are_followed(toys: Store) -> None:
    with running(toys) as service:
        answers_as(service, 1)
        for version in (2, 1, 3, 1):
            _ = toys.rollback("toy") if version == 1 else toys.promote("toy", version)
            follows(service, version)
            answers_as(service, version)
        assert service.metric("plumbline_model_loads_total") == 5
        assert service.failures == 0
        assert service.warnings() == []


def test_the_metrics_name_only_the_version_that_is_served(toys: Store) -> None:
    with watching(toys) as service:
        digest = toys.promote("toy", 2).digest
        follows(service, 2)
        lines = service.client.get("/metrics").text.splitlines()
    info = [line for line in lines if line.startswith("plumbline_model_info{")]
    assert info == [f'plumbline_model_info{{digest="{digest}",model="toy",version="2"}} 1.0']


@pytest.mark.parametrize("path", ["/model", "/openapi.json", "/"])
def test_what_is_told_of_the_model_and_its_entity_tag_follow(store: Store, path: str) -> None:
    months = AGE.model_copy(update={"unit": "months"})
    digests = {
        publish_toy(store).version: "years",
        publish_toy(store, seed=2, features=(months, *FEATURES[1:])).version: "months",
    }
    store.promote("toy", 1)
    with watching(store) as service:
        before = service.client.get(path)
        unchanged = service.client.get(path, headers={"If-None-Match": before.headers["ETag"]})
        store.promote("toy", 2)
        follows(service, 2)
        after = service.client.get(path, headers={"If-None-Match": before.headers["ETag"]})
    assert unchanged.status_code == 304
    assert (before.status_code, after.status_code) == (200, 200)
    assert before.headers["ETag"] != after.headers["ETag"]
    for answer, number in ((before, 1), (after, 2)):
        assert (digests[number] in answer.text, digests[3 - number] in answer.text) == (True, False)


def test_the_page_for_a_browser_follows(store: Store) -> None:
    for seed, unit in enumerate(("lakh", "euro"), start=1):
        publish_toy(store, seed=seed, target=TARGET.model_copy(update={"unit": unit}))
    store.promote("toy", 1)
    pages = []
    with watching(store) as service:
        for version in (1, 2):
            store.promote("toy", version)
            follows(service, version)
            pages.append(service.client.get("/", headers={"Accept": "text/html"}).text)
    assert [("lakh" in page, "euro" in page) for page in pages] == [(True, False), (False, True)]


def test_a_hang_up_signal_makes_it_look_at_once(toys: Store) -> None:
    with running(toys, refresh=NEVER) as service:
        for version in (2, 1, 3):
            toys.promote("toy", version)
            service.hang_up()
            follows(service, version)
            answers_as(service, version)


def test_many_hang_up_signals_in_a_row_fail_no_request_and_the_last_is_heeded(toys: Store) -> None:
    with running(toys, refresh=NEVER) as service:
        for number in range(500):
            service.hang_up()
            if number % 10 == 0:
                answers_as(service, 1)
        toys.promote("toy", 2)
        service.hang_up()
        follows(service, 2)


def test_a_hang_up_signal_while_it_starts_does_not_kill(toys: Store) -> None:
    log = Path(f"{toys.url}.log")
    command = [sys.executable, "-m", "app", "--store", toys.url, "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        eventually("it has read its settings", lambda: '"event": "settings"' in log.read_text())
        while "startup complete" not in log.read_text():
            process.send_signal(signal.SIGHUP)
            time.sleep(0.001)
            assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_pinned_version_stays_whatever_is_promoted(toys: Store) -> None:
    with running(toys, "--version", "2") as pinned:
        answers_as(pinned, 2)
        toys.promote("toy", 3)
        with watching(open_store(toys.url)) as follower:
            follows(follower, 3)
        for _ in range(3):
            pinned.hang_up()
        publish_toy(toys, seed=4)
        toys.promote("toy", 4)
        pinned.hang_up()
        answers_as(pinned, 2)
        assert pinned.failures == 0
        assert [e["version"] for e in pinned.events() if e["event"] == "serving"] == ["2"]


def test_a_store_that_goes_away_under_a_pinned_version_is_told(toys: Store, tmp_path: Path) -> None:
    with watching(toys, version=2) as pinned:
        answers_as(pinned, 2)
        Path(toys.url).rename(tmp_path / "elsewhere")
        pinned.look()
        assert "detail" in pinned.client.get("/readyz").json()
        assert "plumbline_store_reachable 0.0" in pinned.client.get("/metrics").text
        answers_as(pinned, 2)
        (tmp_path / "elsewhere").rename(toys.url)
        pinned.look()
        assert "detail" not in pinned.client.get("/readyz").json()


def test_a_pinned_version_that_is_not_there_is_served_once_it_is_published(store: Store) -> None:
    publish_toy(store)
    store.promote("toy", 1)
    with watching(store, version=2) as service:
        refuses_to_predict(service, store)
        publish_toy(store, seed=2)
        follows(service, 2)
        answers_as(service, 2)


def refuses_to_predict(service: Follower, store: Store) -> None:
    """Check what is answered while no version is loaded, and that several looks write one line."""
    failures = service.failures
    for _ in range(4):
        service.look()
    eventually("four looks failed", lambda: service.failures >= failures + 4)
    assert service.client.get("/livez").status_code == 200
    ready = service.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["status"] == "not ready"
    assert ready.json()["detail"]
    answer = service.client.post("/predict", json=ROW)
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["status"] == 503
    for text in (ready.json()["detail"], answer.json()["detail"]):
        assert Path(store.url).name not in text.split("/")
        assert store.url not in text
    assert len(service.warnings()) == 1, service.warnings()
    assert store.url in service.warnings()[0] or "has no version" in service.warnings()[0]
    assert service.warnings()[0].endswith("; nothing is served yet")


def publish_promoted(store: Store) -> None:
    store.promote("toy", publish_toy(store).version)


def publish_broken(store: Store) -> None:
    publish_promoted(store)
    flip(file_of(store, "versions/1/weights.safetensors"))


def mend_broken(store: Store) -> None:
    flip(file_of(store, "versions/1/weights.safetensors"))


def promote_another(store: Store) -> None:
    assert publish_toy(store, seed=1).version == 2
    store.promote("toy", 2)


def close(store: Store) -> None:
    """Publish, and take away the right to look into the store."""
    publish_promoted(store)
    Path(store.url).chmod(0)


def reopen(store: Store) -> None:
    Path(store.url).chmod(0o755)


def replace_by_a_file(store: Store) -> None:
    Path(store.url).touch()


def remove_the_file(store: Store) -> None:
    Path(store.url).unlink()
    publish_promoted(store)


STARTS = [
    pytest.param(lambda store: Path(store.url).mkdir(), publish_promoted, id="empty"),
    pytest.param(lambda _store: None, publish_promoted, id="missing"),
    pytest.param(publish_toy, lambda store: store.promote("toy", 1), id="nothing promoted"),
    pytest.param(publish_broken, mend_broken, id="broken and mended"),
    pytest.param(publish_broken, promote_another, id="broken and another promoted"),
    pytest.param(close, reopen, id="unreadable"),
    pytest.param(replace_by_a_file, remove_the_file, id="a file"),
]


@pytest.mark.parametrize(("spoil", "mend"), STARTS)
def test_a_start_with_nothing_to_serve_waits_and_serves_as_soon_as_it_can(
    store: Store, spoil: Change, mend: Change
) -> None:
    before = rooted(WITHOUT_ROOTS_RIGHTS) if spoil is close else ()
    spoil(store)
    with running(store, before=before) if before else watching(store) as service:
        refuses_to_predict(service, store)
        assert service.metric("plumbline_store_reachable") == (spoil not in {close, replace_by_a_file})
        mend(store)
        service.look()
        eventually("it is ready", lambda: service.client.get("/readyz").status_code == 200)
        assert service.predict()["prediction"] == pytest.approx(expected(1), rel=1e-12)
        assert "detail" not in service.ready()
        assert service.metric("plumbline_store_reachable") == 1
        assert len(service.warnings()) == 1


@pytest.mark.parametrize(("spoil", "mend"), STARTS)
def test_the_check_says_what_keeps_it_from_serving_and_what_it_would_serve(
    store: Store, spoil: Change, mend: Change
) -> None:
    before = rooted(WITHOUT_ROOTS_RIGHTS) if spoil is close else ()
    spoil(store)
    refused = checked(store, before)
    mend(store)
    passed = checked(store, before)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert re.fullmatch(r"error: .*\n", refused.stderr)
    assert store.url in refused.stderr
    promotion = store.promoted("toy")
    assert (passed.returncode, passed.stderr) == (0, "")
    assert passed.stdout == f"toy version {promotion.version} is whole, digest {promotion.digest}\n"


def checked(store: Store, before: Sequence[str]) -> CompletedProcess[str]:
    """What `--check` says of the store, in a process of its own if there are words before its command."""
    arguments = ("--check", "--store", store.url)
    if not before:
        return run_here(main, *arguments)
    command = [*before, sys.executable, "-m", "app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("version", "code"), [(2, 0), (4, 3)])
def test_the_check_looks_at_a_pinned_version(toys: Store, version: int, code: int) -> None:
    result = run_here(main, "--check", "--store", toys.url, "--version", version)
    assert result.returncode == code
    assert f"version {version}" in result.stdout + result.stderr


@pytest.mark.parametrize(
    "path",
    [
        "versions/2/weights.safetensors",
        "versions/2/manifest.json",
        "versions/2/history.csv",
        "promotions/2.json",
    ],
)
def test_a_promotion_that_is_broken_keeps_the_old_version_until_it_is_mended(toys: Store, path: str) -> None:
    with watching(toys) as service:
        toys.promote("toy", 2)
        flip(file_of(toys, path))
        for looks in range(1, 4):
            service.look()
            assert service.failures == looks
            answers_as(service, 1)
        ready = service.client.get("/readyz")
        assert (ready.status_code, ready.json()["version"]) == (200, "1")
        assert ready.json()["detail"]
        assert "/" not in ready.json()["detail"]
        (warning,) = service.warnings()
        assert str(file_of(toys, path)) in warning
        assert warning.endswith("; version 1 stays")
        flip(file_of(toys, path))
        follows(service, 2)
        answers_as(service, 2)
        assert "detail" not in service.ready()


def delete(store: Store) -> None:
    shutil.copytree(store.url, f"{store.url}.kept")
    shutil.rmtree(store.url)


def rename_away(store: Store) -> None:
    Path(store.url).rename(f"{store.url}.kept")


def bring_back(store: Store) -> None:
    Path(f"{store.url}.kept").rename(store.url)


def put_a_file_there(store: Store) -> None:
    rename_away(store)
    Path(store.url).touch()


def take_the_file_away(store: Store) -> None:
    Path(store.url).unlink()
    bring_back(store)


@pytest.mark.parametrize(
    ("lose", "restore"),
    [
        pytest.param(delete, bring_back, id="deleted"),
        pytest.param(rename_away, bring_back, id="renamed away"),
        pytest.param(lambda store: Path(store.url).chmod(0), reopen, id="unreadable"),
        pytest.param(put_a_file_there, take_the_file_away, id="a file"),
    ],
)
def test_a_store_that_is_lost_while_serving_is_said_to_be_and_followed_again_when_it_is_back(
    toys: Store, lose: Change, restore: Change
) -> None:
    before = rooted(WITHOUT_ROOTS_RIGHTS) if restore is reopen else ()
    with running(toys, before=before) if before else watching(toys) as service:
        assert service.metric("plumbline_store_reachable") == 1
        lose(toys)
        for _ in range(3):
            service.look()
        eventually("three looks failed", lambda: service.failures >= 3)
        answers_as(service, 1)
        ready = service.client.get("/readyz")
        assert (ready.status_code, ready.json()["version"]) == (200, "1")
        assert ready.json()["detail"]
        assert "/" not in ready.json()["detail"]
        assert service.metric("plumbline_store_reachable") == 0
        assert len(service.warnings()) == 1
        restore(toys)
        service.look()
        eventually("the store answers", lambda: service.metric("plumbline_store_reachable") == 1)
        eventually("nothing is wrong", lambda: "detail" not in service.ready())
        toys.promote("toy", 2)
        follows(service, 2)
        answers_as(service, 2)


@pytest.mark.parametrize("how", ["flipped", "cut", "of another version"])
def test_files_overwritten_in_place_change_no_answer(toys: Store, how: str) -> None:
    rows = toy_rows(50)
    with watching(toys) as service:
        before = service.client.post("/predict/batch", json={"instances": rows})
        for path in sorted(file_of(toys, "versions/1").iterdir()):
            spoil(path, how)
        passed = service.metric("plumbline_model_loads_total")
        service.look()
        after = service.client.post("/predict/batch", json={"instances": rows})
        toys.promote("toy", 2)
        follows(service, 2)
    assert passed == 1
    assert before.status_code == 200
    assert before.content == after.content


def spoil(path: Path, how: str) -> None:
    """Overwrite a file of the first version in place."""
    if how == "flipped":
        flip(path)
        return
    path.chmod(0o600)
    other = b"" if how == "cut" else (path.parents[1] / "3" / path.name).read_bytes()
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(other)


def test_a_slow_upload_is_answered_to_its_end_by_the_version_it_began_with(toys: Store) -> None:
    rows = toy_rows(20_000)
    text = "".join(f'{row[AGE.name]!r},{row[POWER.name]!r},"{row[FUEL.name]}"\n' for row in rows)
    lines = [f"{AGE.name},{POWER.name},{FUEL.name}\n", *text.splitlines(keepends=True)]
    with running(toys) as service:
        response, answer = upload_slowly(service, toys, lines)
        answers_as(service, 3)
    assert response.status == 200
    assert response.headers["X-Model-Version"] == "1"
    _, *answered = answer.decode().splitlines()
    predictions = [float(line.split(",")[-4]) for line in answered]
    weights = toy_weights(Linear(), 5, seed=1)
    assert predictions == pytest.approx(expected_predictions(Linear(), weights, rows).tolist(), rel=1e-12)


def upload_slowly(
    service: Service, store: Store, lines: Sequence[str]
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send lines in three parts, the answer begun, with a promotion before the second and the third."""
    parts = ["".join(part) for part in (lines[:8_000], lines[8_000:15_000], lines[15_000:])]
    url = service.client.base_url
    connection = http.client.HTTPConnection(url.host, url.port, timeout=PATIENCE)
    connection.putrequest("POST", "/predict/batch")
    connection.putheader("Content-Type", "text/csv")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders(chunk(parts[0]))
    response = connection.getresponse()
    answer = response.read(1000)
    for version, part in ((2, parts[1]), (3, parts[2])):
        store.promote("toy", version)
        follows(service, version)
        connection.send(chunk(part))
        answer += response.read(1000)
    connection.send(b"0\r\n\r\n")
    answer += response.read()
    connection.close()
    return response, answer


def chunk(text: str) -> bytes:
    """A part of a body whose length is not known."""
    content = text.encode()
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def versions_seen(url: httpx.URL, calls: int) -> set[str]:
    """The versions that answer as many calls, each over a connection of its own."""
    with each_anew(url) as client:
        answers = [client.post("/predict", json=ROW) for _ in range(calls)]
    assert {answer.status_code for answer in answers} == {200}
    return {answer.json()["version"] for answer in answers}


def workers_serving(service: Service, version: int) -> int:
    """How many workers have said that they serve the version, the process above them not counted."""
    served = [event["version"] for event in service.events() if event["event"] == "serving"]
    return served.count(str(version))


def both_serve(service: Service, version: int) -> bool:
    return workers_serving(service, version) == 2


def test_two_workers_both_follow(toys: Store) -> None:
    with running(toys, "--workers", "2") as service:
        for version in (2, 3):
            eventually("both workers began", lambda: service.log.read_text().count("startup complete") == 2)
            toys.promote("toy", version)
            eventually("both follow", partial(both_serve, service, version))
            assert versions_seen(service.client.base_url, 40) == {str(version)}
        toys.rollback("toy")
        eventually("both roll back", lambda: workers_serving(service, 2) == 4)
        assert versions_seen(service.client.base_url, 40) == {"2"}


def test_a_hang_up_signal_reaches_both_workers_and_drops_no_call(toys: Store) -> None:
    with running(toys, "--workers", "2", refresh=NEVER) as service:
        eventually("both workers began", lambda: service.log.read_text().count("startup complete") == 2)
        toys.promote("toy", 2)
        with Load(service.client.base_url.port or 0, "/predict", [json.dumps(ROW).encode()], 4) as load:
            service.hang_up()
            eventually("both follow", lambda: workers_serving(service, 2) == 2)
            eventually("only the second answers", lambda: versions_seen(service.client.base_url, 20) == {"2"})
    assert load.answers.dropped == []
    assert {status for _, status, _ in load.answers.seen} == {200}


def publish_many(store: Store) -> list[Manifest]:
    """Publish versions that differ in network, weights and interval; promote the first."""
    networks: list[Linear | Mlp] = [
        Linear(),
        Mlp(hidden=(8, 4), activation="tanh"),
        Linear(),
        Mlp(hidden=(16,), activation="relu"),
    ]
    published = [
        publish_toy(store, network, seed=seed, interval=quantiles(seed))
        for seed, network in enumerate(networks, start=1)
    ]
    store.promote("toy", 1)
    return published


def quantiles(seed: int) -> ResidualQuantiles:
    """An interval that no other version has."""
    return ResidualQuantiles(coverage=0.9, lower=-float(seed), upper=2.0 * seed)


def recomputed(store: Store, manifest: Manifest, row: dict[str, float | str | None]) -> dict[str, Any]:
    """The whole answer that a version gives, from its files, whose predictions numpy's formula confirms."""
    columns: Columns = {name: [value] for name, value in row.items()}
    version = store.load("toy", manifest.version)
    prediction = float(version.predictor.predict(columns)[0])
    weights = toy_weights(manifest.network, 5, manifest.training.seed or 0)
    assert prediction == pytest.approx(float(expected_predictions(manifest.network, weights, [row])[0]))
    lower, upper = prediction - manifest.training.seed, prediction + 2.0 * manifest.training.seed
    return {
        "prediction": prediction.hex(),
        "interval": {"coverage": 0.9, "lower": lower.hex(), "upper": upper.hex()},
        "out_of_range": [],
        "model": "toy",
        "version": str(manifest.version),
    }


def with_bits(body: bytes) -> dict[str, Any]:
    """An answer whose numbers are written by their bits."""
    answer: dict[str, Any] = json.loads(body)
    answer["prediction"] = answer["prediction"].hex()
    for end in ("lower", "upper"):
        answer["interval"][end] = answer["interval"][end].hex()
    return answer


def promote_and_roll_back(service: Service, store: Store, times: int) -> None:
    """Change the promoted version that often, each time when the one before is served."""
    rng = np.random.default_rng(5)
    for _ in range(times):
        current = store.promoted("toy")
        if current.previous and rng.random() < 0.3:
            changed_to = store.rollback("toy").version
        else:
            changed_to = store.promote(
                "toy", int(rng.choice([n for n in (1, 2, 3, 4) if n != current.version]))
            ).version
        follows(service, changed_to)


def test_promotions_under_full_load_fail_no_request_and_every_answer_is_its_versions(
    store: Store, *, torture: bool
) -> None:
    promotions, rows = (100 if torture else 10), toy_rows(8)
    published = publish_many(store)
    bodies = [json.dumps(row).encode() for row in rows]
    with running(store, refresh="0.05") as service:
        with Load(service.client.base_url.port or 0, "/predict", bodies, connections=8) as load:
            promote_and_roll_back(service, store, promotions)
        assert service.metric("plumbline_model_loads_total") == promotions + 1
        assert service.failures == 0
    answers = load.answers
    wrong = not_as_recomputed(answers, store, published, rows)
    seen = {json.loads(body)["version"] for _, status, body in answers.seen if status == 200}
    failed = sum(times for (_, status, _), times in answers.seen.items() if status != 200)
    print(
        f"\n{len(answers.seconds)} requests on 8 connections, {promotions} promotions, "
        f"versions seen {sorted(seen)}, "
        f"{failed} failed, {len(answers.dropped)} connections dropped, {wrong} answers not their version's, "
        f"p99 {answers.quantile(0.99) * 1000:.1f} ms"
    )
    assert (failed, answers.dropped, wrong) == (0, [], 0)
    assert len(seen) >= 2


def not_as_recomputed(
    answers: Answers,
    store: Store,
    published: Sequence[Manifest],
    rows: Sequence[dict[str, float | str | None]],
) -> int:
    """How many answers differ in a bit from those that the version they name gives offline."""
    correct = {
        (number, str(manifest.version)): recomputed(store, manifest, row)
        for number, row in enumerate(rows)
        for manifest in published
    }
    given = [
        (number, with_bits(body), times)
        for (number, status, body), times in answers.seen.items()
        if status == 200
    ]
    return sum(times for number, answer, times in given if correct[number, answer["version"]] != answer)
