import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.cells import LONGEST_CELL, DecimalMark, read_number, read_numbers


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
        ("-inf", (float("-inf"), "")),
        ("$2.39", (2.39, "$")),
        ("-$5", (-5.0, "$")),
        ("$-5", (-5.0, "$")),
        ("€ 5", (5.0, "€")),
        ("5 €", (5.0, "€")),
        ("£1,250.50 pcm", (1250.5, "£ pcm")),
        ("12 %", (12.0, "%")),
        ("10,000+", (10000.0, "+")),
        ("1'582.5 CHF", (1582.5, "CHF")),
        ("1\u202f582", (1582.0, "")),
    ],
)
def test_a_number_is_read_with_the_unit_behind_it(text: str, expected: tuple[float, str]) -> None:
    assert read_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", (5.0, "")),
        ("12,5", (12.5, "")),
        ("0,125", (0.125, "")),
        (",5", (0.5, "")),
        ("1.234,5", (1234.5, "")),
        ("1.500", (1500.0, "")),
        ("1,500", (1.5, "")),
        ("1.234.567", (1234567.0, "")),
        ("1 234,5 km", (1234.5, "km")),
        ("-1,5e3", (-1500.0, "")),
        ("2,39 €", (2.39, "€")),
    ],
)
def test_a_number_is_read_with_a_decimal_comma(text: str, expected: tuple[float, str]) -> None:
    assert read_number(text, ",") == expected


@pytest.mark.parametrize("text", ["12.5", "0.125", "1.2", "1.2345", "1,234,567", "1.00.000"])
def test_what_is_no_number_with_a_decimal_comma_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        read_number(text, ",")


@pytest.mark.parametrize("text", ["", "  ", "-", "null bhp", "NaN", "n/a", "None", "NA", "null"])
def test_words_for_nothing_are_missing_values_with_or_without_a_unit(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    "text", ["abc", "red 5", "kmpl", "--5", ",5", "0,125", "5+3", "1 2", "$", "e5", "1,5", "1,5820"]
)
def test_what_is_not_a_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        read_number(text)


@pytest.mark.parametrize("text", ["2019-05-01", "12:30", "1.2.3", "3/4", "1 582"])
def test_dates_times_fractions_and_split_digits_are_no_numbers_with_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        read_number(text)


def test_every_word_that_is_missing_for_pandas_is_missing_here() -> None:
    words = (
        "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"
    )
    cells = words.split("|")
    assert pd.read_csv(io.StringIO("x\n" + "\n".join(cells)))["x"].isna().all()
    assert {read_number(cell) for cell in cells + [cell.swapcase() for cell in cells]} == {None}


def test_missing_words_of_a_column_are_missing_in_any_case_and_numbers_among_them_by_value() -> None:
    cells = ["?", "VARIES", "-999", "-999.0", "5", "bhp", "7 bhp"]
    numbers = read_numbers(cells, ".", ("?", "varies", "-999", "bhp"))
    np.testing.assert_array_equal(numbers.column, [np.nan] * 4 + [5, np.nan, 7])
    assert not numbers.unreadable
    assert numbers.units == {"bhp": 1}
    plain = read_numbers(["-999", "5"], ".", ("-999",))
    np.testing.assert_array_equal(plain.column, [np.nan, 5])


def test_cells_that_are_no_numbers_are_told_by_position() -> None:
    numbers = read_numbers(["1", "red", "", "NA", "2 km", "x"])
    np.testing.assert_array_equal(numbers.column, [1, np.nan, np.nan, np.nan, 2, np.nan])
    assert numbers.unreadable == [1, 5]


@pytest.mark.parametrize("decimal", [".", ","])
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_read_to_the_last_bit_alone_or_beside_any_cell(
    decimal: DecimalMark, values: list[float]
) -> None:
    cells = [repr(value).replace(".", decimal) for value in values]
    assert read_numbers(cells, decimal).column.tolist() == values
    assert read_numbers([*cells, "1 km"], decimal).column.tolist()[:-1] == values


@pytest.mark.parametrize("cells", [["1\n2", ""], ["1,2", ""], ["null"], ["1", "]"], ["[1]"], ["1,2,3"]])
def test_no_cell_is_read_as_two_or_moves_its_neighbours(cells: list[str]) -> None:
    found = [read_numbers([cell]) for cell in cells]
    numbers = read_numbers(cells)
    np.testing.assert_array_equal(numbers.column, np.concatenate([each.column for each in found]))
    assert list(numbers.unreadable) == [k for k, each in enumerate(found) if each.unreadable]


def test_a_long_number_is_read_and_any_other_long_cell_is_not() -> None:
    digits = "0." + "1" * LONGEST_CELL
    assert read_number(digits) == (float(digits), "")
    with pytest.raises(ValueError, match="is not a number"):
        read_number(f"5 {'x' * LONGEST_CELL}")


@pytest.mark.parametrize("repeated", ["1", "1,", "1,000", "1.000", " ", "$", "-", "1 000", "'", "e1"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_a_long_cell_does_not_take_time_in_proportion_to_the_square_of_its_length(
    repeated: str, decimal: DecimalMark
) -> None:
    cell = repeated * (2_000_000 // len(repeated)) + "x"
    assert read_numbers([cell], decimal).unreadable == [0]
