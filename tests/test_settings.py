"""What the service can be told, and what it says about it."""

import hashlib
import os
import re
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.__main__ import main
from app.settings import Settings
from model_store.store import Store
from tests.conftest import each_anew, events, free_port, started
from tests.in_process import run_here
from tests.toys import publish_toy

README = Path(__file__).parent.parent / "README.md"
DIGEST = hashlib.sha256(b"key").hexdigest()


@pytest.fixture
def toy_store(store: Store) -> Store:
    store.promote("toy", publish_toy(store).version)
    return store


def logs(store: Store, *arguments: str, port: int, **variables: str) -> str:
    """What a service that was started and stopped logged."""
    command = ("app", "--store", store.url, *arguments)
    with started(*command, port=port, environment=variables) as process:
        process.terminate()
        log, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    return log


def effective(log: str) -> dict[str, object]:
    """The settings that a service said it has."""
    (found,) = [event for event in events(log) if event["event"] == "settings"]
    return {name: found[name] for name in found.keys() - {"timestamp", "level", "event"}}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_readme_has_every_setting_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    shown = "" if default is None or isinstance(default, SecretStr) else str(default).lower()
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in README.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `PLUMBLINE_{name.upper()}`")
    ]
    assert len(rows) == 1
    assert re.sub(r"[`,_ ]", "", rows[0][1].lower()) == shown.replace("_", "")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_explained_by_help(name: str) -> None:
    text = " ".join(run_here(main, "--help").stdout.split())
    description = Settings.model_fields[name].description
    assert description
    assert f"--{name.replace('_', '-')}" in text
    assert " ".join(description.split()) in text


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({"LOG_LEVEL": "warning"}, "log_level", "warning"),
        ({"LOG_LEVEL": "INFO"}, "log_level", "info"),
        ({"PLUMBLINE_LOG_LEVEL": "error", "LOG_LEVEL": "debug"}, "log_level", "error"),
        ({"PORT": "81"}, "port", 81),
        ({"PLUMBLINE_PORT": "82", "PORT": "81"}, "port", 82),
        ({"HOST": "localhost"}, "host", "localhost"),
        ({"PLUMBLINE_HOST": "127.0.0.1", "HOST": "192.0.2.1"}, "host", "127.0.0.1"),
        ({"WEB_CONCURRENCY": "3"}, "workers", 3),
        ({"PLUMBLINE_WORKERS": "2", "WEB_CONCURRENCY": "3"}, "workers", 2),
        ({"PLUMBLINE_MAX_ROWS": "7"}, "max_rows", 7),
        ({"PLUMBLINE_REFRESH_SECONDS": "0.5"}, "refresh_seconds", 0.5),
        ({"PLUMBLINE_NAME": "", "PLUMBLINE_PORT": ""}, "port", 8000),
    ],
)
def test_a_variable_sets_its_setting(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], name: str, value: object
) -> None:
    for variable in ("HOST", "PORT", "LOG_LEVEL", "WEB_CONCURRENCY"):
        monkeypatch.delenv(variable, raising=False)
    for variable, given in variables.items():
        monkeypatch.setenv(variable, given)
    assert getattr(Settings(), name) == value


def test_host_and_port_of_a_platform_are_listened_on(toy_store: Store) -> None:
    port = free_port()
    log = logs(toy_store, port=port, HOST="127.0.0.1", PORT=str(port), PLUMBLINE_MAX_ROWS="7")
    assert effective(log)["port"] == port
    assert effective(log)["max_rows"] == 7


@pytest.mark.parametrize("name", ["PLUMBLINE_BOGUS", "PLUMBLINE_MAX_ROW", "plumbline_x", "PLUMBLINE_"])
def test_an_unknown_variable_ends_it_with_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "s3cret")
    result = run_here(main, "--check")
    assert result.returncode == 2
    assert name in result.stderr
    assert "s3cret" not in result.stderr
    assert "Traceback" not in result.stderr


def statuses(port: int, keys: tuple[str, ...]) -> list[int]:
    """The status that each key gets."""
    with each_anew(f"http://127.0.0.1:{port}") as client:
        headers = [{"Authorization": f"Bearer {key}"} for key in keys]
        return [client.get("/model", headers=given).status_code for given in headers]


def test_keys_come_from_the_variable_and_from_the_file(toy_store: Store, tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "keys"
    digests = [hashlib.sha256(key).hexdigest() for key in (b"two", b"three")]
    file.write_text(f"{digests[0]}\n\n{digests[1].upper()}\n", encoding="ascii")
    variables = {"PLUMBLINE_API_KEYS": DIGEST, "PLUMBLINE_API_KEYS_FILE": str(file)}
    command = ("app", "--store", toy_store.url, "--port", port)
    with started(*command, port=port, environment=variables) as process:
        assert statuses(port, ("key", "two", "three", "four")) == [200, 200, 200, 401]
        process.terminate()
        output, log = process.communicate(timeout=20)
    assert not [digest for digest in (DIGEST, *digests) if digest in output + log]


@pytest.mark.parametrize(
    "given", ["s3cret", DIGEST[:-1], f"{DIGEST}0", f"{DIGEST[:-1]}g", f"{DIGEST} s3cret"]
)
@pytest.mark.parametrize("in_file", [True, False], ids=["file", "variable"])
def test_a_malformed_digest_is_refused_and_not_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, *, in_file: bool
) -> None:
    (tmp_path / "keys").write_text(given, encoding="ascii")
    name, value = ("_FILE", str(tmp_path / "keys")) if in_file else ("", given)
    monkeypatch.setenv(f"PLUMBLINE_API_KEYS{name}", value)
    result = run_here(main, "--check")
    assert result.returncode == 2
    assert "64 hexadecimal digits" in result.stderr
    for secret in ("s3cret", DIGEST[:20]):
        assert secret not in result.stdout + result.stderr


@pytest.mark.parametrize(
    "content", [None, b"\xff\xfe", b"", b" ,\n"], ids=["missing", "no text", "empty", "no digest"]
)
def test_a_keys_file_that_cannot_be_read_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    monkeypatch.setenv("PLUMBLINE_API_KEYS_FILE", str(tmp_path / "keys"))
    result = run_here(main, "--check")
    assert result.returncode == 2
    assert "api_keys_file" in result.stderr


def workers_of(process: int) -> set[int]:
    """The processes that a supervisor has started to answer."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return {int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


def test_a_worker_that_comes_later_asks_for_the_same_keys(toy_store: Store, tmp_path: Path) -> None:
    port, keys = free_port(), tmp_path / "keys"
    keys.write_text(DIGEST, encoding="ascii")
    command = ("app", "--store", toy_store.url, "--port", port, "--workers", 2, "--api-keys-file", keys)
    with started(*command, port=port) as process:
        keys.unlink()
        while len(first := workers_of(process.pid)) < 2:
            time.sleep(0.1)
        os.kill(min(first), signal.SIGKILL)
        while len(workers_of(process.pid) - {min(first)}) < 2:
            time.sleep(0.1)
        seen = set()
        for _ in range(30):
            time.sleep(0.1)
            seen.update(statuses(port, ("no key",)))
        later = workers_of(process.pid)
    assert seen == {401}
    assert len(later) == 2
    assert min(first) not in later


def test_the_settings_are_logged_at_start_without_the_keys(toy_store: Store) -> None:
    port = free_port()
    log = logs(toy_store, "--port", str(port), port=port, PLUMBLINE_API_KEYS=DIGEST)
    assert effective(log).keys() == Settings.model_fields.keys()
    assert DIGEST not in log


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [
        ("127.0.0.1", "", False),
        ("127.0.0.2", "", False),
        ("localhost", "", False),
        pytest.param("2130706433", "", True, id="any other without keys"),
        pytest.param("2130706433", DIGEST, False, id="any other with keys"),
    ],
)
def test_another_address_without_keys_is_warned_of_loudly(
    toy_store: Store, host: str, keys: str, *, warned: bool
) -> None:
    """The other address is loopback in a spelling that is not known for it."""
    port, reached = free_port(), "127.0.0.1" if host.isdecimal() else host
    command = ("app", "--store", toy_store.url, "--port", port, "--host", host)
    with started(*command, port=port, environment={"PLUMBLINE_API_KEYS": keys}, host=reached) as process:
        process.terminate()
        log, _ = process.communicate(timeout=20)
    assert ("ANYBODY" in log) == warned


def test_two_workers_serve_and_end_together(toy_store: Store) -> None:
    port = free_port()
    with started("app", "--store", toy_store.url, "--port", port, "--workers", 2, port=port) as process:
        with each_anew(f"http://127.0.0.1:{port}") as client:
            assert {client.get("/model").json()["version"] for _ in range(20)} == {"1"}
        process.terminate()
        log, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    workers = set(re.findall(r"Started server process \[(\d+)\]", log))
    assert len(workers) == 2
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    assert [event["event"] for event in events(log)].count("Shutting down") == 2
    with socket.create_server(("127.0.0.1", port)):
        pass
