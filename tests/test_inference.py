from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.manifest import TimeSplit
from training.data import DataError
from training.inference import Decision, closed, infer
from training.reading import study_columns, table_at
from training.recipe import InputColumn, Recipe, TableOptions, make_recipe
from training.study import Cells, Piece, study

ROWS = 60


def recipe(**fields: Any) -> Recipe:
    return make_recipe({"target": {"name": "y"}, **fields})


def decided(pieces: Sequence[Piece], **fields: Any) -> dict[str, Decision]:
    return {decision.name: decision for decision in infer(study(pieces).values(), recipe(**fields))}


def decision(cells: Cells, name: str = "x", **fields: Any) -> Decision:
    """What a column is taken for that is not the first of its table."""
    table = {"y": [str(row * row) for row in range(len(cells))], name: cells}
    return decided([table], **fields)[name]


def repeated(*texts: str, rows: int = ROWS) -> list[str]:
    return [texts[row % len(texts)] for row in range(rows)]


def days(form: str, rows: int = ROWS, step: int = 1) -> list[str]:
    return [(date(2017, 12, 1) + timedelta(days=step * row)).strftime(form) for row in range(rows)]


def number(**fields: Any) -> InputColumn:
    return InputColumn(name="x", **fields)


def test_numbers_are_numbers() -> None:
    found = decision([f"{row % 7 - 2.5}" for row in range(ROWS)])
    assert found == Decision("x", number(), "-2.5 to 3.5")
    assert found.words == "number"


def test_numbers_may_have_units() -> None:
    found = decision([f"{row % 7}.5 kmpl" for row in range(50)] + ["9 km/kg"] * 10)
    assert found == Decision("x", number(), "0.5 to 9, kmpl or km/kg")


def test_digits_of_one_length_with_zeros_in_front_are_codes() -> None:
    assert decision(repeated("02134", "90210")).taken_as == InputColumn(name="x", kind="categorical")
    found = decision([f"{row * 37:05}" for row in range(ROWS)])
    assert (found.taken_as, found.why[:14]) == (None, "they are codes")
    assert decision(repeated("0", "5", "05")).taken_as == number()
    assert decision(repeated("0.5", "1.5")).taken_as == number()
    assert decision(repeated("00", "10")).taken_as == number()


@pytest.mark.parametrize("negative", ["(1,234.50)", "17-"])
def test_negative_numbers_of_accounts_are_not_taken_for_missing_ones(negative: str) -> None:
    found = decision([*[f"{row % 7}" for row in range(ROWS - 1)], negative])
    assert (found.taken_as, found.why) == (
        None,
        f"{negative!r} seems to be a negative number: write it with a minus in front",
    )


def test_columns_of_one_name_are_left_out_and_told(tmp_path: Path) -> None:
    rows = "".join(f"{row % 7},{row},{row % 5}\n" for row in range(ROWS))
    path = tmp_path / "table.csv"
    path.write_text(f"x,y,x\n{rows}")
    with table_at(path) as source:
        (found,) = infer(study_columns(source, TableOptions(), ["y"]), recipe())
        assert found == Decision("x", None, "several columns have this name: rename all but one")
        with pytest.raises(DataError, match="has 2 columns named 'x': rename all but one"):
            study_columns(source, TableOptions(), ["x"])


def test_many_units_are_names_of_things() -> None:
    cells = [f"{row % 3}{'abcdfghi'[row % 8]}" for row in range(480)]
    assert decision(cells).taken_as == InputColumn(name="x", kind="categorical")


def test_words_with_a_number_each_in_front_are_categories() -> None:
    found = decision(repeated("1. White", "2. Black", "3. Asian"))
    assert found.taken_as == InputColumn(name="x", kind="categorical")
    found = decision([*repeated("1. White", "2. Black", rows=40), *repeated("", "NA", rows=20)])
    assert found.taken_as == InputColumn(name="x", kind="categorical")
    assert decision(repeated("1 day", "2 days", "3 days")).taken_as == number()
    assert decision(repeated("12 months", "24 months")).taken_as == number()


def test_missing_numbers_are_told_by_a_column_of_their_own() -> None:
    found = decision([f"{row % 7}" if row % 5 else "NA" for row in range(ROWS)])
    assert found.taken_as == number(missing="indicator")
    assert found.why == "0 to 6; 12 of 60 rows have none: a column of its own tells"


@pytest.mark.parametrize("word", ["?", "Varies with device", "bhp"])
def test_a_few_words_among_numbers_count_as_missing(word: str) -> None:
    found = decision([f"{row % 7}" if row % 20 else word for row in range(ROWS)])
    assert found.taken_as == number(missing="indicator", missing_words=(word,))
    assert f"{word!r} in 3 rows counts as missing" in found.why


def test_many_words_among_numbers_make_categories() -> None:
    cells = [f"{row % 3}" if row % 10 else "more" for row in range(ROWS * 2)]
    assert decision(cells).taken_as == InputColumn(name="x", kind="categorical")


def test_texts_that_many_rows_share_are_categories_with_their_empty_and_rare_ones() -> None:
    found = decision([*repeated("a", "b", "", rows=57), "c", "d", "c"])
    assert found.taken_as == InputColumn(name="x", kind="categorical")
    assert found.why == (
        "4 different texts, 2 of them with fewer than 10 rows are one: other; "
        "19 rows have none, which is a category of its own"
    )
    assert found.words == "category"


def test_na_and_none_are_words_among_words() -> None:
    assert decision(repeated("NA", "Grvl", "None")).why == "3 different texts"


def test_how_rare_is_rare_can_be_said() -> None:
    cells = repeated("a", "b", "c", "d", rows=16)
    assert decision(cells).taken_as is None
    assert decision(cells, rare=4).taken_as == InputColumn(name="x", kind="categorical")


@pytest.mark.parametrize("texts", [("True", "False"), ("true", "FALSE", "false")])
def test_trues_and_falses_are_booleans(texts: tuple[str, ...]) -> None:
    assert decision(repeated(*texts)).taken_as == InputColumn(name="x", kind="boolean")


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("%Y-%m-%d", None),
        ("%Y-%m-%d %H:%M:%S", None),
        ("%Y%m%dT%H%M%S", None),
        ("%Y%m%d", None),
        ("%d.%m.%Y", "%d.%m.%Y"),
        ("%b %d, %Y", "%b %d, %Y"),
        ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M:%S %p"),
        ("%d-%b-%y", "%d-%b-%y"),
    ],
)
def test_dates_are_found_in_their_format(written: str, form: str | None) -> None:
    found = decision(days(written))
    assert found.taken_as == InputColumn(name="x", kind="date", format=form)
    assert found.why == f"dates as {form or 'ISO 8601'}"


def test_numbers_of_eight_digits_are_dates_only_if_all_are() -> None:
    assert decision([*days("%Y%m%d"), "20179999"]).taken_as == number()


TWELFTHS = [f"{day:02}/{month:02}/2017" for month in range(1, 13) for day in range(1, 13)]


def test_the_order_of_the_rows_tells_the_day_from_the_month() -> None:
    found = decision(TWELFTHS)
    assert found.taken_as == InputColumn(name="x", kind="date", format="%d/%m/%Y")
    assert found.why == "dates as %d/%m/%Y, not %m/%d/%Y: so the rows are in the order of time"
    newest_first = decision(TWELFTHS[::-1])
    assert newest_first.taken_as == found.taken_as


def test_days_that_could_be_months_are_left_out_with_what_to_say() -> None:
    found = decision([*TWELFTHS[70:], *TWELFTHS[:70]])
    assert found.taken_as is None
    assert '--date "x=%d/%m/%Y", or "x=%m/%d/%Y"' in found.why


@pytest.mark.parametrize("hole", ["", "NA"])
def test_dates_that_are_missing_are_left_out_with_what_to_say(hole: str) -> None:
    found = decision([*days("%Y-%m-%d"), hole, hole])
    assert (found.taken_as, found.why) == (None, "dates, but 2 rows have none; --date drops these")


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ([""] * ROWS, "it is empty"),
        (["a"] * ROWS, "all rows have 'a'"),
        (["0"] * (ROWS - 3) + ["1", "2", ""], "only 3 of 60 rows have not '0'"),
        (["0"] * 20 + ["1", "2"] + ["NA"] * 38, "only 2 of 22 numbers differ from the most frequent one"),
        ([str(row) for row in range(ROWS)], "it counts the rows"),
        ([str(row + 1) for row in range(ROWS)], "it counts the rows"),
        ([f"c{row}" for row in range(ROWS)], "it tells the rows apart: nearly all texts differ"),
        ([f"a house in lane {row}" for row in range(ROWS)], "free text"),
        (repeated(*"abcdefghijkl"), "most rows have a text that fewer than 10 rows share"),
        ([f"c{row % 2000}" for row in range(22_000)], "more than 1,000 different texts"),
    ],
)
def test_what_is_no_use_is_left_out_with_the_reason(cells: list[str], why: str) -> None:
    found = decision(cells)
    assert found.taken_as is None
    assert found.words == "left out"
    assert why in found.why


@pytest.mark.parametrize("name", ["id", "ID", "Id", "house_id", "House ID", "HouseId", "PID", "uuid"])
def test_numbers_by_the_name_of_an_identifier_are_left_out(name: str) -> None:
    cells = [str(7919 * row % 10007) for row in range(ROWS)]
    assert "it tells the rows apart" in decision(cells, name).why
    assert decision(repeated("3", "4", "5"), name).taken_as is not None


@pytest.mark.parametrize("name", ["paid", "acid", "Grid", "humid", "idle", "price_index"])
def test_names_that_only_sound_like_identifiers_are_numbers(name: str) -> None:
    assert decision([str(7919 * row % 10007) for row in range(ROWS)], name).taken_as is not None


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "column_1"])
def test_a_first_column_without_a_name_that_tells_the_rows_apart_is_left_out(name: str) -> None:
    cells = [str(7919 * row % 10007) for row in range(ROWS)]
    assert decided([{name: cells, "y": cells}])[name].taken_as is None


def test_numbers_that_count_from_elsewhere_or_with_gaps_are_numbers() -> None:
    assert decision([str(1950 + row) for row in range(ROWS)]).taken_as == number()
    assert decision([str(row + row // 30) for row in range(ROWS)]).taken_as == number()


def test_what_a_person_named_stays_and_what_is_excluded_goes() -> None:
    piece = {name: repeated("1", "2") for name in ("y", "a", "b", "c")}
    found = decided(
        [piece], features=[{"name": "b", "kind": "categorical", "description": "B"}], exclude=["c"]
    )
    assert list(found) == ["a", "b", "c"]
    assert found["a"].words == "number"
    assert found["b"].taken_as == InputColumn(name="b", kind="categorical", description="B")
    assert (found["c"].taken_as, found["c"].why) == (None, "as was asked")


def test_what_rows_are_weighed_or_grouped_by_is_no_input_and_what_orders_them_is() -> None:
    piece = {name: repeated("1", "2", "3") for name in ("y", "w", "g", "t")}
    grouped = decided([piece], weight="w", split="group:g")
    assert [name for name, each in grouped.items() if each.taken_as] == ["t"]
    timed = decided([piece], split="time:t")
    assert [name for name, each in timed.items() if each.taken_as] == ["w", "g", "t"]


def test_pieces_of_any_length_give_the_same_decisions() -> None:
    rng = np.random.default_rng(0)
    table = {
        "n": [str(row) for row in range(150)],
        "d": [TWELFTHS[row % 144] for row in range(144)] + ["12/12/2017"] * 6,
        "x": [f"{value:.3f}" for value in rng.normal(size=150)],
        "c": [str(value) for value in rng.choice(["a", "b", ""], 150)],
    }
    pieces = [{name: cells[at : at + 7] for name, cells in table.items()} for at in range(0, 150, 7)]
    assert decided(pieces) == decided([table])


def test_typed_values_are_decided_on_as_their_texts() -> None:
    rng = np.random.default_rng(0)
    moments = np.datetime64("2020-01-01T05") + np.arange(ROWS) * np.timedelta64(36, "h")
    piece = {
        "y": rng.normal(size=ROWS),
        "whole": rng.integers(0, 9, ROWS),
        "real": np.where(np.arange(ROWS) % 5 == 0, np.nan, rng.normal(size=ROWS)),
        "flag": np.arange(ROWS) % 3 == 0,
        "moment": moments,
        "text": np.array(repeated("a", "b"), dtype=object),
        "holes": np.array([None, "a", "b", "c"] * 15, dtype=object),
        "row": np.arange(ROWS),
    }
    found = decided([piece])
    assert {name: decision.words for name, decision in found.items()} == {
        "whole": "number",
        "real": "number",
        "flag": "boolean",
        "moment": "date",
        "text": "category",
        "holes": "category",
        "row": "left out",
    }
    assert found["real"].taken_as == InputColumn(name="real", missing="indicator")


def test_a_decided_recipe_has_the_features_and_says_how_rare_and_new_categories_are_taken() -> None:
    open_recipe = recipe(exclude=["z"])
    assert open_recipe.is_open
    column = InputColumn(name="x")
    decided = closed(open_recipe, [Decision("x", column, ""), Decision("z", None, "")])
    assert not decided.is_open
    assert (decided.features, decided.exclude) == ((column,), ())
    assert (decided.rare, decided.new_categories) == (10, "other")


def test_where_new_categories_are_refused_rare_ones_stay_as_they_are() -> None:
    decided = closed(recipe(new_categories="refuse"), [Decision("x", InputColumn(name="x"), "")])
    assert (decided.rare, decided.new_categories) == (1, "refuse")


def test_rows_are_split_by_dates_in_the_format_that_was_found() -> None:
    column = InputColumn(name="day", kind="date", format="%d/%m/%Y")
    decided = closed(recipe(split="time:day"), [Decision("day", column, "")])
    assert decided.split == TimeSplit(column="day", format="%d/%m/%Y")


def test_weights_and_groups_are_inputs_only_if_they_are_named() -> None:
    table = {
        "y": [str(row * row) for row in range(ROWS)],
        "w": repeated("1", "2"),
        "g": repeated("a", "b", "c"),
    }
    fields = {"weight": "w", "split": "group:g", "exclude": ["z"]}
    found = decided([table], **fields)
    assert (found["w"].taken_as, found["g"].taken_as) == (None, None)
    assert decided([table], features=[{"name": "w"}], **fields)["w"].taken_as == InputColumn(name="w")


@pytest.mark.parametrize(
    ("fields", "optimizer"),
    [
        ({}, "exact"),
        ({"schedule": {"seed": 3}}, "exact"),
        ({"schedule": {"epochs": 3}}, "gd"),
        ({"schedule": {"optimizer": "adam"}}, "adam"),
        ({"network": {"hidden": [3]}}, "adam"),
    ],
)
def test_a_line_through_features_that_nobody_chose_is_solved_for(
    fields: dict[str, Any], optimizer: str
) -> None:
    decided = closed(recipe(**fields), [Decision("x", InputColumn(name="x"), "")])
    assert decided.schedule.optimizer == optimizer
