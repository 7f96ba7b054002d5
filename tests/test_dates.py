from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.dates import PARTS, as_text, days_of_array, is_ambiguous, read_days

EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes()


@given(moment=moments)
def test_days_are_counted_from_1970(moment: datetime) -> None:
    days = (moment - EPOCH) / timedelta(days=1)
    assert read_days(moment) == pytest.approx(days, rel=1e-15)
    assert read_days(moment.isoformat()) == read_days(moment) == read_days(moment.replace(tzinfo=UTC))


@given(moment=st.datetimes(timezones=OFFSETS))
def test_a_moment_with_an_offset_is_converted_to_utc(moment: datetime) -> None:
    offset = moment.utcoffset()
    assert offset is not None
    days = (moment.replace(tzinfo=None) - EPOCH - offset) / timedelta(days=1)
    assert read_days(moment.isoformat()) == read_days(moment) == pytest.approx(days, rel=1e-15, abs=1e-15)


@given(days=st.dates())
def test_a_date_is_its_midnight(days: date) -> None:
    assert read_days(days) == read_days(days.isoformat()) == days.toordinal() - date(1970, 1, 1).toordinal()


@given(found=st.lists(moments))
def test_an_array_of_moments_has_the_bits_of_each(found: list[datetime]) -> None:
    days = days_of_array(np.array(found, "datetime64[us]"))
    assert days.tolist() == [read_days(moment) for moment in found]


# Float64 days tell milliseconds apart in all the years that a calendar has.
@given(
    found=st.lists(moments.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)))
)
def test_parts_of_the_calendar_are_those_of_the_standard_library(found: list[datetime]) -> None:
    days = [read_days(moment) for moment in found]
    expected = {
        "month": [moment.month - 1 for moment in found],
        "weekday": [moment.weekday() for moment in found],
        "hour": [moment.hour for moment in found],
    }
    for name, part in PARTS.items():
        assert [part.of(each) for each in days] == part.of(np.array(days)).tolist() == expected[name]
        assert all(value < len(part.names) for value in expected[name])


@given(days=st.integers(-25_000, 50_000), microseconds=st.integers(0, 86_400_000_000 - 1))
def test_the_text_of_days_is_read_as_the_same_days(days: float, microseconds: int) -> None:
    days = read_days(EPOCH + timedelta(days, microseconds=microseconds))
    assert read_days(as_text(days)) == days


def test_midnight_is_not_written_and_the_calendar_ends() -> None:
    assert as_text(17664.0) == "2018-05-13"
    assert as_text(17664.4375) == "2018-05-13T10:30:00"
    assert as_text(-1e300) == "0001-01-01"
    assert as_text(1e300) == "9999-12-31"


@pytest.mark.parametrize(
    "text", ["", "now", "2018-02-30", "13/05/2018", "2018-05-13" + " " * 31 + "x", "\ud800"]
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_days(text)


def test_a_format_is_read_beside_iso_8601() -> None:
    assert read_days("13.5.2018 07:30 PM", "%d.%m.%Y %I:%M %p") == 17664 + 19.5 / 24
    assert read_days("2018-05-13T19:30", "%d.%m.%Y %I:%M %p") == 17664 + 19.5 / 24
    with pytest.raises(ValueError, match="13/5/2018"):
        read_days("13/5/2018", "%d.%m.%Y")


def test_a_format_that_reads_iso_8601_otherwise_is_ambiguous() -> None:
    assert is_ambiguous("%Y-%d-%m")
    assert is_ambiguous("%Y%d%m")
    for form in ("%Y-%m-%d", "%Y%m%d", "%d/%m/%Y", "%m/%d/%y %H:%M", "%d %B %Y", "%y%m%d"):
        assert not is_ambiguous(form)
