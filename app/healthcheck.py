"""Whether the service of this container is live: `python -m app.healthcheck` ends with 0 if so, else with 1.

It asks at the address and port that the variables name. Of the library it loads the sockets alone, because an
engine starts it every few seconds: an HTTP client or the settings would take five times as long.
"""

import os
import socket
import sys
from collections.abc import Mapping

REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
PATIENCE = 2.0


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Where the service listens; a connection to 0.0.0.0 or :: reaches this machine."""
    environment = {name.upper(): value for name, value in environment.items()}
    host = environment.get("PLUMBLINE_HOST") or environment.get("HOST") or "127.0.0.1"
    port = environment.get("PLUMBLINE_PORT") or environment.get("PORT") or "8000"
    return host, int(port)


def is_live(host: str, port: int) -> bool:
    """Whether /livez answers 200 in time."""
    try:
        with socket.create_connection((host, port), timeout=PATIENCE) as connection:
            connection.sendall(REQUEST)
            return connection.makefile("rb").readline(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not is_live(*address(os.environ)))
