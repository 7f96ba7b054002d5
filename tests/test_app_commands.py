import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from model_store.store import Store
from tests.conftest import run, wait_until_ready
from tests.toys import publish_toy


@contextmanager
def started(
    *arguments: object, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process of `python -m ARGUMENTS…`, answering on `port`; killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}")
            yield process
        finally:
            process.kill()


@pytest.fixture
def port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


def refused(code: int, *arguments: object) -> str:
    """Run the service's command, which must end with `code` and one sentence; return that."""
    result = run("app", *arguments, timeout=30)
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
    message = refused(3, "--port", 0, "--store", folder, *(["--name", "toy"] if named else []))
    assert message.startswith("error: ")
    assert str(folder) in message
    assert "empty" in message
    assert message.count("\n") == 1


def test_a_model_with_nothing_promoted_ends_it_with_the_command_to_promote(store: Store) -> None:
    publish_toy(store)
    message = refused(3, "--port", 0, "--store", store.url)
    assert f"python -m model_store promote toy 1 --store {store.url}" in message


def test_a_model_that_is_not_there_ends_it_with_those_that_are(store: Store) -> None:
    publish_toy(store)
    assert "it has toy" in refused(3, "--port", 0, "--store", store.url, "--name", "cars")


def test_two_models_and_no_name_end_it_with_the_choice(store: Store) -> None:
    for name in ("one", "two"):
        publish_toy(store, name=name)
    assert "one, two: name one" in refused(3, "--port", 0, "--store", store.url)


@pytest.mark.parametrize("name", ["../toy", "", "Toy", "toy/versions", "\u00e9"])
def test_a_name_that_cannot_be_one_ends_it(store: Store, name: str) -> None:
    publish_toy(store)
    refused(3, "--port", 0, "--store", store.url, "--name", name)


def test_a_store_that_is_a_file_ends_it(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    assert "Not a directory" in refused(3, "--port", 0, "--store", tmp_path / "store")


@pytest.mark.parametrize("file", ["weights.safetensors", "manifest.json", "history.csv"])
def test_a_version_with_a_flipped_byte_ends_it_with_the_files_name(store: Store, file: str) -> None:
    store.promote("toy", publish_toy(store).version)
    path = Path(store.url) / "toy" / "versions" / "1" / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    assert f"{path} is refused" in refused(3, "--port", 0, "--store", store.url)


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


def test_an_argument_is_stronger_than_a_variable(
    first_model: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_STORE", "/nowhere")
    monkeypatch.setenv("PLUMBLINE_PORT", "1")
    with started("app", "--store", first_model, port=port):
        assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200


def test_help_names_every_setting() -> None:
    result = run("app", "--help")
    assert result.returncode == 0
    for option in ("--store", "--name", "--host", "--port", "--max-body-bytes"):
        assert option in result.stdout


def test_it_says_what_it_serves_and_a_line_to_try_that_is_answered(first_model: Path, port: int) -> None:
    with started("app", "--store", first_model, port=port) as process:
        assert process.stdout
        served, tried = process.stdout.readline(), process.stdout.readline()
        assert served == (
            f"Serving used-car-price version 1 on http://127.0.0.1:{port}, "
            f"documented at http://127.0.0.1:{port}/docs\n"
        )
        curl, option, body, url = shlex.split(tried.removeprefix("Try: "))
        assert (curl, option) == ("curl", "-d")
        assert httpx.post(url, content=body).status_code == 200


def test_it_listens_on_ipv6(first_model: Path, port: int) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with subprocess.Popen(
        [sys.executable, "-m", "app", "--store", first_model, "--host", "::1", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        first_line = process.stdout.readline()
        process.kill()
    assert f"http://[::1]:{port}," in first_line


def test_uvicorns_own_command_serves_what_the_variables_name(first_model: Path, port: int) -> None:
    variables = {"PLUMBLINE_STORE": str(first_model), "PLUMBLINE_NAME": "used-car-price"}
    with started("uvicorn", "--factory", "app.main:build", port=port, environment=variables):
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", content='{"Kilometers_Driven": 57000}')
        assert round(answer.json()["prediction"], 4) == 9.4819


def test_uvicorns_own_command_ends_with_a_sentence_where_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_STORE", str(tmp_path / "nothing"))
    result = run("uvicorn", "--factory", "app.main:build", "--port", 0, timeout=30)
    assert result.returncode != 0
    assert result.stderr == f"error: the store {tmp_path / 'nothing'} is empty: train a model first\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_code_0(first_model: Path, port: int, number: signal.Signals) -> None:
    with started("app", "--store", first_model, port=port) as process:
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in output


def test_a_wrong_variable_ends_the_factory_with_a_sentence(first_model: Path) -> None:
    environment = os.environ | {"PLUMBLINE_STORE": str(first_model), "PLUMBLINE_PORT": "abc"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:build"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment)
    assert result.returncode != 0
    assert "error: port: " in result.stderr
    assert "Traceback" not in result.stderr
