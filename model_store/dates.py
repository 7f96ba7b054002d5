"""How a date or a time is read, and what of the calendar a model may look at.

A moment is a number of days since 1970-01-01T00:00, float64. One with an offset is converted to UTC; one
without is taken as it is. What is computed of days is elementwise: alike for a float and for an array.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

LONGEST = 40
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND, MICROSECONDS = timedelta(microseconds=1), 86_400_000_000
FIRST, LAST = -719_162.0, 2_932_896.0
PROBE = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
MIDNIGHT = "T00:00:00"

PartName: TypeAlias = Literal["month", "weekday", "hour"]


def read_days(value: str | date, form: str | None = None) -> float:
    """The days of a date, a moment, or a text of one: in the strptime format `form`, if given, or ISO 8601.

    Raises ValueError for any other text, or a long one.
    """
    if not isinstance(value, str):
        return days_of(value)
    if len(value) > LONGEST:
        message = f"a date has at most {LONGEST} characters"
        raise ValueError(message)
    return days_of_text(value, form)


@lru_cache(maxsize=2**14)
def days_of_text(text: str, form: str | None) -> float:
    """The days of a short text; remembered, since a row's is read three times and a table's dates recur.

    Raises ValueError for what is neither in that format nor ISO 8601.
    """
    if form is not None:
        try:
            return days_of(datetime.strptime(text.strip(), form).replace(tzinfo=UTC))
        except ValueError:
            pass
    if not text.isascii():
        message = "ISO 8601 is written in ASCII"
        raise ValueError(message)
    return days_of(datetime.fromisoformat(text.strip()))


def days_of(moment: date) -> float:
    """The days of a date or a moment."""
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return float((moment - EPOCH) // MICROSECOND) / MICROSECONDS


def is_ambiguous(form: str) -> bool:
    """Whether a strptime format reads a text that is ISO 8601 as another moment, as "%Y-%d-%m" does."""
    text = PROBE.strftime(form)
    try:
        return read_days(text) != read_days(text, form)
    except ValueError:
        return False


def days_of_array(moments: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """The days of an array of datetime64, of the same shape; NaN for those that are not there (NaT)."""
    microseconds = moments.astype("datetime64[us]").astype(np.int64).astype(np.float64)
    return np.where(np.isnat(moments), np.nan, microseconds / MICROSECONDS)


def as_text(days: float) -> str:
    """The moment in ISO 8601, without a time at midnight; to the calendar's end for one beyond."""
    moment = EPOCH.replace(tzinfo=None) + timedelta(days=min(max(days, FIRST), LAST))
    return moment.isoformat().removesuffix(MIDNIGHT)


@dataclass(frozen=True)
class CalendarPart:
    """A part of the calendar: the names of its values, and which of them, from 0, a number of days has."""

    names: tuple[str, ...]
    of: Callable[[Any], Any]


def milliseconds(days: Any) -> Any:
    """Whole milliseconds since 1970, which float64 days tell apart in every year of the calendar."""
    return (days * 86_400_000 + 0.5) // 1


def hour(days: Any) -> Any:
    """The hour, 0 to 23."""
    return milliseconds(days) // 3_600_000 % 24


def weekday(days: Any) -> Any:
    """The day of the week, 0 for Monday."""
    return (milliseconds(days) // 86_400_000 + 3) % 7


def month(days: Any) -> Any:
    """The month of the Gregorian calendar, 0 for January.

    After Howard Hinnant, chrono-Compatible Low-Level Date Algorithms, civil_from_days: eras of 400 years,
    in which a year starts in March.
    """
    of_era = (milliseconds(days) // 86_400_000 + 719_468) % 146_097
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    return ((5 * of_year + 2) // 153 + 2) % 12


WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS: Final[dict[PartName, CalendarPart]] = {
    "month": CalendarPart(tuple(str(number) for number in range(1, 13)), month),
    "weekday": CalendarPart(WEEKDAYS, weekday),
    "hour": CalendarPart(tuple(map(str, range(24))), hour),
}
