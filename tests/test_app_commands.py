import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from app.__main__ import main
from model_store.store import Store
from tests.conftest import events, free_port, run, started, wait_until_ready
from tests.in_process import run_here
from tests.toys import publish_toy


@pytest.fixture
def port() -> int:
    return free_port()


def refused(code: int, *arguments: object) -> str:
    """Call the service's command, which must end with `code` and one sentence; return that."""
    result = run_here(main, *arguments)
    assert result.returncode == code, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "empty"])
@pytest.mark.parametrize("named", [True, False])
def test_a_store_without_a_model_ends_it_with_a_sentence(
    tmp_path: Path, *, missing: bool, named: bool
) -> None:
    folder = tmp_path / "store"
    if not missing:
        folder.mkdir()
    message = refused(3, "--check", "--store", folder, *(["--name", "toy"] if named else []))
    assert message.startswith("error: ")
    assert str(folder) in message
    assert "empty" in message
    assert message.count("\n") == 1


def test_a_model_with_nothing_promoted_ends_it_with_the_command_to_promote(store: Store) -> None:
    publish_toy(store)
    message = refused(3, "--check", "--store", store.url)
    assert f"python -m model_store promote toy 1 --store {store.url}" in message


def test_a_model_that_is_not_there_ends_it_with_those_that_are(store: Store) -> None:
    publish_toy(store)
    assert "it has toy" in refused(3, "--check", "--store", store.url, "--name", "cars")


def test_two_models_and_no_name_end_it_with_the_choice(store: Store) -> None:
    for name in ("one", "two"):
        publish_toy(store, name=name)
    assert "one, two: name one" in refused(3, "--check", "--store", store.url)


@pytest.mark.parametrize("name", ["../toy", "Toy", "toy/versions", "\u00e9"])
def test_a_name_that_cannot_be_one_ends_it(store: Store, name: str) -> None:
    publish_toy(store)
    for check in ((), ("--check",)):
        assert refused(2, *check, "--store", store.url, "--name", name).startswith("error: name: ")


def test_a_store_that_is_a_file_ends_it(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    assert "Not a directory" in refused(3, "--check", "--store", tmp_path / "store")


@pytest.mark.parametrize("file", ["weights.safetensors", "manifest.json", "history.csv"])
def test_a_version_with_a_flipped_byte_ends_it_with_the_files_name(store: Store, file: str) -> None:
    store.promote("toy", publish_toy(store).version)
    path = Path(store.url) / "toy" / "versions" / "1" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    assert f"{path} is refused" in refused(3, "--check", "--store", store.url)


@pytest.mark.parametrize("value", ["http", "", "-1", "65536", "80.5", "1e3", "0x50"])
def test_a_port_that_is_none_ends_it(value: str) -> None:
    assert refused(2, f"--port={value}").startswith("error: port: ")


@pytest.mark.parametrize(
    "arguments", [["--bogus"], ["extra"], ["--port"], ["--bogus", "1"], ["--max-body-bytes=0"]]
)
def test_arguments_that_nobody_knows_end_it(arguments: list[str]) -> None:
    assert "error: " in refused(2, *arguments)


def test_a_port_in_use_ends_it_with_what_to_do(first_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused(2, "--store", first_model, "--port", port)
    assert f"port {port}: Address already in use" in message
    assert "--port" in message


def test_a_host_that_is_not_this_machine_ends_it(first_model: Path) -> None:
    assert "cannot listen on" in refused(2, "--store", first_model, "--host", "192.0.2.1", "--port", 0)


def test_a_bad_variable_ends_it_as_a_bad_argument_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_PORT", "http")
    assert refused(2).startswith("error: port: ")
    result = run("app")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == refused(2)


def test_an_argument_is_stronger_than_a_variable(
    first_model: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_STORE", "/nowhere")
    monkeypatch.setenv("PLUMBLINE_PORT", "1")
    with started("app", "--store", first_model, "--port", port, port=port):
        assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200


def test_help_names_every_setting() -> None:
    result = run_here(main, "--help")
    assert result.returncode == 0
    for option in ("--store", "--name", "--host", "--port", "--max-body-bytes"):
        assert option in result.stdout


def test_in_a_terminal_it_says_what_it_serves_and_a_line_to_try_that_is_answered(
    first_model: Path, port: int
) -> None:
    screen, terminal = os.openpty()
    command = [sys.executable, "-m", "app", "--store", str(first_model), "--port", str(port)]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, text=True) as process:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        shown = os.read(screen, 2**16).decode()
        process.terminate()
    os.close(terminal)
    assert f"Serving used-car-price version 1, documented at http://127.0.0.1:{port}/docs" in shown
    assert not events(shown)
    (tried,) = re.findall(r"Try: (.*)\r", shown)
    curl, option, body, url = shlex.split(tried)
    assert (curl, option, url) == ("curl", "-d", f"http://127.0.0.1:{port}/predict")
    with started(*command[2:], port=port):
        assert httpx.post(url, content=body).status_code == 200


def test_it_listens_on_ipv6(first_model: Path, port: int) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    arguments = ("app", "--store", first_model, "--host", "::1", "--port", port)
    with started(*arguments, port=port, host="[::1]") as process:
        process.terminate()
        log, _ = process.communicate(timeout=20)
    assert {"url": f"http://[::1]:{port}", "event": "listening"}.items() <= events(log)[2].items()


def test_variables_alone_say_what_is_served(first_model: Path, port: int) -> None:
    variables = {"PLUMBLINE_STORE": str(first_model), "PLUMBLINE_NAME": "used-car-price", "PORT": str(port)}
    with started("app", port=port, environment=variables):
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", content='{"Kilometers_Driven": 57000}')
        assert round(answer.json()["prediction"], 4) == 9.4819


def test_a_store_that_cannot_be_one_ends_it_with_a_sentence(port: int) -> None:
    result = run("app", "--store", "nowhere://at/all", "--port", port, timeout=30)
    assert result.returncode == 3
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_without_anything_to_serve_it_is_live_and_not_ready_until_there_is(store: Store, port: int) -> None:
    publish_toy(store)
    variables = {"PLUMBLINE_STORE": store.url, "PLUMBLINE_REFRESH_SECONDS": "0.1"}
    with (
        started("app", "--port", port, port=port, environment=variables, path="/livez") as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        not_ready = client.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["status"]) == (503, "not ready")
        assert not_ready.json()["detail"]
        for path in ("/predict", "/predict/batch"):
            check_unavailable(client.post(path, content="{}"))
        for path in ("/", "/model", "/model/versions", "/model/report", "/openapi.json", "/docs"):
            check_unavailable(client.get(path))
        store.promote("toy", 1)
        wait_for_version(client, "1")
        process.terminate()
        log, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"python -m model_store promote toy 1 --store {store.url}" in log
    assert [event["version"] for event in events(log) if event["event"] == "serving"] == ["1"]


def check_unavailable(answer: httpx.Response) -> None:
    """The answer of a service with nothing to serve, which says when to ask again."""
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["status"] == 503


def wait_for_version(client: httpx.Client, version: str) -> None:
    """Wait until a version is served, 20 s at most."""
    deadline = time.monotonic() + 20
    while client.get("/readyz").json().get("version") != version:
        assert time.monotonic() < deadline, client.get("/readyz").text
        time.sleep(0.05)


def test_check_verifies_what_would_be_served_and_ends_with_0(store: Store) -> None:
    store.promote("toy", publish_toy(store).version)
    manifest = (Path(store.url) / "toy" / "versions" / "1" / "manifest.json").read_bytes()
    result = run("app", "--check", "--store", store.url)
    assert (result.returncode, result.stderr) == (0, "")
    digest = hashlib.sha256(manifest).hexdigest()
    assert result.stdout == f"toy version 1 is whole, digest {digest}\n"


def test_check_looks_at_the_pinned_version_and_not_at_the_promoted_one(store: Store) -> None:
    for _ in range(2):
        publish_toy(store)
    store.promote("toy", 2)
    result = run_here(main, "--check", "--store", store.url, "--version", 1)
    assert result.returncode == 0
    assert result.stdout.startswith("toy version 1 ")
    assert "3" in refused(3, "--check", "--store", store.url, "--version", 3)


def test_check_listens_nowhere(store: Store) -> None:
    store.promote("toy", publish_toy(store).version)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run_here(main, "--check", "--store", store.url, "--port", taken.getsockname()[1])
    assert result.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_code_0(first_model: Path, port: int, number: signal.Signals) -> None:
    with started("app", "--store", first_model, "--port", port, port=port) as process:
        process.send_signal(number)
        output, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in output + log
