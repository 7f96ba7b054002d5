"""A process that does what it is told in children of its own, each held until a tracer is attached to it.

In comes a line with an operation and a store, out goes the child's process id; in comes any line, the child
runs, and out goes how it ended. Importing once and forking makes that a matter of milliseconds.
"""

import ctypes
import json
import mmap
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Final

from model_store.errors import StoreError
from model_store.store import Store, open_store
from tests.toys import publish_toy

DONE, CRASHED, REFUSED = 0, 1, 3
LONGEST_ANSWER = 2**16
PR_SET_PTRACER: Final = 0x59616D61

OPERATIONS: Final[dict[str, Callable[[Store], object]]] = {
    "publish the first": lambda store: publish_toy(store, seed=1),
    "publish": lambda store: publish_toy(store, seed=3),
    "promote the first": lambda store: store.promote("toy", 1),
    "promote": lambda store: store.promote("toy", 2),
    "promote a damaged one": lambda store: store.promote("toy", 3),
    "prune": lambda store: store.prune("toy", 2, "a test"),
}


def attempt(operation: str, store: str) -> tuple[int, str]:
    """The exit code of one operation, and the refusal or the traceback."""
    try:
        OPERATIONS[operation](open_store(store))
    except StoreError as error:
        return REFUSED, str(error)
    except BaseException:  # noqa: BLE001  (whatever it is, the test has to see it)
        return CRASHED, traceback.format_exc()
    return DONE, ""


def run_child(operation: str, store: str, gate: int, answer: mmap.mmap) -> None:
    """Wait to be let go, then act and answer through shared memory, which takes no system call."""
    signal.alarm(60)
    # Where only ancestors may trace, as on Ubuntu, this permits it to everybody; elsewhere it does nothing.
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    select.select([gate], [], [])
    code, said = attempt(operation, store)
    encoded = said.encode()[: LONGEST_ANSWER - 1]
    answer[: len(encoded)] = encoded
    os._exit(code)


def run_one(operation: str, store: str) -> None:
    """Fork a child, name it, wait for the line that lets it go, and say how it ended."""
    answer = mmap.mmap(-1, LONGEST_ANSWER)
    gate, open_gate = os.pipe()
    child = os.fork()
    if not child:
        run_child(operation, store, gate, answer)
    print(child, flush=True)
    sys.stdin.readline()
    os.write(open_gate, b"\n")
    _, status = os.waitpid(child, 0)
    os.close(gate)
    os.close(open_gate)
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps([code, answer[:].rstrip(b"\0").decode(errors="replace")]), flush=True)
    answer.close()


def main() -> None:
    """Serve one line after the other until there are no more."""
    while line := sys.stdin.readline():
        run_one(*json.loads(line))


if __name__ == "__main__":
    main()
