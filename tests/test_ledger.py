from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from model_store._ledger import Entry, Ledger, numbers_in
from model_store._remote import ObjectStorage
from model_store._storage import LocalDisk, Storage
from model_store.errors import EntryInvalid, PathMissing, PathTaken, TooLarge
from tests.toys import sealed_json

HIGHEST: Final = 9_999_999_999


class Note(Entry):
    """An entry of a toy ledger."""

    text: str


class NoteInvalid(EntryInvalid):
    """The toy ledger's own refusal."""


class Torn:
    """A storage whose listings lack some names, as one may that was made while they were written."""

    def __init__(self, storage: Storage, lacking: Iterable[str]) -> None:
        self._storage, self._lacking = storage, set(lacking)

    @property
    def url(self) -> str:
        return self._storage.url

    def read(self, path: str, at_most: int) -> bytes:
        return self._storage.read(path, at_most)

    def create(self, path: str, content: bytes) -> None:
        self._storage.create(path, content)

    def list(self, folder: str) -> list[str]:
        return [name for name in self._storage.list(folder) if name not in self._lacking]

    def modified(self, folder: str) -> datetime:
        return self._storage.modified(folder)

    def remove(self, path: str) -> None:
        self._storage.remove(path)


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty place on a disk, and one in an object store."""
    return LocalDisk(tmp_path / "store") if request.param == "folder" else ObjectStorage("memory://")


@pytest.fixture
def notes(storage: Storage) -> Ledger[Note]:
    """An empty ledger."""
    return ledger(storage)


def ledger(storage: Storage) -> Ledger[Note]:
    return Ledger(storage, "toy/notes", Note, NoteInvalid, most_bytes=1000)


def note(generation: int) -> Note:
    return Note(generation=generation, text=f"“{generation}”")


def fill(notes: Ledger[Note], count: int) -> None:
    for generation in range(1, count + 1):
        notes.append(note(generation))


def write(notes: Ledger[Note], name: str, content: bytes) -> None:
    """Put a file there without the ledger."""
    notes.storage.remove(f"{notes.folder}/{name}")
    notes.storage.create(f"{notes.folder}/{name}", content)


def test_a_new_ledger_is_empty(notes: Ledger[Note]) -> None:
    assert notes.latest() is None
    assert (notes.entries(), notes.generations()) == ([], [])
    notes.check_gapless()
    with pytest.raises(PathMissing):
        notes.read(1)


def test_an_entry_is_a_sealed_document_named_by_its_number(notes: Ledger[Note], storage: Storage) -> None:
    notes.append(note(1))
    assert storage.list("toy/notes") == ["1.json"]
    assert storage.read("toy/notes/1.json", 1000) == sealed_json({"generation": 1, "text": "“1”"})
    assert notes.read(1) == notes.latest() == note(1)


def test_entries_are_in_the_order_of_their_numbers_and_ten_comes_after_nine(notes: Ledger[Note]) -> None:
    fill(notes, 11)
    assert notes.generations() == list(range(1, 12))
    assert notes.entries() == [note(generation) for generation in range(1, 12)]
    assert notes.latest() == note(11)


def test_a_number_that_is_taken_is_never_given_again(notes: Ledger[Note]) -> None:
    fill(notes, 2)
    with pytest.raises(PathTaken, match=r"notes/2\.json exists already"):
        notes.append(Note(generation=2, text="another"))
    assert notes.entries() == [note(1), note(2)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the document"),
        (sealed_json({"generation": 1, "text": "“2”"}), "it says it is generation 1"),
        (sealed_json({"generation": 2}), "text"),
        (sealed_json({"generation": 2, "text": "x", "colour": "red"}), "colour"),
        (sealed_json({"generation": 2, "text": "x"}).replace(b"x", b"y"), "its checksum"),
    ],
    ids=["empty", "another number", "a member too few", "a member too many", "a byte changed"],
)
def test_what_was_not_written_so_is_refused_in_the_ledgers_own_words(
    notes: Ledger[Note], content: bytes, sentence: str
) -> None:
    fill(notes, 1)
    write(notes, "2.json", content)
    refusals: list[Callable[[], object]] = [lambda: notes.read(2), notes.latest, notes.entries]
    for refused in refusals:
        with pytest.raises(NoteInvalid, match=rf"notes/2\.json is refused: {sentence}"):
            refused()
    assert notes.read(1) == note(1)


def test_an_entry_too_long_to_be_read_is_neither_written_nor_read(
    notes: Ledger[Note], storage: Storage
) -> None:
    with pytest.raises(TooLarge, match=r"notes/1\.json: more than 1000 bytes"):
        notes.append(Note(generation=1, text="x" * 1000))
    assert storage.list("toy/notes") == []
    write(notes, "1.json", sealed_json({"generation": 1, "text": "x" * 1000}))
    with pytest.raises(TooLarge, match=r"notes/1\.json: more than 1000 bytes"):
        notes.latest()


@pytest.mark.parametrize(
    ("gone", "stray", "named", "missing"),
    [(1, None, 2, 1), (2, None, 3, 2), (3, None, 4, 3), (None, 6, 6, 5), (None, HIGHEST, HIGHEST, 5)],
)
def test_an_entry_that_follows_on_none_is_named(
    notes: Ledger[Note], gone: int | None, stray: int | None, named: int, missing: int
) -> None:
    fill(notes, 4)
    if gone:
        notes.storage.remove(f"{notes.folder}/{gone}.json")
    if stray:
        notes.append(note(stray))
    what = rf"it does not follow on the one before it \(there is no {missing}\.json\)"
    refusals: list[Callable[[], object]] = [notes.check_gapless, notes.entries]
    for refused in refusals:
        with pytest.raises(NoteInvalid, match=rf"notes/{named}\.json is refused: {what}$"):
            refused()
    assert notes.latest() == note(stray or 4)


@pytest.mark.parametrize("lacking", [[1], [2, 4], [1, 2, 3, 4]])
def test_what_only_a_listing_lacks_is_no_gap(notes: Ledger[Note], lacking: list[int]) -> None:
    fill(notes, 5)
    torn = ledger(Torn(notes.storage, [f"{generation}.json" for generation in lacking]))
    torn.check_gapless()
    assert torn.entries() == [note(generation) for generation in range(1, 6)]


def test_a_listing_that_lacks_the_newest_is_of_a_moment_before(notes: Ledger[Note]) -> None:
    fill(notes, 3)
    torn = ledger(Torn(notes.storage, ["3.json"]))
    torn.check_gapless()
    assert torn.latest() == note(2)


def test_only_numbers_without_flourishes_are_numbers() -> None:
    names = ["10", "9", "0", "07", "-1", "+1", "1.0", "1_0", "²", "٣", "", "9999999999", "10000000000"]
    assert numbers_in(names) == [9, 10, HIGHEST]
    assert numbers_in([*(f"{name}.json" for name in names), "8", ".json"], ".json") == [9, 10, HIGHEST]
