"""The container images, built and run as strictly as an orchestrator can: `make image-test`."""

import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
DOCKER, MAKE = (shutil.which(program) or program for program in ("docker", "make"))
HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "12345:12345", "--network", "none"),
)
MEGABYTE = 10**6
MOST_ABOVE_BASE = 130 * MEGABYTE
TRAIN = (
    "python -m training sample /tmp/cars.csv && "
    "python -m training fit /tmp/cars.csv --target Price --feature Kilometers_Driven "
    "--name used-car-price --store /store --promote"
)
# What runs inside asks with the library alone; there is no client in the image.
ASK = """
import sys, urllib.request
path, body = sys.argv[1], sys.argv[2].encode() or None
with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[3]}{path}", data=body, timeout=30) as answer:
    print(answer.read().decode())
"""
# Sends and takes at the same time, as curl does.
SEND_CSV = """
import http.client, sys, threading
def row(number): return b"%d\\n" % (1000 + number)
rows = int(sys.argv[1])
client = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
client.putrequest("POST", "/predict/batch")
for header in (("Content-Type", "text/csv"), ("Transfer-Encoding", "chunked")):
    client.putheader(*header)
client.endheaders()
def chunk(content): client.send(b"%x\\r\\n%s\\r\\n" % (len(content), content))
def send():
    chunk(b"Kilometers_Driven\\n")
    for start in range(0, rows, 5000):
        chunk(b"".join(map(row, range(start, start + 5000))))
    client.send(b"0\\r\\n\\r\\n")
sender = threading.Thread(target=send)
sender.start()
answer = http.client.HTTPResponse(client.sock)
answer.begin()
lines = answer.read().splitlines()
print(answer.status, len(lines) - 1, len(set(lines)) - 1, lines[0].decode())
"""


def docker(*arguments: object, timeout: float = 120) -> str:
    """What a command of the engine prints; its complaint fails the test."""
    result = subprocess.run(
        [DOCKER, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


class Images(NamedTuple):
    """The names of the images."""

    serve: str = "plumbline"
    cloud: str = "plumbline-cloud"
    train: str = "plumbline-train"


@pytest.fixture(scope="module")
def images() -> Images:
    """All images, built by the developers' command; skips where no engine answers."""
    try:
        docker("info")
    except (OSError, AssertionError):
        pytest.skip("no Docker engine answers `docker info` here")
    subprocess.run([MAKE, "image"], cwd=ROOT, timeout=1800, check=True)
    return Images()


@pytest.fixture(scope="module")
def store(images: Images) -> Iterator[str]:
    """A volume with the first model in it, trained by an image."""
    volume = docker("volume", "create")
    try:
        train(images.train, volume)
        yield volume
    finally:
        docker("volume", "rm", volume)


def train(image: str, volume: str) -> None:
    """Train and promote a version of the first model."""
    shell = ("--entrypoint", "sh", image, "-c", TRAIN)
    docker("run", "--rm", "--network", "none", "--volume", f"{volume}:/store", *shell)


@contextmanager
def running(*options: str) -> Iterator[str]:
    """The name of a new container of the image that serves, removed afterwards."""
    name = f"plumbline-{uuid.uuid4().hex[:12]}"
    try:
        docker("run", "--detach", "--name", name, *options, Images().serve)
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


@pytest.fixture(scope="module")
def service(store: str) -> Iterator[str]:
    """The name of a container that answers, and may do nothing else."""
    with running(*HARDENED, "--volume", f"{store}:/store:ro") as name:
        wait_until(lambda: is_ready(name), name)
        yield name


def wait_until(is_so: Callable[[], bool], name: str) -> None:
    """Wait; fail with the container's log if it takes too long."""
    for _ in range(150):
        if is_so():
            return
        time.sleep(0.2)
    log = subprocess.run([DOCKER, "logs", name], capture_output=True, text=True, check=False)
    pytest.fail(log.stdout + log.stderr)


def python(name: str, code: str, *arguments: object) -> str:
    """What a program prints that is run in the container."""
    return docker("exec", name, "python", "-c", code, *arguments)


def ask(name: str, path: str, body: str = "", port: int = 8000) -> str:
    """The service's answer to somebody in its container."""
    return python(name, ASK, path, body, port)


def is_ready(name: str, port: int = 8000) -> bool:
    """Whether /readyz is 200."""
    command = [DOCKER, "exec", name, "python", "-c", ASK, "/readyz", "", str(port)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def inspect(name: str, path: str) -> Any:
    """A part of what the engine knows of a container or an image."""
    return json.loads(docker("inspect", "--format", f"{{{{json {path}}}}}", name))


def test_what_serves_is_small(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    names = images._asdict() | {"base": base_image()}
    sizes = {what: inspect(name, ".Size") for what, name in names.items()}
    above = sizes["serve above base"] = sizes["serve"] - sizes["base"]
    with capsys.disabled():
        print("", *(f"{what:>16} {size / MEGABYTE:7.1f} MB" for what, size in sizes.items()), sep="\n")
    assert above <= MOST_ABOVE_BASE


def base_image() -> str:
    """The image that both are built on."""
    (version,) = [
        line.removeprefix("ARG PYTHON=")
        for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("ARG PYTHON=")
    ]
    return f"python:{version}-slim"


def test_it_predicts_what_the_readme_says(service: str) -> None:
    answer = json.loads(ask(service, "/predict", '{"Kilometers_Driven": 57000}'))
    assert answer["prediction"] == pytest.approx(9.481917396458176, rel=1e-9)
    assert (answer["model"], answer["version"]) == ("used-car-price", "1")


def test_it_is_ready_and_tells_its_metrics(service: str) -> None:
    assert json.loads(ask(service, "/readyz"))["status"] == "ready"
    (served,) = [
        line for line in ask(service, "/metrics").splitlines() if line.startswith("plumbline_model_info{")
    ]
    assert 'model="used-car-price"' in served


def test_it_runs_as_nobody_with_no_capability_and_writes_nowhere(service: str) -> None:
    status = dict(
        line.split(":\t", 1) for line in python(service, "print(open('/proc/1/status').read())").splitlines()
    )
    assert status["Uid"].split() == ["12345"] * 4
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")
    tried = (
        "import os, tempfile; print([os.access(path, os.W_OK) for path in ('/', '/srv', '/tmp', '/store')])"
    )
    assert python(service, tried) == str([False] * 4)


def test_no_image_runs_as_root_of_its_own_accord(images: Images) -> None:
    for image in images:
        printed = docker("run", "--rm", "--network", "none", "--entrypoint", "id", image, "-u")
        assert printed == "10001"


@pytest.mark.parametrize("module", ["torch", "pandas", "training", "pip", "pytest"])
def test_what_only_others_need_is_not_there(service: str, module: str) -> None:
    found = f"from importlib.util import find_spec; print(find_spec('numpy') and find_spec({module!r}))"
    assert python(service, found) == "None"


@pytest.mark.parametrize(
    ("variables", "port"),
    [({"PORT": "9000"}, 9000), ({"PORT": "9000", "PLUMBLINE_PORT": "9001"}, 9001)],
)
def test_it_listens_and_is_healthy_on_the_port_that_the_variables_name(
    store: str, variables: dict[str, str], port: int
) -> None:
    given = [word for item in variables.items() for word in ("--env", "=".join(item))]
    with running(*HARDENED, *given, "--health-interval", "1s", "--volume", f"{store}:/store:ro") as name:
        wait_until(lambda: is_ready(name, port), name)
        wait_until(lambda: health(name) == "healthy", name)


def test_it_is_healthy_by_the_images_own_check(service: str) -> None:
    wait_until(lambda: health(service) == "healthy", service)
    assert inspect(Images().serve, ".Config.Healthcheck.Test")[:2] == ["CMD", "python"]


def health(name: str) -> str:
    """What the engine thinks of the container's health."""
    state: str = inspect(name, ".State.Health.Status")
    return state


def test_it_is_unhealthy_when_it_does_not_answer(store: str) -> None:
    elsewhere = ("--env", "PORT=9000", "--health-interval", "1s", "--health-retries", "1")
    with running(*elsewhere, "--health-start-period", "0s", "--volume", f"{store}:/store:ro") as name:
        wait_until(lambda: health(name) == "healthy", name)
        wait_until(lambda: is_ready(name, 9000), name)
        docker("kill", "--signal", "STOP", name)
        wait_until(lambda: health(name) == "unhealthy", name)


@pytest.mark.parametrize("after", [None, 0, 0.05, 0.1, 0.2, 0.3, 0.5])
def test_a_stop_ends_it_in_time_and_cleanly(store: str, after: float | None) -> None:
    """When it is ready, and at any time while it starts."""
    with running(*HARDENED, "--volume", f"{store}:/store:ro") as name:
        if after is None:
            wait_until(lambda: is_ready(name), name)
        else:
            time.sleep(after)
        began = time.monotonic()
        docker("stop", "--time", "8", name)
        assert time.monotonic() - began < 5
        assert inspect(name, ".State.ExitCode") == 0


def test_it_answers_a_csv_far_larger_than_what_it_may_keep(service: str) -> None:
    """There is no place for a temporary file: it answers as fast as the caller takes."""
    assert (
        python(service, SEND_CSV, 1_000_000)
        == "200 1000000 1000000 Kilometers_Driven,prediction,lower,upper,error"
    )


def test_the_image_for_clouds_has_what_object_stores_and_tracing_need(images: Images) -> None:
    code = "import obstore, opentelemetry.sdk, app.main; print('here')"
    shell = ("--network", "none", "--entrypoint", "python", images.cloud, "-c", code)
    assert docker("run", "--rm", *shell) == "here"


def test_a_version_that_the_other_image_promotes_goes_live(images: Images, service: str, store: str) -> None:
    train(images.train, store)
    wait_until(lambda: json.loads(ask(service, "/readyz"))["version"] == "2", service)
