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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from app import logs
from app.connection import Protocol
from app.live import Live
from app.logs import Lines, logger
from app.main import UsageError, build, create_app, go_live, read_settings
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
        if check:
            return verify(Live(open_store(settings.store), Telemetry(), settings))
        return serve(settings, listen(settings.host, settings.port))
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
    """Load what would be served, say so and return the exit code; raises StoreError if it cannot be."""
    served = live.load()
    print(f"{served.name} version {served.version} is whole, digest {served.digest}")
    return 0


def serve(settings: Settings, listener: socket.socket) -> int:
    """Answer until a signal comes; raises StoreError for no store, UsageError for no temporary folder."""
    # Until the server heeds them: an end is a clean one, and no look is lost, since the first is yet to come.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lines = logs.configure(settings.log_level)
    log_settings(settings)
    live = go_live(settings, lines)
    announce(live, settings, listener, lines)
    if settings.workers == 1:
        run_alone(uvicorn.Server(configure(create_app(live, settings), settings)), listener)
    else:
        run_workers(settings, listener)
    return 0


def run_alone(server: uvicorn.Server, listener: socket.socket) -> None:
    """Answer in this process."""

    def stop(*_: object) -> None:
        server.should_exit = True

    # The server takes these over, and raises them once more when it has ended, for whoever had them before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listener])


def run_workers(settings: Settings, listener: socket.socket) -> None:
    """Answer in several processes, which this one watches; raises UsageError without a temporary folder."""
    try:
        folder = TemporaryDirectory(prefix="plumbline-")
    except OSError:
        message = "workers need a folder for temporary files: set TMPDIR to one that can be written"
        raise UsageError(message) from None
    with folder as shared:
        config = configure(partial(build, settings, Path(shared)), settings)
        Workers(config, sockets=[listener]).run()


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
        http=Protocol,
        access_log=False,
        log_config=None,
        log_level=settings.log_level,
        timeout_graceful_shutdown=settings.grace_seconds,
        ws="none",
        proxy_headers=False,
        server_header=False,
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


def log_settings(settings: Settings) -> None:
    """Log the settings without their secrets, and loudly that anybody may call, if so."""
    logger.info("settings", **settings.model_dump(mode="json"))
    if not settings.key_digests and not is_loopback(settings.host):
        logger.warning("ANYBODY who reaches this service may call: no PLUMBLINE_API_KEYS are set")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def announce(live: Live, settings: Settings, listener: socket.socket, lines: Lines) -> None:
    """Say what is served, where, and to a person also the line to try."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if live.served is None:
        logger.info("listening", url=url, ready=False, looking_every_seconds=settings.refresh_seconds)
        return
    logger.info("listening", url=url, ready=True)
    if logs.is_terminal():
        lines.put(f"\nServing {live.served.name} version {live.served.version}, documented at {url}/docs")
        lines.put(f"Try: curl -d {shlex.quote(live.served.example)} {url}/predict\n")


def fail(error: Exception, code: int) -> int:
    """Say what is wrong and return the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
