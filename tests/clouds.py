"""Emulators of S3 and Azure: real servers in processes of their own, reached as the real ones are."""

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

BUCKET = "models"
ACCOUNT = "emulated"
ACCOUNT_KEY = base64.b64encode(b"x" * 64).decode()

# Between its threads moto's conditional put is not atomic: it looks whether the key exists and then puts it.
# A lock lets one request in at a time, which makes it the S3 that the store relies on.
S3_SERVER = """
import sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import run_simple

application, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

def one_at_a_time(environ, start_response):
    with lock:
        return list(application(environ, start_response))

run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True, request_handler=MotoRequestHandler)
"""


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def s3_variables(port: int) -> dict[str, str]:
    """The variables by which an object store's client finds the emulator of S3."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "a secret",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def s3(*, strict: bool = False) -> Iterator[dict[str, str]]:
    """An empty bucket `models`; gives the variables to reach it by. A `strict` one knows nobody's key."""
    checked = {"INITIAL_NO_AUTH_ACTION_COUNT": "1"} if strict else {}
    with listening(lambda port: [sys.executable, "-c", S3_SERVER, str(port)], checked) as port:
        put(f"http://127.0.0.1:{port}/{BUCKET}", {})
        yield s3_variables(port)


@contextmanager
def azure(folder: Path) -> Iterator[dict[str, str]]:
    """An empty container `models`, of an emulator installed in `folder`; gives the variables to reach it."""
    program = install_azurite(folder)

    def command(port: int) -> list[str]:
        options = ["--blobHost", "127.0.0.1", "--inMemoryPersistence", "--disableTelemetry"]
        return [str(program), "--blobPort", str(port), "--skipApiVersionCheck", *options]

    with listening(command, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}) as port:
        make_container(port)
        yield {
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{port}",
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
        }


def install_azurite(folder: Path) -> Path:
    """Azurite's blob server; skips where npm cannot install it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Azure's emulator is not here: there is no npm to install it with")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "azurite"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if result.returncode:
        pytest.skip(f"Azure's emulator is not here: npm could not install it: {result.stderr.strip()[-200:]}")
    return folder / "node_modules" / ".bin" / "azurite-blob"


def make_container(port: int) -> None:
    """Create the container with a request signed as Azure's shared key signs."""
    date = formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    signed = "\n".join(
        [
            "PUT",
            *[""] * 11,
            *(f"{name}:{value}" for name, value in headers.items()),
            f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}",
            "restype:container",
        ]
    )
    digest = hmac.digest(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256)
    signature = base64.b64encode(digest).decode()
    put(
        f"http://127.0.0.1:{port}/{ACCOUNT}/{BUCKET}?restype=container",
        headers | {"Authorization": f"SharedKey {ACCOUNT}:{signature}"},
    )


def put(url: str, headers: dict[str, str]) -> None:
    """An empty PUT; raises HTTPError for an answer that is not 2xx."""
    request = urllib.request.Request(url, method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=30):
        pass


@contextmanager
def listening(
    command: Callable[[int], list[str]], variables: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A server in a process of its own, from when it listens; gives its port, ends it afterwards."""
    port = free_port()
    process = subprocess.Popen(
        command(port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | dict(variables or {}),
    )
    try:
        wait_until_listening(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def wait_until_listening(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Wait for the first connection that is accepted."""
    for _ in range(300):
        if process.poll() is not None:
            pytest.fail(f"the emulator ended with code {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the emulator was not ready within 30 s")
