"""How a time is read that only orders rows: a number, or a date as seconds since 1970."""

import math
from datetime import UTC, datetime, timedelta

from model_store.cells import DecimalMark, read_number

NOT_A_TIME = "is neither a number nor a date in ISO 8601, such as 2018-09-30 or 2018-09-30T14:00"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_time(text: str, form: str | None, decimal: DecimalMark = ".") -> tuple[float, bool]:
    """A number as it is, a date as seconds since 1970, and whether it is a date.

    `form` is a strptime format, in place of numbers and ISO 8601. A date without an offset is taken as UTC.
    Raises ValueError, which says what the text is not.
    """
    if form is None and (number := plain_number(text, decimal)) is not None:
        return number, False
    try:
        moment = read_date(text, form)
    except ValueError:
        message = f"is not a date of the format {form}" if form else NOT_A_TIME
        raise ValueError(message) from None
    return (moment - EPOCH).total_seconds(), True


def plain_number(text: str, decimal: DecimalMark) -> float | None:
    """The finite number without a unit that a text is, None if it is not one."""
    try:
        number, unit = read_number(text, decimal) or (math.inf, "")
    except ValueError:
        return None
    return number if math.isfinite(number) and not unit else None


def read_date(text: str, form: str | None) -> datetime:
    """The moment in a text, in UTC where it gives no offset."""
    if form:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def time_text(time: float, *, dated: bool) -> str:
    """A time as `read_time` gives it, for people: a date without its midnight, or the number."""
    if not dated:
        return f"{time:.15g}"
    moment = EPOCH.replace(tzinfo=None) + timedelta(seconds=time)
    return moment.isoformat(sep=" ").removesuffix(" 00:00:00")
