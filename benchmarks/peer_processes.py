"""The processes of `benchmarks.peers`: how a server is installed, started on its core, asked and ended."""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from benchmarks.serving import LOAD_CORE, SERVER_CORE, Bench
from tests.conftest import free_port

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".peers"
ONE = [53103]
PATIENCE, GRACE = 90.0, 10.0


class NotMeasured(Exception):
    """A peer that could not be installed, started or asked here; the message says why."""


@dataclass(frozen=True)
class Contender:
    """How a server is started and asked.

    The command, the preparation before it and the environment may name {bin}, {model}, {folder}, {port},
    {store} and, each a free port too, {port_2} and {port_3}.
    """

    title: str
    command: str
    path: str
    body: Callable[[list[int]], Any]
    read: Callable[[Any], Any]
    form: str = ""
    batch_path: str = ""
    requirements: tuple[str, ...] = ()
    prepare: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """With its version, if it is a peer."""
        return " ".join([self.title, *(pin.partition("==")[2] for pin in self.requirements[:1])])

    @property
    def home(self) -> Path:
        """The folder of its environment."""
        return CACHE / self.title.lower() if self.requirements else Path(sys.prefix)

    def question(self, cars: list[int]) -> tuple[str, bytes]:
        """The path and the body that ask for the prices of these cars."""
        path = self.batch_path if self.batch_path and len(cars) > 1 else self.path
        return path, json.dumps(self.body(cars)).encode()


def install(peer: Contender) -> str:
    """Make the peer's environment if it is not there yet; gives a word on it."""
    done, wanted = peer.home / "installed", " ".join([platform.python_version(), *peer.requirements])
    if done.exists() and done.read_text() == wanted:
        return "was installed before"
    start = time.perf_counter()
    shutil.rmtree(peer.home, ignore_errors=True)
    CACHE.mkdir(exist_ok=True)
    # A peer that comes to want torch shall fail at once, not fetch gigabytes.
    (constraints := CACHE / "constraints.txt").write_text("torch<0\n")
    must_run([sys.executable, "-m", "venv", str(peer.home)])
    pip = [f"{peer.home}/bin/pip", "install", "--quiet", "--constraint", str(constraints)]
    must_run([*pip, *peer.requirements])
    done.write_text(wanted)
    return f"installed in {time.perf_counter() - start:.0f} s"


def must_run(command: Sequence[str], **options: Any) -> None:
    """Run a command that a peer cannot do without."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if result.returncode:
        message = (
            f"`{' '.join(Path(word).name for word in command[:3])} …` failed: {last_words(result.stderr)}"
        )
        raise NotMeasured(message)


def last_words(log: str) -> str:
    """The last line of a log that tells of an error, or else its last; not too long, and fit for a table."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    last = (errors or lines or ["it said nothing"])[-1]
    return textwrap.shorten(last.replace("|", "/"), 200, placeholder=" …")


@dataclass(frozen=True)
class Running:
    """A server under way: its processes are those with the mark in their environment."""

    contender: Contender
    port: int
    process: subprocess.Popen[str]
    mark: bytes
    log: Path

    @property
    def family(self) -> list[int]:
        """The process and all that it started, wherever they moved since."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if self.mark in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    @property
    def memory(self) -> float:
        """The proportional share of memory of all of them, in MB."""
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.family]
        sizes = re.findall(r"^Pss: +(\d+)", "".join(texts), re.MULTILINE)
        return sum(map(int, sizes)) / 1024

    def ask(self, cars: list[int]) -> Any:
        """The prices it answers."""
        try:
            status, text = self.post(*self.contender.question(cars))
        except (OSError, HTTPException) as error:
            message = f"did not answer: {error}"
            raise NotMeasured(message) from None
        if status != 200:
            message = f"answered {status}: {last_words(text)}"
            raise NotMeasured(message)
        try:
            return np.array(self.contender.read(json.loads(text)), np.float64).ravel()
        except (LookupError, TypeError, ValueError):
            message = f"answered what is no list of prices: {last_words(text)}"
            raise NotMeasured(message) from None

    def post(self, path: str, body: bytes) -> tuple[int, str]:
        """The status and the text of an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=GRACE)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def first_answer(self) -> Any:
        """Ask for one price until it answers."""
        end = time.perf_counter() + PATIENCE
        while True:
            if (code := self.process.poll()) is not None:
                message = f"ended with code {code}: {last_words(self.log.read_text())}"
                raise NotMeasured(message)
            try:
                return self.ask(ONE)
            except NotMeasured:
                if time.perf_counter() > end:
                    raise
            time.sleep(0.01)

    def end(self) -> None:
        """Ask it to stop, then kill what is left."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=GRACE)
        while left := self.family:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.process.wait()


@contextmanager
def launched(bench: Bench, contender: Contender) -> Iterator[Running]:
    """A contender on its core; all its processes are ended afterwards."""
    mark, words = f"BENCHMARK_FAMILY={uuid4().hex}", places(bench, contender)
    log = bench.folder / f"{contender.title}.log"
    os.sched_setaffinity(0, SERVER_CORE)
    with log.open("w") as errors:
        process = subprocess.Popen(
            [word.format(**words) for word in contender.command.split()],
            cwd=words["folder"],
            env=environment(contender, words) | dict([mark.split("=")]),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    os.sched_setaffinity(0, LOAD_CORE)
    running = Running(contender, int(words["port"]), process, mark.encode(), log)
    try:
        yield running
    finally:
        running.end()


def places(bench: Bench, contender: Contender) -> dict[str, str]:
    """What the words of a command stand for."""
    folder = bench.folder / contender.title
    folder.mkdir(exist_ok=True)
    ports = {name: str(free_port()) for name in ("port", "port_2", "port_3")}
    paths = {"bin": contender.home / "bin", "model": bench.folder / "model.json", "store": bench.store}
    return {**ports, "folder": str(folder), **{name: str(path) for name, path in paths.items()}}


def environment(contender: Contender, words: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, but with the contender's commands first and its files in its own folder."""
    return {
        **os.environ,
        "PATH": f"{words['bin']}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": words["folder"],
        **{name: value.format(**words) for name, value in contender.environment.items()},
    }


def prepare(bench: Bench, peer: Contender) -> None:
    """Do what a peer wants to be done once before it serves."""
    words = places(bench, peer)
    if command := [word.format(**words) for word in peer.prepare.split()]:
        must_run(command, cwd=words["folder"], env=environment(peer, words))
