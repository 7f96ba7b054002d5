"""How a cell of a table is read as a number: "5", "19.67 kmpl", "1,582 CC"; and what counts as missing."""

import re

MISSING = frozenset({"", "-", "na", "n/a", "nan", "none", "null"})
# Commas may group the digits, by thousands or as in India; a unit starts with a letter or with % or °, and
# with no e or x right behind the digits: "1e" and "0x10" are no numbers with units.
NUMBER = re.compile(
    r"([-+]?(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d*)?|\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\s+|(?![eExX]))((?:[^\W\d_]|[%°]).*)?"
)


def read_number(text: str) -> tuple[float, str] | None:
    """The number in a cell and the unit behind it, '' for none; None for a missing value.

    A missing value may have a unit too, as in "null bhp". Raises ValueError for anything else.
    """
    text = text.strip()
    word, _, _unit = text.partition(" ")
    if word.lower() in MISSING:
        return None
    match = NUMBER.fullmatch(text)
    if not match:
        message = f"{text[:40]!r} is not a number"
        raise ValueError(message)
    number, unit = match.groups()
    return float(number.replace(",", "")), (unit or "").strip()
