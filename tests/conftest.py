"""Real processes and toy models that many tests share."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser
from threadpoolctl import threadpool_limits

from model_store.store import Store, open_store
from tests.browser import chromium
from tests.in_process import calling
from tests.toys import publish_toy

pytest_plugins = ["tests.needs"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute on one thread here; those of several test processes would wait for each other's cores."""
    with threadpool_limits(1):
        yield


def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `python -m ARGUMENTS…` in a process of its own."""
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@contextmanager
def serving(store: Path, *arguments: str, name: str | None = None) -> Iterator[str]:
    """A real service of the store's promoted version; gives its address, ends it afterwards."""
    port = free_port()
    named = ["--name", name] if name else []
    command = [sys.executable, "-m", "app", "--store", str(store), "--port", str(port), *named, *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    try:
        wait_until_ready(process, url := f"http://127.0.0.1:{port}")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@contextmanager
def started(
    *arguments: object,
    port: int,
    environment: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    path: str = "/readyz",
) -> Iterator[subprocess.Popen[str]]:
    """A process of `python -m ARGUMENTS…` that answers `path` with 200; ended afterwards if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            wait_until_ready(process, f"http://{host}:{port}", path)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.communicate(timeout=20)
            finally:
                process.kill()


def wait_until_ready(process: subprocess.Popen[str], url: str, path: str = "/readyz") -> None:
    """Wait for the first healthy answer; fail with what the process printed if it ends before."""
    for _ in range(300):
        if process.poll() is not None:
            output, errors = process.communicate()
            pytest.fail(f"the service ended with code {process.returncode}: {output}{errors or ''}")
        try:
            with urllib.request.urlopen(f"{url}{path}", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the service was not ready within 30 s")


def each_anew(url: httpx.URL | str) -> httpx.Client:
    """A client that opens a connection for every call, so that any worker may answer it."""
    return httpx.Client(base_url=url, headers={"Connection": "close"}, timeout=20)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def cars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic table, written by its command."""
    path = tmp_path_factory.mktemp("data") / "cars.csv"
    assert run("training", "sample", path).returncode == 0
    return path


@pytest.fixture(scope="session")
def first_model(cars: Path) -> Path:
    """A store with the first model, trained and promoted by the README's command."""
    store = cars.parent / "models"
    result = run(
        *("training", "fit", cars, "--target", "Price", "--feature", "Kilometers_Driven"),
        *("--name", "used-car-price", "--store", store, "--promote"),
    )
    assert result.returncode == 0, result.stderr
    return store


@pytest.fixture(scope="session")
def first_service(first_model: Path) -> Iterator[str]:
    """The address of a service of the first model."""
    with serving(first_model) as url:
        yield url


@pytest.fixture(scope="session")
def first_client(first_model: Path) -> Iterator[httpx.Client]:
    """A client of the first model, served in this process."""
    with calling(open_store(str(first_model))) as client:
        yield client


@pytest.fixture(scope="session")
def mixed_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a toy with two numbers and a category, names with odd characters."""
    store = open_store(str(tmp_path_factory.mktemp("mixed") / "store"))
    store.promote("toy", publish_toy(store).version)
    return store


@pytest.fixture(scope="session")
def mixed_service(mixed_store: Store) -> Iterator[str]:
    """The address of a service of the toy."""
    with serving(Path(mixed_store.url)) as url:
        yield url


@pytest.fixture(scope="session")
def mixed_client(mixed_store: Store) -> Iterator[httpx.Client]:
    """A client of the toy, served in this process."""
    with calling(mixed_store) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the pages; no longer than a module, because its loop forbids all others."""
    with chromium() as browser:
        yield browser


def events(log: str) -> list[dict[str, Any]]:
    """A service's log lines, parsed, without what others printed between them."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def only_json(text: str) -> object:
    """Parse JSON that must not hold NaN or Infinity."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in an answer"))
