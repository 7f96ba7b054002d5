from datetime import datetime

import pytest

from training.times import read_time, time_text


@pytest.mark.parametrize(
    ("text", "form", "moment"),
    [
        ("2018-09-30", None, "2018-09-30T00:00:00+00:00"),
        ("2018-09-30 14:05", None, "2018-09-30T14:05:00+00:00"),
        ("20130914T000000", None, "2013-09-14T00:00:00+00:00"),
        ("2018-09-30T14:05:06.25+02:00", None, "2018-09-30T12:05:06.25+00:00"),
        ("1066-10-14", None, "1066-10-14T00:00:00+00:00"),
        ("30/09/2018", "%d/%m/%Y", "2018-09-30T00:00:00+00:00"),
        ("20180930", "%Y%m%d", "2018-09-30T00:00:00+00:00"),
    ],
)
def test_a_date_is_its_seconds_since_1970(text: str, form: str | None, moment: str) -> None:
    assert read_time(text, form) == (datetime.fromisoformat(moment).timestamp(), True)


@pytest.mark.parametrize(("text", "number"), [("2018", 2018.0), ("-0.5", -0.5), ("20180930", 20180930.0)])
def test_a_number_is_itself(text: str, number: float) -> None:
    assert read_time(text, None) == (number, False)


@pytest.mark.parametrize("text", ["yesterday", "30/09/2018", "2018-13-01", "inf", "1e999"])
def test_what_is_neither_is_refused_with_examples(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is neither a number nor a date in ISO 8601, such as 2018-09-30 or"
    ):
        read_time(text, None)


def test_another_than_the_named_format_is_refused_by_it() -> None:
    with pytest.raises(ValueError, match="is not a date of the format %d/%m/%Y"):
        read_time("09/30/2018", "%d/%m/%Y")


@pytest.mark.parametrize(
    "text", ["2018-09-30", "2018-09-30 14:05:06", "1066-10-14", "2018", "0.25", "20180930"]
)
def test_a_time_is_shown_as_it_is_written(text: str) -> None:
    time, dated = read_time(text, None)
    assert time_text(time, dated=dated) == text
