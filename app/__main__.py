"""Serve a model's promoted version: `python -m app --store models --name used-car-price`.

Exit codes: 0 stopped, 2 usage or an address that cannot be listened on, 3 nothing to serve.
"""

import argparse
import shlex
import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn
from pydantic import ValidationError

from app.main import create_app
from app.serving import Served, load_served
from app.settings import Settings, first_fault
from model_store.errors import StoreError


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, listen and serve until a signal ends it."""
    try:
        settings = read_settings(arguments)
        listener = listen(settings.host, settings.port)
        served = load_served(settings.store, settings.name)
    except UsageError as error:
        return fail(error, 2)
    except StoreError as error:
        return fail(error, 3)
    announce(served, listener)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn stops on these, then raises them once more for its caller: that is a clean end here.
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(create_app(served, settings), loop="uvloop", http="httptools", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


class UsageError(Exception):
    """An argument or a variable that cannot be used."""


def read_settings(arguments: Sequence[str] | None) -> Settings:
    """The variables' settings with the arguments' on top; every setting is an argument of the same name."""
    parser = argparse.ArgumentParser("python -m app", description=__doc__)
    for name, field in Settings.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=field.description)
    try:
        return Settings(**vars(parser.parse_args(arguments)))
    except ValidationError as error:
        raise UsageError(first_fault(error)) from None


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; raises UsageError if something else has it."""
    try:
        return socket.create_server((host, port), backlog=2048, family=family(host))
    except OSError as error:
        message = f"cannot listen on {host} port {port}: {error.strerror}. Choose another with --port"
        raise UsageError(message) from None


def family(host: str) -> socket.AddressFamily:
    """IPv6 for an address with colons, IPv4 otherwise."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def announce(served: Served, listener: socket.socket) -> None:
    """Say what is served, where, and the line to try."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"Serving {served.name} version {served.version} on {url}, documented at {url}/docs")
    print(f"Try: curl -d {shlex.quote(served.example)} {url}/predict", flush=True)


def fail(error: Exception, code: int) -> int:
    """Say what is wrong and return the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
