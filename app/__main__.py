"""Serve a model's promoted version: `python -m app --store models --name used-car-price`.

It follows later promotions; SIGHUP makes it look at once. Exit codes: 0 stopped or, with --check, verified;
2 usage, or an address that cannot be listened on; 3 no such store or, with --check, nothing to serve.
"""

import argparse
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from app.live import Live
from app.main import UsageError, build_from, configure_logging, create_app, log_settings, read_settings
from app.settings import Settings
from app.telemetry import Telemetry
from model_store.errors import StoreError
from model_store.store import open_store


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen and serve until a signal ends it, or only check."""
    options = vars(parser().parse_args(arguments))
    check = options.pop("check")
    try:
        settings = read_settings(options)
        live = Live(open_store(settings.store), Telemetry(), settings)
        return verify(live) if check else serve(live, settings, listen(settings.host, settings.port))
    except UsageError as error:
        return fail(error, 2)
    except StoreError as error:
        return fail(error, 3)


def parser() -> argparse.ArgumentParser:
    """Every setting is an argument of the same name."""
    top = argparse.ArgumentParser("python -m app", description=__doc__)
    for name, field in Settings.model_fields.items():
        top.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=field.description)
    top.add_argument("--check", action="store_true", help="verify what would be served and exit")
    return top


def verify(live: Live) -> int:
    """Load what would be served, say what came of it and return the exit code."""
    served = live.load_due()
    print(f"{served.name} version {served.version} is whole, digest {served.digest}")
    return 0


def serve(live: Live, settings: Settings, listener: socket.socket) -> int:
    """Answer until a signal comes."""
    # Until there is a loop that can heed it; nobody's look is lost, the first is yet to come.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure_logging(settings.log_level)
    log_settings(settings, is_local=is_loopback(settings.host))
    live.start()
    announce(live, settings, listener)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn stops on these, then raises them once more for its caller: that is a clean end here.
        signal.signal(number, lambda *_: None)
    if settings.workers == 1:
        uvicorn.Server(configure(create_app(live, settings), settings)).run(sockets=[listener])
    else:
        config = configure(partial(build_from, settings), settings)
        Workers(config, sockets=[listener]).run()
    return 0


class Workers(Multiprocess):
    """Processes that share a socket. SIGHUP makes each of them look, where uvicorn would replace it."""

    def handle_hup(self) -> None:
        """Tell those that have started; the others look as they start."""
        for process in self.processes:
            if process.pid and process.is_ready():
                os.kill(process.pid, signal.SIGHUP)


def configure(application: Callable[..., Any], settings: Settings) -> uvicorn.Config:
    """The HTTP server's settings, its parser and loop named so that no other is picked."""
    return uvicorn.Config(
        application,
        factory=isinstance(application, partial),
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level=settings.log_level,
        ws="none",
    )


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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def announce(live: Live, settings: Settings, listener: socket.socket) -> None:
    """Say what is served, where, and the line to try."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if live.served is None:
        print(f"Listening on {url}, not ready: looking every {settings.refresh_seconds:g} s", flush=True)
        return
    print(f"Serving {live.served.name} version {live.served.version} on {url}, documented at {url}/docs")
    print(f"Try: curl -d {shlex.quote(live.served.example)} {url}/predict", flush=True)


def fail(error: Exception, code: int) -> int:
    """Say what is wrong and return the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
