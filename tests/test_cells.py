import pytest

from model_store.cells import read_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", (5.0, "")),
        (" -3.25 ", (-3.25, "")),
        ("+.5", (0.5, "")),
        ("1e3", (1000.0, "")),
        ("2.5E-1 kg", (0.25, "kg")),
        ("19.67 kmpl", (19.67, "kmpl")),
        ("26.6 km/kg", (26.6, "km/kg")),
        ("1,582 CC", (1582.0, "CC")),
        ("1,00,000.5 km", (100000.5, "km")),
        ("12%", (12.0, "%")),
        ("5 m2", (5.0, "m2")),
        ("0.1", (0.1, "")),
        ("1e400", (float("inf"), "")),
    ],
)
def test_a_number_is_read_with_the_unit_behind_it(text: str, expected: tuple[float, str]) -> None:
    assert read_number(text) == expected


@pytest.mark.parametrize("text", ["", "  ", "-", "null bhp", "NaN", "n/a", "None", "NA", "null"])
def test_words_for_nothing_are_missing_values_with_or_without_a_unit(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize("text", ["abc", "red 5", "kmpl", "--5", ",5", "1 2", "$5", "e5", "1,5", "1,5820"])
def test_what_is_not_a_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        read_number(text)


@pytest.mark.parametrize("text", ["2019-05-01", "12:30", "1.2.3", "3/4", "1 582"])
def test_dates_times_fractions_and_split_digits_are_no_numbers_with_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        read_number(text)
