"""A ledger: numbered documents in one folder, each sealed, none ever changed; the next is appended.

    <folder>/1.json 2.json 3.json …    each a document that says its own number, its *generation*

What is in force is what the highest generation says. A new ledger is a class of entries and a `Ledger` of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import PositiveInt

from model_store._sealed import dump, parse
from model_store._storage import Storage
from model_store.errors import EntryInvalid, PathMissing, TooLarge
from model_store.parts import Part

LONGEST_NUMBER = 10


class Entry(Part):
    """A document of a ledger."""

    generation: PositiveInt


Document = TypeVar("Document", bound=Entry)


@dataclass(frozen=True)
class Ledger(Generic[Document]):
    """The documents of one kind in one folder of a storage.

    `refusal` is raised for one that is not what was written, or that does not follow on the one before it.
    """

    storage: Storage
    folder: str
    kind: type[Document]
    refusal: type[EntryInvalid] = EntryInvalid
    most_bytes: int = 2**16

    def generations(self) -> list[int]:
        """The numbers of all entries, ascending; raises StorageFailed."""
        return numbers_in(self.storage.list(self.folder), suffix=".json")

    def read(self, generation: int) -> Document:
        """One entry, checked; raises PathMissing, StorageFailed or the refusal."""
        content = self.storage.read(self._path(generation), self.most_bytes)
        try:
            entry = parse(self.kind, content)
        except ValueError as error:
            raise self.refused(generation, str(error)) from None
        if entry.generation != generation:
            raise self.refused(generation, f"it says it is generation {entry.generation}")
        return entry

    def latest(self) -> Document | None:
        """The entry in force, if there is any; raises StorageFailed or the refusal."""
        generations = self.generations()
        return self.read(generations[-1]) if generations else None

    def entries(self) -> list[Document]:
        """Every entry, oldest first; raises StorageFailed, or the refusal, for a gap too."""
        self.check_gapless()
        return [self.read(generation) for generation in range(1, max(self.generations(), default=0) + 1)]

    def check_gapless(self) -> None:
        """Raise the refusal for the first entry that does not follow on another; or StorageFailed."""
        generations = self.generations()
        listed = set(generations)
        for expected in range(1, max(generations, default=0)):
            if expected not in listed and not self._exists(expected):
                after = min(generation for generation in generations if generation > expected)
                what = f"it does not follow on the one before it (there is no {expected}.json)"
                raise self.refused(after, what)

    def _exists(self, generation: int) -> bool:
        # A listing may lack what was written while it was made, and have what was written after that.
        try:
            self.read(generation)
        except PathMissing:
            return False
        return True

    def append(self, entry: Document) -> None:
        """Write an entry under its own number, durably.

        Raises PathTaken where another has that number, TooLarge for one that could not be read again, or
        StorageFailed.
        """
        content = dump(entry)
        if len(content) > self.most_bytes:
            raise TooLarge(self._named(entry.generation), self.most_bytes)
        self.storage.create(self._path(entry.generation), content)

    def refused(self, generation: int, what: str) -> EntryInvalid:
        """The refusal of an entry, for the caller to raise."""
        return self.refusal(self._named(generation), what)

    def _path(self, generation: int) -> str:
        return f"{self.folder}/{generation}.json"

    def _named(self, generation: int) -> str:
        return f"{self.storage.url}/{self._path(generation)}"


def numbers_in(names: Iterable[str], suffix: str = "") -> list[int]:
    """The numbers among names, ascending: those written as a version or an entry is, before a suffix."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if is_number(stem))


def is_number(text: str) -> bool:
    """Whether the text is how a version or a generation is written."""
    return text.isascii() and text.isdigit() and not text.startswith("0") and len(text) <= LONGEST_NUMBER
