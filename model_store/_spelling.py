"""Which known text a misspelt one may have meant, found in time that does not grow with what was sent."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

LONGEST_COMPARED, SHORTEST_MISSPELT, MOST_COMPARED = 40, 3, 500


def meant(given: str, known: Sequence[str]) -> str | None:
    """The known text that a given one is, but for case, blanks around it and one letter; None if none is."""
    nearest = spelt(tuple(known[:MOST_COMPARED]))
    return next((nearest[spelling] for spelling in spellings(given) if spelling in nearest), None)


@lru_cache(maxsize=64)
def spelt(known: tuple[str, ...]) -> dict[str, str]:
    """The known texts by their spellings, the first of them for one that several have."""
    misspelt = {spelling: text for text in reversed(known) for spelling in spellings(text)}
    return misspelt | {next(spellings(text)): text for text in reversed(known)}


def spellings(text: str) -> Iterator[str]:
    """A text's start in lower case, as it is, then with each letter left out.

    Two texts of which one has a letter more, or another letter, have a spelling in common.
    """
    word = text[: 2 * LONGEST_COMPARED].strip().casefold()[:LONGEST_COMPARED]
    yield word
    if len(word) >= SHORTEST_MISSPELT:
        yield from (word[:index] + word[index + 1 :] for index in range(len(word)))
