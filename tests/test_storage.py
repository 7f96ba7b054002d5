import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

import pytest

from model_store._storage import LocalDisk
from model_store.errors import PathMissing, PathTaken, StorageFailed, StoreError, TooLarge

LIMIT = 10**7


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
    assert disk.read("a/b/c", LIMIT) == content


def test_the_folder_is_named_as_it_was_given(tmp_path: Path) -> None:
    assert LocalDisk(tmp_path / "store").url == str(tmp_path / "store")


def test_create_never_overwrites(disk: LocalDisk) -> None:
    disk.create("a/b", b"first")
    with pytest.raises(PathTaken, match=r"a/b exists already and is never overwritten"):
        disk.create("a/b", b"second")
    assert disk.read("a/b", LIMIT) == b"first"


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
    assert sorted(winners) == sorted(disk.read(f"a/{path}", LIMIT).decode() for path in range(50))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_what_is_created_is_for_everybody_to_read_and_no_file_is_to_be_written(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        LocalDisk(tmp_path / "parent" / "store").create("a/b/c", b"content")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"parent": 0o755, "store": 0o755, "a": 0o755, "b": 0o755, "c": 0o444}


def test_a_folder_that_is_there_keeps_its_mode(disk: LocalDisk, folder: Path) -> None:
    folder.chmod(0o700)
    disk.create("a/b", b"content")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_but_the_file_is_left_after_create(disk: LocalDisk, folder: Path) -> None:
    disk.create("a/b", b"content")
    assert os.listdir(folder) == ["b"]
    assert (folder / "b").stat().st_nlink == 1


def test_a_missing_path_is_missing(disk: LocalDisk, folder: Path) -> None:
    with pytest.raises(PathMissing, match=f"{folder / 'b'} does not exist"):
        disk.read("a/b", LIMIT)


@pytest.mark.parametrize("kind", ["fifo", "link", "dangling link", "link to itself"])
def test_only_plain_files_are_read_and_nothing_is_waited_for(
    disk: LocalDisk, folder: Path, kind: str
) -> None:
    make(kind, folder / "b")
    with within(10), pytest.raises(StorageFailed, match=f"^{folder / 'b'}: "):
        disk.read("a/b", LIMIT)


def test_a_path_below_a_file_cannot_be_read(disk: LocalDisk) -> None:
    disk.create("a/b", b"content")
    with pytest.raises(StorageFailed, match="Not a directory"):
        disk.read("a/b/c", LIMIT)


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
def test_a_file_where_a_folder_is_expected_fails_and_leaves_nothing_behind(
    disk: LocalDisk, path: str
) -> None:
    disk.create("a/b", b"content")
    with pytest.raises(StoreError):
        disk.create(path, b"more")
    assert disk.list("a") == ["b"]
    assert disk.read("a/b", LIMIT) == b"content"


def test_a_write_that_stops_half_way_fails_and_leaves_nothing_behind(disk: LocalDisk, folder: Path) -> None:
    with limited(resource.RLIMIT_FSIZE, 4096), pytest.raises(StorageFailed, match="File too large"):
        disk.create("a/b", b"x" * 100_000)
    assert os.listdir(folder) == []
    disk.create("a/b", b"again")
    assert disk.read("a/b", LIMIT) == b"again"


def test_no_file_descriptors_left_is_a_failure_and_leaves_nothing_behind(
    disk: LocalDisk, folder: Path
) -> None:
    disk.create("a/b", b"content")
    with limited(resource.RLIMIT_NOFILE, 3):
        with pytest.raises(StorageFailed, match="Too many open files"):
            disk.create("a/c", b"content")
        with pytest.raises(StorageFailed, match="Too many open files"):
            disk.read("a/b", LIMIT)
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
        disk.read(f"a/{index}", LIMIT)
        with pytest.raises(PathTaken):
            disk.create(f"a/{index}", b"content")
        with pytest.raises(StorageFailed):
            disk.read("a/fifo", LIMIT)
    assert len(os.listdir("/proc/self/fd")) == before


NOT_FOLLOWED: Final = "a symbolic link, and links are not followed"


def link(place: str, disk: LocalDisk, target: str) -> Path:
    """Make a place of the store, which holds a/b/c, a link to the same bytes, to nothing or a loop."""
    disk.create("a/b/c", b"content")
    path = Path(disk.url, place)
    aside = path.rename(f"{disk.url}-aside")
    other = Path(f"{disk.url}-loop")
    other.symlink_to(path)
    path.symlink_to({"whole": aside, "dangling": aside / "gone", "itself": path, "loop": other}[target])
    return path


TARGETS = pytest.mark.parametrize("target", ["whole", "dangling", "itself", "loop"])


@TARGETS
@pytest.mark.parametrize("place", ["a", "a/b", "a/b/c"])
def test_no_verb_follows_a_link_below_the_root(disk: LocalDisk, place: str, target: str) -> None:
    link(place, disk, target)
    folders: list[Callable[[], object]] = [
        lambda: disk.create("a/b/c/d", b"more"),
        lambda: disk.list("a/b/c"),
        lambda: disk.modified("a/b/c"),
        lambda: disk.remove("a/b/c/d"),
    ]
    for refused in (lambda: disk.read("a/b/c", LIMIT), *folders):
        with within(10), pytest.raises(StorageFailed, match=f"^{disk.url}/a/b/c(/d)?: {NOT_FOLLOWED}$"):
            refused()


@TARGETS
def test_nothing_is_created_through_a_link(disk: LocalDisk, target: str) -> None:
    path = link("a/b", disk, target)
    before = path.readlink()
    with pytest.raises(StorageFailed, match=NOT_FOLLOWED):
        disk.create("a/b/new", b"content")
    assert path.readlink() == before
    assert os.listdir(f"{disk.url}-aside") == ["c"]
    assert os.listdir(path.parent) == ["b"]


def test_the_root_may_be_a_link_to_a_folder(disk: LocalDisk, tmp_path: Path) -> None:
    disk.create("a/b", b"content")
    (tmp_path / "link").symlink_to(disk.url)
    linked = LocalDisk(tmp_path / "link")
    assert linked.read("a/b", LIMIT) == b"content"
    linked.create("a/c", b"more")
    assert disk.list("a") == linked.list("a") == ["b", "c"]
    assert linked.modified("a") == disk.modified("a")
    linked.remove("a/c")
    assert disk.list("a") == ["b"]


@pytest.mark.parametrize("kind", ["dangling link", "link to itself", "fifo"])
def test_a_root_that_is_no_folder_takes_nothing(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    make(kind, tmp_path / "in" / "root")
    disk = LocalDisk(tmp_path / "in" / "root")
    with within(10), pytest.raises(StorageFailed):
        disk.create("a", b"content")
    assert os.listdir(tmp_path / "in") == ["root"]
    assert os.listdir(tmp_path) == ["in"]


def test_a_fifo_where_a_folder_is_expected_is_waited_for_by_no_verb(disk: LocalDisk, folder: Path) -> None:
    os.mkfifo(folder / "b")
    verbs: list[Callable[[], object]] = [
        lambda: disk.read("a/b/c", LIMIT),
        lambda: disk.create("a/b/c", b"content"),
        lambda: disk.modified("a/b"),
        lambda: disk.remove("a/b/c"),
    ]
    for refused in verbs:
        with within(10), pytest.raises(StorageFailed, match="Not a directory"):
            refused()
    with within(10):
        assert disk.list("a/b") == []
    assert stat.S_ISFIFO((folder / "b").stat().st_mode)


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_file_as_long_as_the_limit_is_read_and_one_byte_longer_is_not(disk: LocalDisk, size: int) -> None:
    disk.create("a/fits", b"x" * size)
    disk.create("a/long", b"x" * (size + 1))
    assert disk.read("a/fits", size) == b"x" * size
    with pytest.raises(TooLarge, match=f"^{disk.url}/a/long: more than {size} bytes$"):
        disk.read("a/long", size)


def test_a_file_longer_than_memory_is_not_read(disk: LocalDisk, folder: Path) -> None:
    (folder / "b").touch()
    os.truncate(folder / "b", 2**40)
    with pytest.raises(TooLarge):
        disk.read("a/b", 2**40 - 1)


def test_a_folder_is_as_old_as_the_last_name_made_in_it(disk: LocalDisk, folder: Path) -> None:
    old = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    os.utime(folder, (old.timestamp(),) * 2)
    assert disk.modified("a") == old
    before = datetime.fromtimestamp(folder.parent.stat().st_mtime, UTC)
    disk.create("a/b", b"content")
    assert disk.modified("a") >= before


def test_what_is_not_there_has_no_age(disk: LocalDisk, folder: Path) -> None:
    for path in ("b", "b/c", "a/b"):
        with pytest.raises(PathMissing, match=f"{disk.url}/{path} does not exist"):
            disk.modified(path)
    (folder / "b").touch()
    with pytest.raises(StorageFailed, match="Not a directory"):
        disk.modified("a/b")


def test_a_file_is_removed_alone_and_its_name_is_free_again(disk: LocalDisk) -> None:
    for path in ("a/b", "a/c", "d"):
        disk.create(path, b"content")
    disk.remove("a/b")
    disk.remove("d")
    assert (disk.list(""), disk.list("a")) == (["a"], ["c"])
    disk.create("a/b", b"again")
    assert disk.read("a/b", LIMIT) == b"again"


def test_a_folder_is_removed_with_all_in_it_hidden_leftovers_too(disk: LocalDisk) -> None:
    for path in ("a/b/c", "a/b/d/e", "a/f"):
        disk.create(path, b"content")
    Path(disk.url, "a/b/.c.0123456789abcdef").write_bytes(b"cont")
    Path(disk.url, "a/b/d/.hidden").mkdir()
    disk.remove("a/b")
    assert os.listdir(Path(disk.url, "a")) == ["f"]


def test_removing_what_is_not_there_changes_nothing(disk: LocalDisk, folder: Path) -> None:
    disk.create("a/b", b"content")
    for path in ("c", "a/c", "c/d/e"):
        disk.remove(path)
    assert os.listdir(folder) == ["b"]
    assert os.listdir(folder.parent) == ["a"]
    LocalDisk(folder / "gone").remove("a")
    assert os.listdir(folder) == ["b"]


@pytest.mark.parametrize("place", ["a/link", "a/in/link"])
def test_removing_a_link_leaves_what_it_points_to(disk: LocalDisk, tmp_path: Path, place: str) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "kept").write_bytes(b"content")
    disk.create("a/in/b", b"content")
    Path(disk.url, place).symlink_to(tmp_path / "aside")
    disk.remove("a/link" if place == "a/link" else "a/in")
    assert "link" not in os.listdir(Path(disk.url, "a"))
    assert (tmp_path / "aside" / "kept").read_bytes() == b"content"


def test_what_does_not_let_itself_be_removed_is_a_failure(disk: LocalDisk) -> None:
    disk.create("a/b", b"content")
    with pytest.raises(StorageFailed, match="Not a directory"):
        disk.remove("a/b/c")
    assert disk.read("a/b", LIMIT) == b"content"


def test_no_descriptor_stays_open_after_a_refusal(disk: LocalDisk) -> None:
    link("a/b", disk, "loop")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        for refused in (lambda: disk.read("a/b/c", LIMIT), lambda: disk.list("a/b/c")):
            with pytest.raises(StorageFailed):
                refused()
        with pytest.raises(StorageFailed):
            disk.create("a/b/d", b"content")
        with pytest.raises(StorageFailed):
            disk.modified("a/b")
    assert len(os.listdir("/proc/self/fd")) == before
