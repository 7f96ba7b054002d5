import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from model_store._remote import ObjectStorage
from model_store._storage import LocalDisk, Storage
from model_store.errors import InvalidName, ModelNotFound, VersionInUse, VersionNotFound, VersionPruned
from model_store.predictor import dump_weights
from model_store.store import Store
from tests.toys import publish_toy, toy_description, toy_weights

LIMIT: Final = 10**7
HOUR: Final = 3600


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty place on a disk, and one in an object store."""
    return LocalDisk(tmp_path / "store") if request.param == "folder" else ObjectStorage("memory://")


@pytest.fixture
def anywhere(storage: Storage) -> Store:
    """An empty store in either."""
    return Store(storage)


class Interrupted(Exception):
    """The process was killed there."""


class Meeting:
    """A storage where another operation happens just before or after the first `verb` of a path.

    The path's extension may be left out.
    """

    def __init__(
        self, storage: Storage, verb: str, path: str, other: Callable[[], object], *, after: bool
    ) -> None:
        self._storage, self._awaited, self._other, self._after = storage, (verb, path), other, after
        self.met = 0

    @property
    def url(self) -> str:
        return self._storage.url

    @contextmanager
    def _meeting(self, verb: str, path: str) -> Iterator[None]:
        awaited_verb, awaited = self._awaited
        same = path == awaited or path.startswith(f"{awaited}.")
        meets = verb == awaited_verb and same and not self.met
        self.met += meets
        if meets and not self._after:
            self._other()
        yield
        if meets and self._after:
            self._other()

    def read(self, path: str, at_most: int) -> bytes:
        return self._storage.read(path, at_most)

    def create(self, path: str, content: bytes) -> None:
        with self._meeting("create", path):
            self._storage.create(path, content)

    def list(self, folder: str) -> list[str]:
        return self._storage.list(folder)

    def modified(self, folder: str) -> datetime:
        return self._storage.modified(folder)

    def remove(self, path: str) -> None:
        with self._meeting("remove", path):
            self._storage.remove(path)


def publish(store: Store, count: int) -> None:
    for seed in range(1, count + 1):
        publish_toy(store, seed=seed)


def begin(store: Store) -> None:
    """Leave the next version unfinished."""

    def interrupt(_number: int) -> dict[str, bytes]:
        raise Interrupted

    description = toy_description()
    with pytest.raises(Interrupted):
        store.publish(description, dump_weights(toy_weights(description.network, 5)), interrupt)


def age(store: Store, number: int, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(Path(store.url, "toy", "versions", str(number)), (then, then))


def everything(storage: Storage, folder: str = "") -> dict[str, bytes]:
    """Every file of a storage."""
    found: dict[str, bytes] = {}
    for name in storage.list(folder):
        path = f"{folder}/{name}" if folder else name
        below = everything(storage, path)
        found |= below or ({} if is_empty_folder(storage, path) else {path: storage.read(path, LIMIT)})
    return found


def is_empty_folder(storage: Storage, path: str) -> bool:
    return isinstance(storage, LocalDisk) and Path(storage.url, path).is_dir()


def names_below(storage: Storage, folder: str) -> list[str]:
    return sorted(path for path in everything(storage) if path.startswith(folder))


def records(storage: Storage) -> list[dict[str, object]]:
    return [json.loads(storage.read(f"toy/pruned/{name}", LIMIT)) for name in storage.list("toy/pruned")]


def test_the_newest_are_kept_and_the_older_named(anywhere: Store) -> None:
    publish(anywhere, 6)
    anywhere.promote("toy", 5)
    anywhere.promote("toy", 6)
    assert anywhere.prunable("toy", 2) == dict.fromkeys((1, 2, 3, 4), "older than the newest 2")
    assert list(anywhere.prunable("toy", 3)) == [1, 2, 3]
    assert list(anywhere.prunable("toy", 5)) == [1]
    assert anywhere.prunable("toy", 6) == anywhere.prunable("toy", 100) == {}


def test_neither_the_promoted_nor_the_one_before_it_is_named(anywhere: Store) -> None:
    publish(anywhere, 6)
    for number in (1, 2, 3):
        anywhere.promote("toy", number)
    assert list(anywhere.prunable("toy", 1)) == [1, 4, 5]
    anywhere.rollback("toy")
    assert list(anywhere.prunable("toy", 1)) == [1, 4, 5]
    anywhere.promote("toy", 1)
    assert list(anywhere.prunable("toy", 1)) == [3, 4, 5]


def test_as_long_as_nothing_is_promoted_no_finished_version_is_named(anywhere: Store) -> None:
    publish(anywhere, 4)
    assert anywhere.prunable("toy", 1) == {}


def test_an_old_version_that_is_finished_stays_however_old(store: Store) -> None:
    publish(store, 3)
    store.promote("toy", 3)
    age(store, 1, 1000 * 24 * HOUR)
    assert store.prunable("toy", 3) == {}


def test_an_unfinished_version_younger_than_a_day_may_still_be_finished(anywhere: Store) -> None:
    publish(anywhere, 1)
    begin(anywhere)
    anywhere.promote("toy", 1)
    publish(anywhere, 1)
    assert anywhere.prunable("toy", 1) == {}


def test_an_unfinished_version_is_named_after_a_day(store: Store) -> None:
    publish(store, 1)
    begin(store)
    begin(store)
    age(store, 2, 23 * HOUR)
    age(store, 3, 25 * HOUR)
    assert store.prunable("toy", 1) == {3: "unfinished for more than a day"}
    store.promote("toy", 1)
    assert store.prunable("toy", 1) == {3: "unfinished for more than a day"}


def test_an_unfinished_version_counts_for_none_of_the_newest(store: Store) -> None:
    publish(store, 3)
    begin(store)
    store.promote("toy", 3)
    assert list(store.prunable("toy", 2)) == [1]


def test_saying_what_is_prunable_changes_nothing(anywhere: Store, storage: Storage) -> None:
    publish(anywhere, 4)
    anywhere.promote("toy", 4)
    before = everything(storage)
    assert len(anywhere.prunable("toy", 1)) == 3
    assert everything(storage) == before


def test_a_model_that_is_not_there_has_nothing_to_prune(anywhere: Store) -> None:
    with pytest.raises(ModelNotFound):
        anywhere.prunable("toy", 1)
    for refused in (lambda: anywhere.prunable("../toy", 1), lambda: anywhere.prune("../toy", 1, "why")):
        with pytest.raises(InvalidName):
            refused()


def test_a_pruned_version_is_gone_and_nothing_else_is(anywhere: Store, storage: Storage) -> None:
    publish(anywhere, 4)
    anywhere.promote("toy", 3)
    anywhere.promote("toy", 4)
    before = everything(storage)
    anywhere.prune("toy", 1, "it is old")
    after = everything(storage)
    assert len(names_below(storage, "toy/pruned/")) == 1
    assert {path: content for path, content in after.items() if not path.startswith("toy/pruned/")} == {
        path: content for path, content in before.items() if not path.startswith("toy/versions/1/")
    }
    assert anywhere.versions("toy") == [2, 3, 4]
    assert "1" not in storage.list("toy/versions")
    with pytest.raises(VersionNotFound, match="toy has no version 1; it has 2, 3, 4"):
        anywhere.load("toy", 1)


def test_of_another_model_nothing_is_pruned(anywhere: Store) -> None:
    for name in ("toy", "toy2"):
        for _ in range(3):
            publish_toy(anywhere, name=name)
        anywhere.promote(name, 3)
    for number, why in anywhere.prunable("toy", 1).items():
        anywhere.prune("toy", number, why)
    assert (anywhere.versions("toy"), anywhere.versions("toy2")) == ([3], [1, 2, 3])


def test_version_1_is_pruned_without_version_10(anywhere: Store) -> None:
    for _ in range(11):
        publish_toy(anywhere)
    anywhere.promote("toy", 11)
    anywhere.prune("toy", 1, "it is old")
    assert anywhere.versions("toy") == list(range(2, 12))
    assert anywhere.load("toy", 10).manifest.version == 10


def test_what_was_pruned_is_not_named_again(anywhere: Store) -> None:
    publish(anywhere, 4)
    anywhere.promote("toy", 4)
    for number, why in anywhere.prunable("toy", 1).items():
        anywhere.prune("toy", number, why)
    assert anywhere.prunable("toy", 1) == {}
    assert anywhere.load_promoted("toy").manifest.version == 4
    assert len(anywhere.history("toy")) == 1


@pytest.mark.parametrize("pruned", [[3], [2, 3], [1, 2, 3]])
def test_the_number_of_a_pruned_version_is_never_given_again(anywhere: Store, pruned: list[int]) -> None:
    publish(anywhere, 3)
    for number in pruned:
        anywhere.prune("toy", number, "a trial")
    assert publish_toy(anywhere).version == 4
    assert anywhere.versions("toy") == [number for number in (1, 2, 3, 4) if number not in pruned]


def test_the_number_of_a_pruned_unfinished_version_is_not_given_again(store: Store) -> None:
    publish(store, 1)
    begin(store)
    age(store, 2, 25 * HOUR)
    for number, why in store.prunable("toy", 1).items():
        store.prune("toy", number, why)
    assert os.listdir(Path(store.url, "toy", "versions")) == ["1"]
    assert publish_toy(store).version == 3


@pytest.mark.parametrize("number", [2, 3])
def test_a_version_in_use_is_not_pruned(anywhere: Store, storage: Storage, number: int) -> None:
    publish(anywhere, 3)
    anywhere.promote("toy", 2)
    anywhere.promote("toy", 3)
    before = everything(storage)
    with pytest.raises(VersionInUse, match=f"version {number} of toy is promoted, or was before"):
        anywhere.prune("toy", number, "why not")
    assert everything(storage) == before


VERSION_1: Final = "toy/versions/1"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("path", [f"{VERSION_1}/manifest.json", VERSION_1])
def test_an_interrupted_pruning_is_finished_by_the_next(
    anywhere: Store, storage: Storage, path: str, after: bool
) -> None:
    def interrupt() -> None:
        raise Interrupted

    publish(anywhere, 2)
    anywhere.promote("toy", 2)
    with pytest.raises(Interrupted):
        Store(Meeting(storage, "remove", path, interrupt, after=after)).prune("toy", 1, "the first reason")
    finished = path == VERSION_1 and after
    assert anywhere.prunable("toy", 100) == ({} if finished else {1: "its pruning was interrupted"})
    anywhere.prune("toy", 1, "its pruning was interrupted")
    assert names_below(storage, "toy/versions/1/") == []
    assert "the first reason" in [record["reason"] for record in records(storage)]
    assert anywhere.prunable("toy", 100) == {}
    assert publish_toy(anywhere).version == 3


def test_no_part_of_a_version_is_taken_for_a_version_while_it_is_pruned(
    anywhere: Store, storage: Storage
) -> None:
    seen: list[list[int]] = []
    publish(anywhere, 2)
    anywhere.promote("toy", 2)
    look = Meeting(storage, "remove", VERSION_1, lambda: seen.append(anywhere.versions("toy")), after=False)
    Store(look).prune("toy", 1, "it is old")
    assert seen == [[2]]


def test_a_version_whose_pruning_was_interrupted_is_not_promoted(anywhere: Store, storage: Storage) -> None:
    def interrupt() -> None:
        raise Interrupted

    publish(anywhere, 2)
    anywhere.promote("toy", 2)
    manifest = f"{VERSION_1}/manifest.json"
    with pytest.raises(Interrupted):
        Store(Meeting(storage, "remove", manifest, interrupt, after=False)).prune("toy", 1, "it is old")
    with pytest.raises(VersionPruned):
        anywhere.promote("toy", 1)
    assert anywhere.load_promoted("toy").manifest.version == 2


def test_pruned_in_the_middle_of_its_promotion_a_version_gives_way_to_the_one_before(
    anywhere: Store, storage: Storage
) -> None:
    publish(anywhere, 3)
    anywhere.promote("toy", 3)
    meeting = Meeting(
        *(storage, "create", "toy/promotions/2.json", lambda: anywhere.prune("toy", 1, "it is old")),
        after=False,
    )
    with pytest.raises(VersionPruned, match="version 1 of toy was pruned while it was being promoted"):
        Store(meeting).promote("toy", 1, "a mistake")
    assert meeting.met
    assert names_below(storage, "toy/versions/1/") == []
    assert anywhere.load_promoted("toy").manifest.version == 3
    assert [(line.version, line.previous, line.reason) for line in anywhere.history("toy")] == [
        (3, None, None),
        (1, 3, "a mistake"),
        (3, 1, "1 was pruned"),
    ]
    anywhere.promote("toy", 2)
    assert anywhere.load_promoted("toy").manifest.version == 2


def test_promoted_in_the_middle_of_its_pruning_a_version_stays_whole(
    anywhere: Store, storage: Storage
) -> None:
    publish(anywhere, 3)
    anywhere.promote("toy", 3)
    meeting = Meeting(storage, "create", "toy/pruned/1", lambda: anywhere.promote("toy", 1), after=False)
    with pytest.raises(VersionInUse, match="version 1 of toy is promoted"):
        Store(meeting).prune("toy", 1, "it is old")
    assert meeting.met
    assert names_below(storage, "toy/pruned") == []
    assert anywhere.load_promoted("toy").manifest.version == 1
    assert anywhere.rollback("toy").version == 3
    assert anywhere.rollback("toy").version == 1


@pytest.mark.parametrize("first", ["promote", "prune"])
def test_where_both_have_written_before_either_reads_the_version_stays_whole(
    anywhere: Store, storage: Storage, first: str
) -> None:
    publish(anywhere, 3)
    anywhere.promote("toy", 3)

    def prune(place: Storage) -> None:
        with pytest.raises(VersionInUse):
            Store(place).prune("toy", 1, "it is old")

    def promote(place: Storage) -> None:
        Store(place).promote("toy", 1)

    if first == "promote":
        promote(Meeting(storage, "create", "toy/promotions/2.json", lambda: prune(storage), after=True))
        assert anywhere.load_promoted("toy").manifest.version == 1
    else:

        def refused() -> None:
            with pytest.raises(VersionPruned):
                promote(storage)

        prune(Meeting(storage, "create", "toy/pruned/1", refused, after=True))
        assert anywhere.load_promoted("toy").manifest.version == 3
    assert names_below(storage, "toy/pruned") == []
    assert anywhere.load("toy", 1).manifest.version == 1


def test_pruned_in_the_middle_of_the_first_promotion_a_version_is_not_the_promoted_one(
    anywhere: Store, storage: Storage
) -> None:
    publish(anywhere, 2)
    meeting = Meeting(
        *(storage, "create", "toy/promotions/1.json", lambda: anywhere.prune("toy", 1, "a trial")),
        after=False,
    )
    with pytest.raises(VersionPruned):
        Store(meeting).promote("toy", 1)
    assert meeting.met
    anywhere.promote("toy", 2)
    assert anywhere.load_promoted("toy").manifest.version == 2
    assert anywhere.prunable("toy", 1) == {}


def test_a_version_that_gives_way_while_another_is_promoted_leaves_that_one_in_force(
    anywhere: Store, storage: Storage
) -> None:
    publish(anywhere, 3)
    anywhere.promote("toy", 3)
    pruning = Meeting(
        *(storage, "create", "toy/promotions/2.json", lambda: anywhere.prune("toy", 1, "it is old")),
        after=False,
    )
    promotion = Meeting(
        pruning, "create", "toy/promotions/3.json", lambda: anywhere.promote("toy", 2), after=False
    )
    with pytest.raises(VersionPruned):
        Store(promotion).promote("toy", 1)
    assert (pruning.met, promotion.met) == (1, 1)
    assert anywhere.load_promoted("toy").manifest.version == 2
    assert [line.version for line in anywhere.history("toy")] == [3, 1, 2]


def test_two_prunings_and_a_promotion_at_once_leave_the_promoted_version_whole(
    anywhere: Store, storage: Storage
) -> None:
    publish(anywhere, 3)
    anywhere.promote("toy", 3)
    promoted: list[int] = []

    def second_pruning() -> None:
        with suppress(VersionInUse):
            anywhere.prune("toy", 1, "the second")

    def promotion() -> None:
        place = Meeting(storage, "create", "toy/promotions/2.json", second_pruning, after=True)
        try:
            promoted.append(Store(place).promote("toy", 1).version)
        except VersionPruned:
            promoted.append(3)

    with suppress(VersionInUse):
        first = Meeting(storage, "remove", f"{VERSION_1}/manifest.json", promotion, after=False)
        Store(first).prune("toy", 1, "the first")
    assert [anywhere.load_promoted("toy").manifest.version] == promoted


def test_a_record_says_when_and_why(anywhere: Store, storage: Storage) -> None:
    publish(anywhere, 2)
    anywhere.promote("toy", 2)
    before = datetime.now(UTC)
    anywhere.prune("toy", 1, "it is “old”")
    (found,) = records(storage)
    assert (found["version"], found["reason"]) == (1, "it is “old”")
    assert before <= datetime.fromisoformat(str(found["pruned_at"])) <= datetime.now(UTC)
