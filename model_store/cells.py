"""How cells of a table are read as numbers: "5", "19.67 kmpl", "1,582 CC", "$2.39"; and what is missing.

The decimal mark is a table's, the words for a missing value are these and a column's own.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

DecimalMark: TypeAlias = Literal[".", ","]

# Those of pandas, and "-".
MISSING = frozenset(
    [
        *("", "-", "#n/a", "#n/a n/a", "#na", "<na>", "n/a", "na", "none", "null"),
        *("nan", "-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
    ]
)
INFINITE = frozenset({"inf", "infinity"})
# Only a number without a unit may be longer.
LONGEST_CELL = 200
# Numbers as JSON has them, the usual case, are read ten times as fast as those with units.
DECODE_NUMBERS = msgspec.json.Decoder(list[float | None]).decode

CURRENCY = "[$¢£¤¥֏฿₠-⃏]"
# A plain number may have any length: every quantifier keeps what it took, so the time it takes is linear.
PLAIN = {mark: re.compile(rf"[-+]?+\d++(?:[{mark}]\d++)?+(?:[eE][-+]?+\d++)?+") for mark in ".,"}
# Digits are grouped by thousands: by an apostrophe or a space that does not break under both marks, by a
# plain space under a comma alone, as "1 582" could be two numbers, and by commas also as in India.
GROUPED = {
    ".": r"[1-9]\d?+\d?+(?:(?:,\d{2,3}(?=,))*+,\d{3}|(?:['’\u00a0\u2009\u202f]\d{3})++)(?!\d)",
    ",": r"[1-9]\d?+\d?+(?:(?:\.\d{3})++|(?:['’ \u00a0\u2009\u202f]\d{3})++)(?!\d)",
}
GROUPING = {
    ".": str.maketrans("", "", ",'’\u00a0\u2009\u202f"),
    ",": str.maketrans(",", ".", ".'’ \u00a0\u2009\u202f"),
}
# A unit starts with a letter, a currency's sign or with % or °, and with no e or x right behind the digits:
# "1e" and "0x10" are no numbers with units. A "+" may stand before it: "10,000+".
NUMBER = {
    mark: re.compile(
        rf"(?:([-+]?+)({CURRENCY})\s*+)?+"
        rf"([-+]?+(?:(?:{grouped}|\d++)(?:[{mark}]\d*+)?+|[{mark}]\d++)(?:[eE][-+]?+\d++)?+)"
        rf"(?:\s++|(?![eExX]))(\+?+\s*+(?:(?:[^\W\d_]|[%°]|{CURRENCY}).*)?+)"
    )
    for mark, grouped in GROUPED.items()
}


@dataclass(frozen=True)
class Numbers:
    """Cells read as n numbers: float64, (n,), missing ones as NaN.

    `unreadable` are the positions, ascending, of the cells that are neither numbers nor missing; their
    values are NaN too. `units` counts the cells by unit.
    """

    column: NDArray[np.float64]
    unreadable: Sequence[int]
    units: Counter[str]


def read_numbers(
    cells: Sequence[str], decimal: DecimalMark = ".", missing_words: tuple[str, ...] = ()
) -> Numbers:
    """Read n cells; `missing_words` count as missing beside the words that always do.

    A missing word that is a number, as "-999", stands for every spelling of it.
    """
    words, _ = kinds_of_words(missing_words, decimal)
    values = read_plain(cells, decimal)
    numbers = read_each(cells, decimal, words) if values is None else Numbers(values, (), Counter())
    return replace(numbers, column=without_codes(numbers.column, missing_words, decimal))


def without_codes(
    values: NDArray[np.float64], missing_words: tuple[str, ...], decimal: DecimalMark = "."
) -> NDArray[np.float64]:
    """The numbers, (n,), with NaN in place of those that are missing words, such as -999."""
    _, codes = kinds_of_words(missing_words, decimal)
    return np.where(np.isin(values, codes), np.nan, values) if codes else values


@lru_cache(maxsize=256)
def kinds_of_words(
    missing_words: tuple[str, ...], decimal: DecimalMark
) -> tuple[frozenset[str], tuple[float, ...]]:
    """The missing words that are texts, in lower case, and the values of those that are numbers."""
    texts = [word.strip().lower() for word in missing_words]
    plain = [text for text in texts if PLAIN[decimal].fullmatch(text)]
    return frozenset(texts).difference(plain), tuple(float(text.replace(",", ".")) for text in plain)


def read_plain(cells: Sequence[str], decimal: DecimalMark) -> NDArray[np.float64] | None:
    """Cells that are all empty or numbers as JSON has them but for the decimal mark, (n,); or None."""
    numbers = decoded(cells, decimal)
    if numbers is None and "" in cells:
        numbers = decoded([cell or "null" for cell in cells], decimal)
    return numbers


def decoded(cells: Sequence[str], decimal: DecimalMark) -> NDArray[np.float64] | None:
    """Cells that are all numbers as JSON has them but for the decimal mark, or null; None for others."""
    joined = ("," if decimal == "." else "\n").join(cells)
    if decimal == ",":
        if "." in joined:
            return None
        joined = joined.replace(",", ".").replace("\n", ",")
    try:
        numbers = DECODE_NUMBERS(f"[{joined}]")
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    return np.array(numbers, dtype=np.float64) if len(numbers) == len(cells) else None


def read_each(cells: Sequence[str], decimal: DecimalMark, words: frozenset[str]) -> Numbers:
    """Cells that may have units or be missing, each different one read once."""
    values, units, unreadable = dict[str, float](), Counter[str](), set[str]()
    for cell, count in Counter(cells).items():
        try:
            values[cell], unit = read_number(cell, decimal, words) or (np.nan, "")
        except ValueError:
            values[cell], unit = np.nan, ""
            unreadable.add(cell)
        if unit:
            units[unit] += count
    column = np.fromiter(map(values.__getitem__, cells), np.float64, len(cells))
    faulty = [position for position, cell in enumerate(cells) if cell in unreadable] if unreadable else []
    return Numbers(column, faulty, units)


def read_number(
    text: str, decimal: DecimalMark = ".", words: frozenset[str] = frozenset()
) -> tuple[float, str] | None:
    """The number in a cell and its unit, '' for none; None for a missing value.

    A missing value may have a unit too, as in "null bhp". `words`, in lower case, are missing as a whole.
    "inf" is read as the float it is. Raises ValueError for anything else.
    """
    text = text.strip()
    if len(text) <= LONGEST_CELL:
        return read_short(text, decimal, words)
    if PLAIN[decimal].fullmatch(text):
        return float_of(text, decimal), ""
    raise not_a_number(text)


@lru_cache(maxsize=2**12)
def read_short(text: str, decimal: DecimalMark, words: frozenset[str]) -> tuple[float, str] | None:
    """The number in a cell that is not long: those with units come again and again."""
    if words and text.lower() in words:
        return None
    if match := NUMBER[decimal].fullmatch(text):
        sign, currency, digits, unit = match.groups("")
        return float_of(sign + digits, decimal), f"{currency} {unit}".strip() if currency else unit
    if text.lower().lstrip("+-") in INFINITE:
        return float(text), ""
    if is_missing(text):
        return None
    raise not_a_number(text)


def not_a_number(text: str) -> ValueError:
    """What is raised for a cell that is neither a number nor missing."""
    return ValueError(f"{text[:40]!r} is not a number")


def float_of(digits: str, decimal: DecimalMark) -> float:
    """The float64 that is nearest to digits, grouped or not."""
    is_plain = decimal == "." and digits.isascii() and "," not in digits and "'" not in digits
    return float(digits if is_plain else digits.translate(GROUPING[decimal]))


def is_missing(text: str) -> bool:
    """Whether a cell without blanks around it is missing: a word for that, or one with a unit behind it."""
    return text.lower() in MISSING or text.partition(" ")[0].lower() in MISSING
