"""Names of columns: usable ones in place of those that no request could spell, and the nearest to a name."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

LONGEST_NAME = 200
MOST_COMPARED = 1000
UNUSABLE = re.compile(r'["\\\x00-\x1f]')


def usable_names(header: Sequence[str]) -> list[str]:
    """The names by which requests call the columns of a table: those in its header where they can.

    A column without a name is called by its place, `column_1` for the first. A usable name stays as it is.
    """
    return [usable_name(name) or f"column_{place}" for place, name in enumerate(header, 1)]


def usable_name(name: str) -> str:
    """A column's name without quotes, backslashes, line breaks and other control characters, cut at 200."""
    if UNUSABLE.search(name):
        name = " ".join(UNUSABLE.sub(" ", name).split())
    return name[:LONGEST_NAME]


def nearest_name(name: str, names: Sequence[str]) -> str | None:
    """The one of the first thousand names that is most like a name, case and blanks left out of account."""
    known = {plain(other): other for other in reversed(names[:MOST_COMPARED])}
    nearest = get_close_matches(plain(name), known, n=1, cutoff=0.5)
    return known[nearest[0]] if nearest else None


def plain(name: str) -> str:
    """A name without its blanks and its case."""
    return "".join(name[:LONGEST_NAME].split()).casefold()
