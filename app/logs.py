"""Log lines on stdout: JSON, one object a line, or in a terminal as people like to read them.

Writing a line never waits. A thread passes the lines on; those that it has no room for, because nobody reads
them, and those that cannot be written, because stdout is closed, are dropped and counted.
"""

import logging
import os
import select
import sys
from queue import Full, Queue
from threading import Thread

import structlog
from structlog.typing import EventDict, Processor

MOST_LINES = 10_000
LAST_SECONDS = 1.0

logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("plumbline")


class Lines(logging.Handler):
    """Writes log lines to stdout from a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: Queue[bytes] = Queue(MOST_LINES)
        self._unqueued = self._unwritten = 0
        # Where stdout was closed from the start, its descriptor may by now be something else's.
        self._descriptor = sys.stdout.fileno() if sys.stdout else None
        Thread(target=self._pass_on, daemon=True).start()

    @property
    def dropped(self) -> int:
        """How many lines were lost."""
        return self._unqueued + self._unwritten

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record's line."""
        self.put(self.format(record))

    def put(self, line: str) -> None:
        """Take a line; drop it if there are too many that wait."""
        try:
            self._lines.put_nowait(f"{line}\n".encode(errors="backslashreplace"))
        except Full:
            self._unqueued += 1

    def flush(self) -> None:
        """Wait until all lines are written, but not for long: it may be that nobody reads them."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, LAST_SECONDS)

    def _pass_on(self) -> None:
        while True:
            line = self._lines.get()
            try:
                self._write(line)
            except OSError:
                self._unwritten += 1
            self._lines.task_done()

    def _write(self, line: bytes) -> None:
        if self._descriptor is None:
            self._unwritten += 1
            return
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:
                # Who made the pipe may have told it not to wait; a part of a line would spoil the next.
                select.select([], [self._descriptor], [])


def is_terminal() -> bool:
    """Whether a person reads the lines."""
    return sys.stdout is not None and sys.stdout.isatty()


def configure(level: str) -> Lines:
    """Write this process's log lines, the libraries' too, from this level on."""
    first: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *first,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if is_terminal():
        last.append(
            structlog.dev.ConsoleRenderer(
                # https://no-color.org
                colors=not os.environ.get("NO_COLOR"),
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    else:
        last += [structlog.processors.format_exc_info, in_order, structlog.processors.JSONRenderer()]
    lines = Lines()
    lines.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=first, processors=last))
    logging.basicConfig(handlers=[lines], level=level.upper(), force=True)
    return lines


def flush() -> None:
    """Wait for the lines so far, but not for long."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def in_order(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The event with what every line has in front."""
    return {**{name: event.pop(name) for name in ("timestamp", "level", "event")}, **event}
