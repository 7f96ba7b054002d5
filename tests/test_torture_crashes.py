"""Kill -9 and failing system calls, at every one with which an operation touches the store.

A clean run under strace lists the calls. Then, for each of them, strace kills the process at that call or
makes it fail, on a fresh copy of the same store, and the store is looked at with other eyes.
"""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from model_store.errors import ModelNotFound, NothingPromoted, VersionRefused
from model_store.manifest import MANIFEST, Linear
from model_store.store import Store, open_store
from tests.crashes import DONE, OPERATIONS, REFUSED
from tests.toys import publish_toy, toy_weights

LINE: Final = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<rest>.*)")
FOLDER_AND_NAME: Final = re.compile(r'\d+<([^>]*)>, "([^"]*)"')
DESCRIPTOR: Final = re.compile(r"\d+<([^>]*)>")

KILL: Final = "KILL"
EVERY: Final = "every"
FAILING: Final[dict[str, set[str]]] = {
    "ENOSPC": {"openat", "mkdirat", "write", "fsync", "linkat", "close"},
    "EIO": {EVERY},
    "EROFS": {"openat", "mkdirat", "fchmod", "fchmodat", "write", "fsync", "linkat", "unlinkat"},
    "EMFILE": {"openat", "fcntl"},
}
# A full disk still opens what exists; a read-only one still reads.
LASTING: Final[dict[str, set[str]]] = {
    "ENOSPC": {"mkdirat", "write", "fsync", "linkat"},
    "EIO": {"mkdirat", "fchmod", "fchmodat", "write", "fsync", "linkat", "unlinkat", "read", "getdents64"},
    "EROFS": {"mkdirat", "fchmod", "fchmodat", "write", "fsync", "linkat", "unlinkat"},
    "EMFILE": {"openat", "fcntl"},
}
CHANGING: Final = {"mkdirat", "fsync", "linkat", "unlinkat"}
STRIDE: Final = 9


@dataclass(frozen=True)
class Call:
    """A system call of a trace, the `turn`-th of its name."""

    name: str
    turn: int
    arguments: str
    result: str
    injected: bool

    @property
    def entry(self) -> tuple[str, str]:
        """The folder and the name it is about, of linkat the new one."""
        return self.entries[-1]

    @property
    def entries(self) -> list[tuple[str, str]]:
        """All that it is about, of linkat the old one and the new one."""
        return [(found[1], found[2]) for found in FOLDER_AND_NAME.finditer(self.arguments)]

    @property
    def path(self) -> str:
        """What its descriptor is open on."""
        found = DESCRIPTOR.match(self.arguments)
        assert found
        return found[1]


@dataclass(frozen=True)
class Run:
    """How a process ended, what it said and which system calls it made."""

    code: int
    said: str
    calls: list[Call]


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a call: the process is killed, or the call fails; `lasting`, so do later ones."""

    action: str
    name: str
    turns: tuple[tuple[str, int], ...]
    lasting: bool = False

    @property
    def injections(self) -> list[str]:
        """The arguments that tell strace so."""
        action = "signal=KILL" if self.action == KILL else f"error={self.action}"
        on = "+" if self.lasting else ""
        injections = [f"inject={name}:{action}:when={turn}{on}" for name, turn in self.turns]
        return [argument for injection in injections for argument in ("-e", injection)]

    def may_leave_temporary(self) -> bool:
        """Whether the process could not clean up."""
        return self.action == KILL or "unlinkat" in dict(self.turns)


class Tracer:
    """Runs operations in processes of their own under strace."""

    def __init__(self, process: subprocess.Popen[str], trace: Path) -> None:
        self._process = process
        self._trace = trace

    def _ask(self, line: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def run(self, operation: str, store: Path, *options: str) -> Run:
        """One operation, with strace's options for what shall go wrong."""
        child = self._ask(json.dumps([operation, str(store)])).strip()
        command = ["strace", "-y", "-s", "0", "-o", str(self._trace), *options, "-p", child]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr
            attached = strace.stderr.readline()
            code, said = json.loads(self._ask("go"))
        if "attached" not in attached:
            pytest.skip(f"strace may not trace a process here: {attached.strip()}")
        return Run(code, said, parsed(self._trace.read_text()))


def parsed(trace: str) -> list[Call]:
    counts: Counter[str] = Counter()
    calls = []
    for found in LINE.finditer(trace):
        counts[found["name"]] += 1
        injected = "(INJECTED)" in found["rest"]
        calls.append(
            Call(found["name"], counts[found["name"]], found["arguments"], found["result"], injected)
        )
    return calls


@pytest.fixture(scope="module")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracer]:
    """The process that forks, warm, with a strace that may attach to its children."""
    folder = tmp_path_factory.mktemp("tracer")
    command = [sys.executable, "-m", "tests.crashes"]
    # Threads of a matrix library would make calls of their own.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    ) as process:
        tracer = Tracer(process, folder / "trace")
        assert tracer.run("publish the first", folder / "store").code == DONE
        yield tracer


def publish_two(store: Store) -> None:
    for seed in (1, 2):
        publish_toy(store, seed=seed)


def publish_two_and_promote(store: Store) -> None:
    publish_two(store)
    store.promote("toy", 1)


def publish_three_and_damage_the_last(store: Store) -> None:
    publish_two_and_promote(store)
    publish_toy(store, seed=3)
    path = Path(store.url, "toy/versions/3/weights.safetensors")
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@dataclass(frozen=True)
class State:
    """The finished versions, and the promoted ones in the order of their promotion."""

    versions: tuple[int, ...]
    promoted: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """The store before an operation, what it is then and what it shall be, also after another attempt."""

    prepare: Callable[[Store], None]
    before: State
    after: State
    again: tuple[State, ...] = ()
    refused: bool = False
    gone: str = "nothing"


SCENARIOS: Final = {
    "publish the first": Scenario(
        lambda _store: None, State(()), State((1,)), (State((1,)), State((2,)), State((1, 2)))
    ),
    "publish": Scenario(
        publish_two_and_promote,
        State((1, 2), (1,)),
        State((1, 2, 3), (1,)),
        (State((1, 2, 3), (1,)), State((1, 2, 4), (1,)), State((1, 2, 3, 4), (1,))),
    ),
    "promote the first": Scenario(publish_two, State((1, 2)), State((1, 2), (1,))),
    "promote": Scenario(publish_two_and_promote, State((1, 2), (1,)), State((1, 2), (1, 2))),
    "promote a damaged one": Scenario(
        publish_three_and_damage_the_last, State((1, 2, 3), (1,)), State((1, 2, 3), (1,)), refused=True
    ),
    "prune": Scenario(
        publish_two_and_promote, State((1, 2), (1,)), State((1,), (1,)), gone="toy/versions/2/"
    ),
}


class Bench:
    """A prepared store, of which every run gets a fresh copy in the same place."""

    def __init__(self, operation: str, folder: Path, tracer: Tracer) -> None:
        self.operation = operation
        self.scenario = SCENARIOS[operation]
        self.tracer = tracer
        self._template = folder / "template"
        # The folder above the store is new too, so that making it is part of the first publication.
        self._place = folder / "place"
        self.store = self._place / "new" / "store"
        self._template.mkdir()
        self.scenario.prepare(open_store(str(self._template / "new" / "store")))
        self.contents = contents(self._template / "new" / "store")
        clean = self.run()
        self.clean = clean
        assert clean.code == (REFUSED if self.scenario.refused else DONE), clean.said
        self.calls = [call for call in clean.calls if str(self._place) in call.arguments]
        assert {"openat", "close"} <= {call.name for call in self.calls}

    def run(self, *options: str) -> Run:
        """The operation on a fresh copy."""
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.copytree(self._template, self._place)
        return self.tracer.run(self.operation, self.store, *options)

    def run_with(self, fault: Fault) -> Run:
        """The same, with a fault that is seen to have happened, and to the store."""
        names = ",".join(sorted({"fsync", *dict(fault.turns)}))
        found = self.run("-e", f"trace={names}", *fault.injections)
        struck = [call for call in found.calls if call.injected or call.result == "?"]
        assert struck, "the fault did not happen"
        assert str(self._place) in struck[0].arguments
        assert struck[0].name == fault.name
        return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those on their way."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


@pytest.fixture(scope="module", params=SCENARIOS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tracer: Tracer) -> Bench:
    """One operation after the other."""
    return Bench(request.param, tmp_path_factory.mktemp("bench"), tracer)


def single_faults(bench: Bench, action: str, *, torture: bool) -> list[Fault]:
    """One fault a call; when reduced, kills at all that change the store and at some of the others."""
    names = FAILING.get(action, {EVERY})
    calls = [call for call in bench.calls if call.name in names or EVERY in names]
    kept = CHANGING if action == KILL else set()
    others = [call for call in calls if call.name not in kept]
    some = others if torture else others[len(action) % 2 :: STRIDE]
    return [
        Fault(action, call.name, ((call.name, call.turn),))
        for call in calls
        if call.name in kept or call in some
    ]


def lasting_faults(bench: Bench, action: str, *, torture: bool) -> list[Fault]:
    """From one call on, it and all that the same trouble concerns fail."""
    calls = [call for call in bench.calls if call.name in LASTING[action]]
    faults = []
    for first in calls if torture else calls[:: 2 * STRIDE]:
        seen = Counter(call.name for call in bench.clean.calls[: bench.clean.calls.index(first)])
        turns = tuple((name, seen[name] + 1) for name in sorted(LASTING[action]))
        faults.append(Fault(action, first.name, turns, lasting=True))
    return faults


@contextmanager
def naming(fault: Fault) -> Iterator[None]:
    """Say in a failure which fault it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"the fault: {fault}")
        raise


def check_state(bench: Bench, allowed: Sequence[State]) -> None:
    """The store is in one of the states: it says so, every version is the published one bit for bit."""
    store = open_store(str(bench.store))
    names = [name for name in listed(bench.store / "toy" / "promotions") if not name.startswith(".")]
    assert sorted(names) == sorted(f"{index + 1}.json" for index in range(len(names)))
    promoted = tuple(promotion.version for promotion in store.history("toy"))
    assert State(tuple(store.versions("toy")), promoted) in allowed
    if promoted:
        assert store.load_promoted("toy").manifest.version == promoted[-1]
    else:
        with pytest.raises((NothingPromoted, ModelNotFound)):
            store.load_promoted("toy")
    for number in store.versions("toy"):
        check_version(bench, store, number)


def listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.exists() else []


def check_version(bench: Bench, store: Store, number: int) -> None:
    """A version loads with the weights it was published with, unless it was damaged all along."""
    if bench.scenario.refused and number == 3:
        with pytest.raises(VersionRefused):
            store.load("toy", number)
        return
    version = store.load("toy", number)
    seed = version.manifest.training.seed
    assert seed == number or number > len(bench.scenario.before.versions)
    expected = toy_weights(Linear(), 5, seed)
    assert {name: tensor.tobytes() for name, tensor in version.predictor.weights.items()} == {
        name: tensor.tobytes() for name, tensor in expected.items()
    }


def check_old_content(bench: Bench) -> None:
    """Every file that was there is there, bit for bit, but those that the operation is to remove."""
    found = contents(bench.store)
    for path, content in bench.contents.items():
        if path in found or not path.startswith(bench.scenario.gone):
            assert found.get(path) == content, path
        else:
            assert any(path.startswith("toy/pruned/2.") for path in found), (
                "the number of the removed version could be taken again"
            )


def check_again(bench: Bench) -> None:
    """The operation, done again in this process, comes to its end."""
    scenario = bench.scenario
    store = open_store(str(bench.store))
    if scenario.refused:
        with pytest.raises(VersionRefused):
            OPERATIONS[bench.operation](store)
    else:
        OPERATIONS[bench.operation](store)
    check_state(bench, scenario.again or [scenario.after])
    check_old_content(bench)


def check_end(bench: Bench, fault: Fault, run: Run) -> None:
    """It was killed, or said in one line what failed, or was not hindered and is done."""
    if fault.action == KILL:
        assert run.code == -signal.SIGKILL
        return
    assert run.code in (DONE, REFUSED), run.said
    if run.code == DONE:
        assert not run.said
        check_state(bench, [bench.scenario.after])
    elif run.said != bench.clean.said:
        assert run.said.startswith(str(bench.store))
        assert run.said.endswith(os.strerror(getattr(errno, fault.action)))
        assert "\n" not in run.said
    if not fault.may_leave_temporary():
        assert temporaries(bench.store) == []


def check_syncs(run: Run) -> None:
    """What could not be synced is not synced again, and the failure is told."""
    failed = [index for index, call in enumerate(run.calls) if call.name == "fsync" and call.injected]
    if failed:
        assert run.code == REFUSED
        later = [call.path for call in run.calls[failed[0] + 1 :] if call.name == "fsync"]
        assert run.calls[failed[0]].path not in later


def strike(bench: Bench, faults: Sequence[Fault]) -> None:
    """Each fault on a store of its own, then everything that must hold."""
    for fault in faults:
        with naming(fault):
            run = bench.run_with(fault)
            check_state(bench, [bench.scenario.before, bench.scenario.after])
            check_old_content(bench)
            check_end(bench, fault, run)
            check_syncs(run)
            check_again(bench)
    for action, number in Counter(fault.action for fault in faults).items():
        names = Counter(fault.name for fault in faults if fault.action == action)
        lasting = " from then on" if any(fault.lasting for fault in faults) else ""
        counts = ", ".join(f"{name} {count}" for name, count in sorted(names.items()))
        print(f"{bench.operation}: {number} × {action}{lasting}: {counts}")


def test_no_operation_makes_more_calls_than_its_faults_are_counted_by(bench: Bench) -> None:
    totals = Counter(call.name for call in bench.clean.calls)
    names = {call.name for call in bench.calls}
    beyond = Fault(KILL, "none", tuple((name, totals[name] + 1) for name in names))
    found = bench.run("-e", f"trace={','.join(names)}", *beyond.injections)
    assert found.code == bench.clean.code
    assert Counter(call.name for call in found.calls) == {name: totals[name] for name in names}


def test_a_kill_at_any_system_call_leaves_the_old_state_or_the_new_one(bench: Bench, torture: bool) -> None:
    strike(bench, single_faults(bench, KILL, torture=torture))


@pytest.mark.parametrize("action", FAILING)
def test_a_failure_of_any_system_call_leaves_the_old_state_or_the_new_one(
    bench: Bench, action: str, torture: bool
) -> None:
    strike(bench, single_faults(bench, action, torture=torture))


@pytest.mark.parametrize("action", LASTING)
def test_a_failure_that_lasts_leaves_the_old_state_or_the_new_one(
    bench: Bench, action: str, torture: bool
) -> None:
    strike(bench, lasting_faults(bench, action, torture=torture))


class Unsynced:
    """The names in folders that a loss of power may undo, as a trace goes on."""

    def __init__(self) -> None:
        self.names: set[tuple[str, str]] = set()
        self._synced: set[str] = set()

    def follow(self, call: Call) -> None:
        """Take one call into account; fail for a step that builds on what is not on the disk yet."""
        if not call.result.isdigit():
            return
        match call.name:
            case "openat" if "O_CREAT" in call.arguments:
                assert call.entry[1].startswith("."), f"{call.entry} has its name before its content"
            case "write":
                self._synced.discard(call.path)
            case "fsync":
                self._synced.add(call.path)
                self.names = {(folder, name) for folder, name in self.names if folder != call.path}
            case "mkdirat":
                self.names.add(call.entry)
            case "linkat":
                self._link(call)
            case "unlinkat" if not call.entry[1].startswith("."):
                self._unlink(call)

    def _link(self, call: Call) -> None:
        source = "/".join(call.entries[0])
        assert source in self._synced, f"{source} gets its name before its content is on the disk"
        assert not self.names, f"{call.entry} is made before {self.names} are on the disk"
        self.names.add(call.entry)

    def _unlink(self, call: Call) -> None:
        folder, removed = call.entry
        self.names = {entry for entry in self.names if entry[0] != f"{folder}/{removed}"}
        before = {entry for entry in self.names if entry[0] != folder or entry[1] == MANIFEST}
        assert not before, f"{call.entry} is removed before {before} are on the disk"
        self.names.add(call.entry)


def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_after(bench: Bench) -> None:
    unsynced = Unsynced()
    for call in bench.clean.calls:
        unsynced.follow(call)
    assert unsynced.names == set()


def test_create_writes_syncs_links_unlinks_and_syncs_the_folder(bench: Bench) -> None:
    steps = {"write", "fsync", "linkat", "unlinkat"}
    made = [call for call in bench.calls if call.name in steps and call.result.isdigit()]
    links = [index for index, call in enumerate(made) if call.name == "linkat"]
    assert len(links) == (0 if bench.scenario.refused else 3 if "publish" in bench.operation else 1)
    for index in links:
        write, sync, link, unlink, sync_folder = made[index - 2 : index + 3]
        folder, name = link.entry
        assert [write.name, sync.name, unlink.name, sync_folder.name] == [
            "write",
            "fsync",
            "unlinkat",
            "fsync",
        ]
        temporary = f"{unlink.entry[0]}/{unlink.entry[1]}"
        assert unlink.entry[1].startswith(f".{name}.")
        assert (write.path, sync.path, sync_folder.path) == (temporary, temporary, folder)
