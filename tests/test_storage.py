import os
import resource
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from model_store.errors import PathMissing, PathTaken, StorageFailed, StoreError
from model_store.storage import LocalDisk


@pytest.fixture
def disk(tmp_path: Path) -> LocalDisk:
    return LocalDisk(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The disk's folder `a`."""
    made = tmp_path / "store" / "a"
    made.mkdir(parents=True)
    return made


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail what takes longer, also while it waits in a system call."""

    def fail(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def limited(kind: int, limit: int) -> Iterator[None]:
    """This process under a lower limit of the operating system's."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5000], ids=["empty", "one", "a megabyte"])
def test_what_was_created_is_read_again(disk: LocalDisk, content: bytes) -> None:
    disk.create("a/b/c", content)
    assert disk.read("a/b/c") == content


def test_the_folder_is_named_as_it_was_given(tmp_path: Path) -> None:
    assert LocalDisk(tmp_path / "store").url == str(tmp_path / "store")


def test_create_never_overwrites(disk: LocalDisk) -> None:
    disk.create("a/b", b"first")
    with pytest.raises(PathTaken, match=r"a/b exists already and is never overwritten"):
        disk.create("a/b", b"second")
    assert disk.read("a/b") == b"first"


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "dangling link"])
def test_create_takes_the_place_of_nothing_else_either(disk: LocalDisk, folder: Path, kind: str) -> None:
    make(kind, folder / "b")
    before = os.lstat(folder / "b")
    with within(10), pytest.raises(PathTaken):
        disk.create("a/b", b"content")
    assert os.path.samestat(os.lstat(folder / "b"), before)
    assert os.listdir(folder) == ["b"]


def make(kind: str, path: Path) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        target = path.parent.parent / "target"
        if kind == "link":
            target.write_bytes(b"content")
        path.symlink_to(path if kind == "link to itself" else target)


def test_of_many_that_create_one_path_at_once_one_succeeds(disk: LocalDisk) -> None:
    def create(index: int) -> str | None:
        try:
            disk.create(f"a/{index // 8}", b"%d" % index)
        except PathTaken:
            return None
        return str(index)

    with ThreadPoolExecutor(8) as pool:
        winners = [winner for winner in pool.map(create, range(400)) if winner]
    assert sorted(winners) == sorted(disk.read(f"a/{path}").decode() for path in range(50))


def test_a_created_file_is_for_everybody_to_read_and_nobody_to_write(disk: LocalDisk, folder: Path) -> None:
    before = os.umask(0o022)
    try:
        disk.create("a/b", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "b").stat().st_mode) == 0o444


def test_nothing_but_the_file_is_left_after_create(disk: LocalDisk, folder: Path) -> None:
    disk.create("a/b", b"content")
    assert os.listdir(folder) == ["b"]
    assert (folder / "b").stat().st_nlink == 1


def test_a_missing_path_is_missing(disk: LocalDisk, folder: Path) -> None:
    with pytest.raises(PathMissing, match=f"{folder / 'b'} does not exist"):
        disk.read("a/b")


@pytest.mark.parametrize("kind", ["fifo", "link", "dangling link", "link to itself"])
def test_only_plain_files_are_read_and_nothing_is_waited_for(
    disk: LocalDisk, folder: Path, kind: str
) -> None:
    make(kind, folder / "b")
    with within(10), pytest.raises(StorageFailed, match=f"^{folder / 'b'}: "):
        disk.read("a/b")


def test_a_path_below_a_file_cannot_be_read(disk: LocalDisk) -> None:
    disk.create("a/b", b"content")
    with pytest.raises(StorageFailed, match="Not a directory"):
        disk.read("a/b/c")


def test_names_are_listed_in_order_and_only_those_directly_below(disk: LocalDisk) -> None:
    for path in ("b/2", "b/10", "b/c/d", "a", "é"):
        disk.create(path, b"content")
    assert disk.list("") == ["a", "b", "é"]
    assert disk.list("b") == ["10", "2", "c"]


def test_a_folder_that_is_not_there_has_no_names(disk: LocalDisk) -> None:
    assert disk.list("") == []
    assert disk.list("a/b") == []


def test_a_temporary_file_that_a_crash_left_is_not_listed(disk: LocalDisk, folder: Path) -> None:
    disk.create("a/b", b"content")
    (folder / ".b.0123456789abcdef").write_bytes(b"cont")
    assert disk.list("a") == ["b"]


def test_a_file_has_no_names_below_it_but_cannot_be_the_store(disk: LocalDisk) -> None:
    disk.create("a/b", b"content")
    assert disk.list("a/b") == []
    with pytest.raises(StorageFailed, match="Not a directory"):
        LocalDisk(Path(disk.url) / "a/b").list("")


@pytest.mark.parametrize("path", ["a/b/c", "a/b/c/d"])
def test_a_file_where_a_folder_is_due_fails_and_leaves_nothing_behind(disk: LocalDisk, path: str) -> None:
    disk.create("a/b", b"content")
    with pytest.raises(StoreError):
        disk.create(path, b"more")
    assert disk.list("a") == ["b"]
    assert disk.read("a/b") == b"content"


def test_a_write_that_stops_half_way_fails_and_leaves_nothing_behind(disk: LocalDisk, folder: Path) -> None:
    with limited(resource.RLIMIT_FSIZE, 4096), pytest.raises(StorageFailed, match="File too large"):
        disk.create("a/b", b"x" * 100_000)
    assert os.listdir(folder) == []
    disk.create("a/b", b"again")
    assert disk.read("a/b") == b"again"


def test_no_file_descriptors_left_is_a_failure_and_leaves_nothing_behind(
    disk: LocalDisk, folder: Path
) -> None:
    disk.create("a/b", b"content")
    with limited(resource.RLIMIT_NOFILE, 3):
        with pytest.raises(StorageFailed, match="Too many open files"):
            disk.create("a/c", b"content")
        with pytest.raises(StorageFailed, match="Too many open files"):
            disk.read("a/b")
        with pytest.raises(StorageFailed, match="Too many open files"):
            disk.list("a")
    assert os.listdir(folder) == ["b"]


def test_a_name_too_long_for_the_disk_is_a_failure_and_leaves_nothing_behind(
    disk: LocalDisk, folder: Path
) -> None:
    for name in ("x" * 250, "x" * 300):
        with pytest.raises(StorageFailed, match="File name too long"):
            disk.create(f"a/{name}", b"content")
    assert os.listdir(folder) == []


def test_no_descriptor_stays_open(disk: LocalDisk, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for index in range(20):
        disk.create(f"a/{index}", b"content")
        disk.read(f"a/{index}")
        with pytest.raises(PathTaken):
            disk.create(f"a/{index}", b"content")
        with pytest.raises(StorageFailed):
            disk.read("a/fifo")
    assert len(os.listdir("/proc/self/fd")) == before
