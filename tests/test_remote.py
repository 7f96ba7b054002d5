"""What the store asks of a storage, of a disk, of memory and of S3; and a life in each."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.__main__ import main as serve
from model_store.__main__ import main as look_after
from model_store._remote import ObjectStorage
from model_store._storage import LocalDisk, Storage
from model_store.errors import (
    FileDiffers,
    ModelNotFound,
    PathMissing,
    PathTaken,
    StorageFailed,
    TooLarge,
    VersionInUse,
    VersionNotFound,
)
from model_store.manifest import Linear
from model_store.store import Store, open_store
from tests.clouds import BUCKET, free_port, put, s3, s3_variables
from tests.conftest import started, wait_until_ready
from tests.in_process import run_here
from tests.toys import expected_predictions, publish_toy, toy_rows, toy_weights

LIMIT = 10**7


@pytest.fixture(scope="session")
def emulator() -> Iterator[dict[str, str]]:
    """The variables of an S3 that all tests share."""
    with s3() as variables:
        yield variables


@pytest.fixture
def bucket(emulator: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a part of S3 that is a test's own."""
    for name, value in emulator.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{secrets.token_hex(8)}"


@pytest.fixture(params=["disk", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage of each kind."""
    if request.param == "disk":
        return LocalDisk(tmp_path / "store")
    url = "memory://" if request.param == "memory" else request.getfixturevalue("bucket")
    return ObjectStorage(url)


@pytest.fixture(params=["disk", "memory", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind, opened by its URL."""
    if request.param == "s3":
        return open_store(request.getfixturevalue("bucket"))
    return open_store("memory://" if request.param == "memory" else str(tmp_path / "store"))


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5000], ids=["empty", "one", "a megabyte"])
def test_what_was_created_is_read_again(storage: Storage, content: bytes) -> None:
    storage.create("a/b/c", content)
    assert storage.read("a/b/c", LIMIT) == content


def test_create_never_overwrites(storage: Storage) -> None:
    storage.create("a/b", b"first")
    for content in (b"second", b"first", b""):
        with pytest.raises(PathTaken, match=r"a/b exists already and is never overwritten"):
            storage.create("a/b", content)
    assert storage.read("a/b", LIMIT) == b"first"


def test_of_many_that_create_one_path_at_once_one_succeeds(storage: Storage) -> None:
    def create(index: int) -> int | None:
        try:
            storage.create(f"a/{index // 8}", b"%d" % index)
        except PathTaken:
            return None
        return index

    with ThreadPoolExecutor(8) as pool:
        winners = [winner for winner in pool.map(create, range(160)) if winner is not None]
    assert sorted(winner // 8 for winner in winners) == list(range(20))
    assert sorted(winners) == sorted(int(storage.read(f"a/{path}", LIMIT)) for path in range(20))


def test_content_is_read_up_to_the_limit_and_not_a_byte_beyond(storage: Storage) -> None:
    storage.create("a/b", b"x" * 100)
    assert storage.read("a/b", 100) == b"x" * 100
    with pytest.raises(TooLarge, match=r"a/b: more than 99 bytes"):
        storage.read("a/b", 99)


def test_a_missing_path_is_missing(storage: Storage) -> None:
    storage.create("a/bc", b"content")
    for path in ("a/b", "a/d", "e", "e/f"):
        with pytest.raises(PathMissing, match=f"{path} does not exist"):
            storage.read(path, LIMIT)


def test_a_folder_is_no_file(storage: Storage) -> None:
    storage.create("a/b/c", b"content")
    with pytest.raises((PathMissing, StorageFailed)):
        storage.read("a/b", LIMIT)


def test_only_what_is_directly_below_a_folder_is_listed_in_order(storage: Storage) -> None:
    for path in ("b/2", "b/10", "b/c/d", "b/c/e", "a", "bb/1", "b/20/x"):
        storage.create(path, b"content")
    assert storage.list("") == ["a", "b", "bb"]
    assert storage.list("b") == ["10", "2", "20", "c"]
    assert storage.list("b/c") == ["d", "e"]


def test_a_folder_that_is_not_there_has_no_names_and_neither_has_a_file(storage: Storage) -> None:
    assert storage.list("") == storage.list("a") == storage.list("a/b") == []
    storage.create("a/bc", b"content")
    assert storage.list("a/b") == storage.list("a/bc") == []


def test_more_names_are_listed_than_fit_on_a_page(storage: Storage) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: storage.create(f"a/{number}/x", b"x"), range(1010)))
        list(pool.map(lambda number: storage.create(f"a/{number}.json", b"x"), range(10)))
    expected = [*map(str, range(1010)), *(f"{number}.json" for number in range(10))]
    assert storage.list("a") == sorted(expected)


def test_a_name_that_begins_with_a_dot_is_not_listed(storage: Storage) -> None:
    storage.create("a/b", b"content")
    storage.create("a/.b.0123456789abcdef", b"cont")
    storage.create("a/.c/d", b"cont")
    assert storage.list("a") == ["b"]


def test_a_folder_was_modified_when_something_was_created_in_it(storage: Storage) -> None:
    storage.create("a/b", b"content")
    modified = storage.modified("a")
    assert modified.tzinfo is not None
    assert abs(datetime.now(UTC) - modified) < timedelta(minutes=1)
    with pytest.raises(PathMissing):
        storage.modified("b")


def test_a_removed_file_is_gone_and_its_neighbours_are_not(storage: Storage) -> None:
    for path in ("a/1", "a/10", "a/1.json"):
        storage.create(path, path.encode())
    storage.remove("a/1")
    with pytest.raises(PathMissing):
        storage.read("a/1", LIMIT)
    assert storage.list("a") == ["1.json", "10"]
    storage.create("a/1", b"again")
    assert storage.read("a/1", LIMIT) == b"again"


def test_a_removed_folder_is_gone_with_all_that_is_in_it(storage: Storage) -> None:
    for path in ("a/1/x", "a/1/y/z", "a/1/.hidden", "a/10/x"):
        storage.create(path, b"content")
    storage.remove("a/1")
    assert storage.list("a") == ["10"]
    assert storage.list("a/1") == storage.list("a/1/y") == []
    with pytest.raises(PathMissing):
        storage.read("a/1/.hidden", LIMIT)
    assert storage.read("a/10/x", LIMIT) == b"content"


def test_removing_what_is_not_there_does_nothing(storage: Storage) -> None:
    storage.create("a/b", b"content")
    for path in ("a/c", "c", "c/d"):
        storage.remove(path)
    assert storage.list("a") == ["b"]


def promoted_life(store: Store) -> None:
    """Versions 1, 2 and 3 promoted one after the other, then 2 again."""
    for number in (1, 2, 3):
        assert publish_toy(store, seed=number).version == number
        store.promote("toy", number, f"reason {number}")
    store.rollback("toy", "worse")


def test_a_new_store_is_empty_everywhere(anywhere: Store) -> None:
    assert anywhere.models() == []
    with pytest.raises(ModelNotFound, match="it is empty"):
        anywhere.load_promoted("toy")


def test_versions_are_published_promoted_and_rolled_back_everywhere(anywhere: Store) -> None:
    promoted_life(anywhere)
    assert anywhere.only_model() == "toy"
    assert anywhere.versions("toy") == [1, 2, 3]
    assert anywhere.load_promoted("toy").manifest.training.seed == 2
    found = [(line.generation, line.version, line.previous, line.reason) for line in anywhere.history("toy")]
    assert found == [
        (1, 1, None, "reason 1"),
        (2, 2, 1, "reason 2"),
        (3, 3, 2, "reason 3"),
        (4, 2, 3, "worse"),
    ]
    for line in anywhere.history("toy"):
        assert anywhere.load("toy", line.version).digest == line.digest


def test_old_versions_are_pruned_everywhere_and_their_numbers_stay_taken(anywhere: Store) -> None:
    promoted_life(anywhere)
    assert anywhere.prunable("toy", 1) == {1: "older than the newest 1"}
    anywhere.prune("toy", 1, "old")
    for number in (2, 3):
        with pytest.raises(VersionInUse):
            anywhere.prune("toy", number, "old")
    with pytest.raises(VersionNotFound, match="it has 2, 3"):
        anywhere.load("toy", 1)
    assert anywhere.prunable("toy", 1) == {}
    assert publish_toy(anywhere).version == 4
    assert anywhere.versions("toy") == [2, 3, 4]
    assert [line.version for line in anywhere.history("toy")] == [1, 2, 3, 2]


def test_a_damaged_version_is_refused_everywhere(storage: Storage) -> None:
    store = Store(storage)
    promoted_life(store)
    path = "toy/versions/2/history.csv"
    whole = storage.read(path, LIMIT)
    storage.remove(path)
    storage.create(path, whole.replace(b"1", b"2"))
    with pytest.raises(FileDiffers, match=f"{path} is refused"):
        store.load_promoted("toy")
    storage.remove(path)
    storage.create(path, whole)
    assert store.load_promoted("toy").manifest.version == 2


def test_two_parts_of_a_bucket_know_nothing_of_each_other(bucket: str) -> None:
    one, other = open_store(f"{bucket}/one"), open_store(f"{bucket}/one-more/")
    publish_toy(one, seed=1)
    assert other.models() == []
    assert publish_toy(other, seed=2).version == 1
    assert one.load("toy", 1).manifest.training.seed == 1
    assert open_store(bucket).models() == []


def make_folders(bucket: str, *paths: str) -> None:
    """Put an empty object where each folder is, as the cloud's console does."""
    for path in paths:
        put(f"{os.environ['AWS_ENDPOINT_URL']}/{bucket.removeprefix('s3://')}/{path}", {})


FOLDERS = (
    "",
    "toy/",
    "toy/versions/",
    "toy/versions/1/",
    "toy/versions/2/",
    "toy/promotions/",
    "toy/pruned/",
)


def test_an_empty_object_that_stands_for_a_folder_is_ignored(bucket: str) -> None:
    storage = ObjectStorage(bucket)
    store = Store(storage)
    promoted_life(store)
    before = {folder.removesuffix("/"): storage.list(folder.removesuffix("/")) for folder in FOLDERS}
    make_folders(bucket, *FOLDERS)
    expected = before | {"toy": ["promotions", "pruned", "versions"]}
    assert {folder: storage.list(folder) for folder in before} == expected
    assert store.only_model() == "toy"
    assert store.load_promoted("toy").manifest.version == 2
    assert [store.load("toy", number).manifest.version for number in store.versions("toy")] == [1, 2, 3]
    assert len(store.history("toy")) == 4
    assert store.promote("toy", publish_toy(store).version).generation == 5


def test_a_version_is_pruned_once_though_the_object_that_stands_for_its_folder_stays(bucket: str) -> None:
    store = open_store(bucket)
    promoted_life(store)
    make_folders(bucket, "toy/versions/1/", "toy/versions/7/")
    store.prune("toy", 1, "old")
    assert store.versions("toy") == [2, 3]
    assert store.prunable("toy", 1) == {}
    assert publish_toy(store).version == 8


def lines(*arguments: str) -> list[dict[str, Any]]:
    """What a command that succeeded says to a script."""
    result = run_here(look_after, *arguments, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_command_line_looks_after_a_store_in_s3(bucket: str) -> None:
    store = open_store(bucket)
    publish_toy(store, seed=1)
    publish_toy(store, seed=2)
    at = ("--store", bucket)
    assert [(line["version"], line["promoted"]) for line in lines("list", *at)] == [(1, False), (2, False)]
    assert lines("promote", "toy", "1", *at)[0]["version"] == 1
    assert lines("promote", "toy", "2", "--reason", "newer", *at)[0]["digest"] == store.load("toy", 2).digest
    assert lines("show", "toy", *at)[0]["manifest"]["training"]["seed"] == 2
    assert lines("rollback", "toy", *at)[0]["version"] == store.promoted("toy").version == 1
    assert [line["whole"] for line in lines("verify", "toy", *at)] == [True, True, True]
    assert [line["reason"] for line in lines("history", "toy", *at)] == [None, "newer", None]
    publish_toy(store, seed=3)
    lines("promote", "toy", "3", *at)
    assert [line["version"] for line in lines("prune", "toy", "--keep", "1", *at)] == [2]
    assert store.versions("toy") == [1, 3]


@contextmanager
def serving(url: str) -> Iterator[tuple[str, int]]:
    """A real service of the promoted version; gives its address and its process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "--store", url, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    try:
        wait_until_ready(process, address := f"http://127.0.0.1:{port}")
        yield address, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def check_serves_the_toy(address: str) -> None:
    rows = toy_rows(8)
    answers = [httpx.post(f"{address}/predict", content=json.dumps(row)).json() for row in rows]
    expected = expected_predictions(Linear(), toy_weights(Linear(), 5), rows)
    assert [answer["prediction"] for answer in answers] == pytest.approx(expected, rel=1e-12)


def is_in_memory(library: str, process: int) -> bool:
    """Whether a process has a shared library of that name in its memory."""
    return library in Path(f"/proc/{process}/maps").read_text(encoding="utf-8")


def test_a_service_of_a_store_in_s3_answers(bucket: str) -> None:
    store = open_store(bucket)
    store.promote("toy", publish_toy(store).version)
    with serving(bucket) as (address, process):
        check_serves_the_toy(address)
        assert is_in_memory("/obstore/", process)


def test_a_service_of_a_local_store_does_not_load_the_library_of_the_clouds(store: Store) -> None:
    store.promote("toy", publish_toy(store).version)
    with serving(store.url) as (address, process):
        check_serves_the_toy(address)
        assert not is_in_memory("/obstore/", process)
        assert is_in_memory("/numpy/", process)


def check_fails_in_a_sentence(url: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """The store, each command and the service give one line and give up in time."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageFailed, match=f"^{url}/[^\n]+$"):
        open_store(url).models()
    for main, *words in ((look_after, "list"), (look_after, "promote", "toy", "1"), (serve, "--check")):
        result = run_here(main, *words, "--store", url)
        assert (result.returncode, result.stdout) == (3, "")
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


def test_an_endpoint_that_does_not_answer_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    check_fails_in_a_sentence(f"s3://{BUCKET}", monkeypatch, s3_variables(free_port()))


def test_a_service_is_live_while_its_endpoint_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    port, began = free_port(), time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name, value in s3_variables(silent.getsockname()[1]).items():
            monkeypatch.setenv(name, value)
        with started("app", "--store", f"s3://{BUCKET}", "--port", port, port=port, path="/livez"):
            assert time.monotonic() - began < 15
            assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 503


def test_a_key_that_nobody_knows_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3(strict=True) as variables:
        check_fails_in_a_sentence(f"s3://{BUCKET}", monkeypatch, variables)


def test_no_key_at_all_is_a_sentence(emulator: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    keyless = {name: value for name, value in emulator.items() if "KEY" not in name}
    metadata = {"AWS_METADATA_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    check_fails_in_a_sentence(f"s3://{BUCKET}", monkeypatch, keyless | metadata)


def test_a_bucket_that_does_not_exist_is_a_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bucket
    check_fails_in_a_sentence("s3://no-such-bucket", monkeypatch, {})


def test_nothing_is_created_in_a_bucket_that_does_not_exist(bucket: str) -> None:
    nowhere = ObjectStorage(bucket.replace(BUCKET, "no-such-bucket"))
    with pytest.raises(StorageFailed, match="no-such-bucket"):
        nowhere.create("a/b", b"content")
