"""From the first signal to the end of the process.

SIGTERM: /readyz says so at once, requests are still accepted while balancers take notice, then the server
stops accepting, finishes what is in flight and ends. A worker whose supervisor is gone does not wait.
"""

import asyncio
import multiprocessing
import signal
from collections.abc import Callable
from functools import partial
from threading import Thread


class Lifecycle:
    """Whether the process is about to end, and what ends it."""

    def __init__(self, drain_seconds: float) -> None:
        self._drain_seconds = drain_seconds
        self.is_draining = False

    def attach(self, on_hang_up: Callable[[], None]) -> None:
        """Heed signals from now on, in the running loop; the server's own handler of SIGTERM stops it."""
        loop, stop = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
        loop.add_signal_handler(signal.SIGHUP, on_hang_up)
        if callable(stop):
            stop_now = partial(stop, signal.SIGTERM, None)
            loop.add_signal_handler(signal.SIGTERM, self._drain, loop, stop_now)
            Thread(target=end_with_supervisor, args=(loop, stop_now), daemon=True).start()

    def _drain(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
        if self.is_draining or not self._drain_seconds:
            stop()
        else:
            loop.call_later(self._drain_seconds, stop)
        self.is_draining = True


def end_with_supervisor(loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
    """Stop as soon as the process that started this worker is gone, so that its port is free again."""
    if supervisor := multiprocessing.parent_process():
        supervisor.join()
        loop.call_soon_threadsafe(stop)
