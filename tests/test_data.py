import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model_store.columns import Matrix
from training import pieces
from training.data import DataError, Table
from training.reading import read_table
from training.recipe import Recipe, TableOptions, make_recipe
from training.sources import folder_sha256
from training.splits import split_at_random


def table_file(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def recipe(inputs: str = "x", *, categories: str = "", **fields: Any) -> Recipe:
    """A recipe for the target y from inputs given as words."""
    features = [{"name": name} for name in inputs.split()]
    features += [{"name": name, "kind": "categorical"} for name in categories.split()]
    return make_recipe({"target": {"name": "y"}, "features": features, **fields})


def rows_of(table: Table) -> Matrix:
    return np.concatenate(list(table.blocks))


def read(folder: Path, text: str, inputs: str = "x", **fields: Any) -> Table:
    return read_table(table_file(folder, text), recipe(inputs, **fields))


def test_columns_come_in_the_recipes_order_and_the_target_last(tmp_path: Path) -> None:
    table = read(tmp_path, "y,z,other,x\n1,2,?,3\n4,5,?,6\n", "x z")
    assert rows_of(table).tolist() == [[3, 2, 1], [6, 5, 4]]
    assert table.target().tolist() == [1, 4]


@pytest.mark.parametrize("unit", ["", " km"])
def test_numbers_are_read_to_the_last_bit(tmp_path: Path, unit: str) -> None:
    rng = np.random.default_rng(0)
    numbers = (rng.normal(size=2000) * 10.0 ** rng.integers(-30, 30, 2000)).tolist()
    texts = [*map(repr, numbers), "0.1", "2.2250738585072014e-308", "1.7976931348623157e308"]
    table = read(tmp_path, "x,y\n" + "".join(f"{text}{unit},{row}\n" for row, text in enumerate(texts)))
    assert rows_of(table)[:, 0].tolist() == [float(text) for text in texts]


def test_rows_without_a_number_are_left_out_and_counted_by_column_those_without_a_category_stay(
    tmp_path: Path,
) -> None:
    table = read(tmp_path, "x,y,z,c\n1,2,,a\n,3,1,b\n2,,1,a\nnull km,-,1,a\n5,6,,\n7,8,,b\n", categories="c")
    assert rows_of(table)[:, [0, 2]].tolist() == [[1, 2], [5, 6], [7, 8]]
    assert table.dropped == {"x": 2, "y": 2}
    assert table.categories == {"c": {"a": 1, "b": 1}}
    assert table.empty == {"c": 1}
    assert table.columns(rows_of(table))["c"] == ["a", None, "b"]


def test_a_row_without_a_category_is_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    path = table_file(tmp_path, "y,c\n1,a\n2,\n3,b\n")
    features = [{"name": "c", "kind": "categorical", "missing": "drop"}]
    table = read_table(path, make_recipe({"target": {"name": "y"}, "features": features}))
    assert table.target().tolist() == [1, 3]
    assert table.dropped == {"c": 1}


def test_missing_mean_keeps_the_rows_that_have_a_target_and_their_categories(tmp_path: Path) -> None:
    text = "x,y,c\n1,2,a\n,3,b\n2,,a\n3,4,\n"
    table = read(tmp_path, text, categories="c", missing="mean")
    rows = [[1.0, 0.0, 2.0], [np.nan, 1.0, 3.0], [3.0, np.nan, 4.0]]
    assert np.array_equal(rows_of(table), np.array(rows), equal_nan=True)
    assert table.dropped == {"y": 1}


def test_units_are_taken_off_and_counted(tmp_path: Path) -> None:
    text = 'x,y,z\n19.67 kmpl,1 lakh,1\n26.6 km/kg,2,2\n18.2 kmpl,3 lakh,3\n"1,582 kmpl",4,\nnull kmpl,5,5\n'
    table = read(tmp_path, text)
    assert rows_of(table).tolist() == [[19.67, 1], [26.6, 2], [18.2, 3], [1582, 4]]
    assert table.units == {"x": {"kmpl": 3, "km/kg": 1}, "y": {"lakh": 2}}


def test_numbers_and_numbers_with_units_may_be_mixed_in_a_long_column(tmp_path: Path) -> None:
    rows = 90_000
    cells = [f"{row % 7}" if row < rows // 2 else f"{row % 7} km" for row in range(rows)]
    table = read(tmp_path, "x,y\n" + "".join(f"{cell},{row}\n" for row, cell in enumerate(cells)))
    assert rows_of(table)[:, 0].tolist() == [row % 7 for row in range(rows)]
    assert table.units == {"x": {"km": rows // 2}}


def test_categories_are_text_and_known_in_the_order_they_come(tmp_path: Path) -> None:
    table = read(tmp_path, "y,c\n1,007\n2,7\n3,007\n4,ñ\n", "", categories="c")
    assert table.categories == {"c": {"007": 2, "7": 1, "ñ": 1}}
    assert table.columns(table.blocks[0]) == {"c": ["007", "7", "007", "ñ"]}


def test_pieces_of_any_length_give_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{row % 5 or ''},{row},{'abc'[row % 3]}\n" for row in range(50)]
    path = table_file(tmp_path, "x,y,c\n" + "".join(lines))
    whole = read_table(path, recipe(categories="c"))
    monkeypatch.setattr(pieces, "PIECE_BYTES", 7)
    cut = read_table(path, recipe(categories="c"))
    assert np.array_equal(rows_of(cut), rows_of(whole))
    assert (cut.categories, cut.dropped) == (whole.categories, whole.dropped)
    assert cut.dropped == {"x": 10}


def test_a_byte_order_mark_does_not_hide_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfx,y\n1,2\n3,4\n")
    table = read_table(path, recipe())
    assert table.rows == 2
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "fields", "sentence"),
    [
        ("", {}, "is empty"),
        ("x,y\n", {}, "has 0 rows"),
        ("x,y\n1,2\n", {}, "has 1 rows"),
        ("x,y\n1,\n,2\n", {}, "has 0 rows"),
        ("X_value,y\n1,2\n2,3\n", {"inputs": "x_value"}, "did you mean 'X_value'"),
        ("x;y\n1;2\n", {}, "has 1 rows"),
        ("x,y\n1,2\nred,3\n", {}, "row 2 has 'red', which is not a number; for a column of categories"),
        ("x,y\n1,2\n3,2019-05-01\n", {}, "row 2 has '2019-05-01', which is not a number"),
        ("x,y\n1,2\ninf,3\n", {}, "row 2 has 'inf', which is not a finite number"),
        ("x,y\n1,2\n1e400 km,3\n", {}, "row 2 has '1e400 km', which is not a finite number"),
        ("x,x,y\n1,2,3\n", {}, "has 2 columns named 'x'"),
        ('x,y\n1,2\n"3,4\n', {}, "cannot be read as a table"),
        ("x,y\n1,2\n1,500,90\n", {}, "row 2: 2 cells are expected, 3 are there"),
        ("x,y\n1,2\n\n3\n", {}, "row 2: 2 cells are expected, 1 are there"),
        ("x,y\n1,500,90\n3,200,40\n", {}, "row 1: 2 cells are expected, 3 are there"),
        ("x;y\n1;2;\n3;4;5\n", {}, "row 1: 2 cells are expected, 3 are there"),
        ("X ,y\n1,2\n2,3\n", {}, "did you mean 'X ', which differs in case or blanks alone?"),
        ("1,2\n3,4\n", {}, "its first line holds numbers alone; if it is a row, say --no-header"),
        (
            "x,y\n1,2\n3,0\n",
            {"target": {"name": "y", "transform": "log"}},
            "row 2 has '0', which is not above",
        ),
        ("x,y\n1,-2 Rs\n3,1 Rs\n", {"target": {"name": "y", "transform": "log"}}, "row 1 has '-2 Rs'"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_a_sentence(
    tmp_path: Path, text: str, fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError) as refusal:
        read(tmp_path, text, **fields)
    assert sentence in str(refusal.value)
    assert "table.csv" in str(refusal.value)


def with_words(*words: str, rows: int) -> str:
    """A column of so many numbers, with words among them."""
    cells = [*map(str, range(rows // 2)), *words, *map(str, range(rows // 2, rows))]
    return "x,y\n" + "".join(f"{cell},{row}\n" for row, cell in enumerate(cells))


def test_few_other_words_in_a_column_of_numbers_stand_for_missing_values_and_are_told(tmp_path: Path) -> None:
    table = read(tmp_path, with_words("?", "Varies with device", "?", rows=200))
    assert rows_of(table)[:, 0].tolist() == list(range(200))
    assert (table.dropped, table.missing_words["x"]) == ({"x": 3}, ("?", "Varies with device"))
    assert table.missing_words["y"] == ()
    assert table.notes[1:] == (
        "x is nearly always a number: '?' (2 rows), 'Varies with device' (1 rows) count as missing",
    )


@pytest.mark.parametrize(
    ("words", "rows"),
    [(["?"], 98), (["?"] * 11, 200), ([f"word {n}" for n in "abcdefghijklmnopqrstu"], 1000)],
)
def test_words_in_few_numbers_or_too_many_words_are_refused(
    tmp_path: Path, words: list[str], rows: int
) -> None:
    with pytest.raises(DataError, match=f"row {rows // 2 + 1} has '(\\?|word a)', which is not a number"):
        read(tmp_path, with_words(*words, rows=rows))


def test_words_that_are_said_are_missing_in_every_column_of_numbers(tmp_path: Path) -> None:
    path = table_file(tmp_path, "x,y\n1,2\n?,3\n-999,4\n5,bhp\n7,8\n")
    table = read_table(path, recipe(table=TableOptions(missing_words=("?", "-999", "BHP"))))
    assert rows_of(table).tolist() == [[1, 2], [7, 8]]
    assert table.dropped == {"x": 2, "y": 1}


def test_a_name_that_no_request_could_spell_is_given_a_usable_one_and_told(tmp_path: Path) -> None:
    table = read_table(
        table_file(tmp_path, '"x ""mm""",y\n1,2\n3,4\n'),
        make_recipe({"target": {"name": "y"}, "features": [{"name": "x mm"}]}),
    )
    assert table.target().tolist() == [2, 4]
    assert table.notes[1] == "the column 'x \"mm\"' is called 'x mm'"


def test_a_number_that_could_be_two_is_told(tmp_path: Path) -> None:
    table = read(tmp_path, "x;y\n1,500;2\n2,500;3\n")
    assert rows_of(table)[:, 0].tolist() == [1500, 2500]
    assert table.notes[1] == (
        "it could be meant otherwise: '1,500' is 1500 with a decimal point and 1.5 with a decimal comma; "
        "say --decimal if it is wrong"
    )
    commas = read_table(tmp_path / "table.csv", recipe(table=TableOptions(decimal=",")))
    assert rows_of(commas)[:, 0].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        (b"1,\xff\n", {"inputs": "", "categories": "x"}),
        (b"1,5 m\xff\n", {}),
        (b"1,2\n" * 200 + b"1,\xff\n", {}),
    ],
)
def test_text_in_bytes_that_are_not_of_the_encoding_is_refused(
    tmp_path: Path, rows: bytes, fields: dict[str, Any]
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("y,x,é\n".encode() + rows.replace(b"\n", b",1\n"))
    with pytest.raises(DataError, match=r"'x' of .* is not utf-8 throughout: say --encoding"):
        read_table(path, recipe(**fields))


def test_a_row_is_counted_from_the_start_of_the_file_across_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10)
    lines = ["1,2\n"] * 37
    lines[33] = "abc,2\n"
    with pytest.raises(DataError, match="row 34 has 'abc'"):
        read(tmp_path, "x,y\n" + "".join(lines))


def test_a_thousand_categories_are_taken_and_one_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 300)
    lines = [f"{row},c{row}\n" for row in range(1001)]
    assert len(read(tmp_path, "y,c\n" + "".join(lines[:1000]), "", categories="c").categories["c"]) == 1000
    with pytest.raises(DataError, match="more than 1000 categories"):
        read(tmp_path, "y,c\n" + "".join(lines), "", categories="c")


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"x,y\n\xff\xfe,\x00\n")
    (tmp_path / "text.parquet").write_text("x,y\n1,2\n")
    (tmp_path / "folder").mkdir()
    for name in ("nowhere.csv", "nowhere.parquet", "binary.csv", "text.parquet", "folder"):
        with pytest.raises(DataError, match=name):
            read_table(tmp_path / name, recipe())


@pytest.fixture
def mixed() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "x": rng.normal(size=60),
            "w": [f"{row} kg" for row in range(60)],
            "c": rng.choice(["a", "b", "c"], 60),
            "y": np.arange(60),
        }
    )
    table.loc[3, "x"] = np.nan
    table.loc[5, ["w", "c"]] = None
    return table


def test_a_parquet_file_and_a_folder_of_them_equal_the_csv(tmp_path: Path, mixed: pd.DataFrame) -> None:
    mixed.to_csv(tmp_path / "table.csv", index=False)
    mixed.to_parquet(tmp_path / "table.parquet")
    (tmp_path / "folder").mkdir()
    mixed[:20].to_parquet(tmp_path / "folder" / "1.parquet")
    mixed[20:].to_parquet(tmp_path / "folder" / "2.parquet")
    tables = [
        read_table(tmp_path / name, recipe("x w", categories="c", missing="mean"))
        for name in ("table.csv", "table.parquet", "folder")
    ]
    assert tables[0].rows == 60
    assert tables[0].empty == {"c": 1}
    for table in tables[1:]:
        assert np.array_equal(rows_of(table), rows_of(tables[0]), equal_nan=True)
        assert (table.categories, table.units, table.dropped, table.empty) == (
            tables[0].categories,
            tables[0].units,
            {},
            {"c": 1},
        )
    assert len({table.sha256 for table in tables}) == 3


def test_a_folders_digest_changes_with_any_of_its_files(tmp_path: Path, mixed: pd.DataFrame) -> None:
    mixed[:20].to_parquet(tmp_path / "1.parquet")
    mixed[20:].to_parquet(tmp_path / "2.parquet")
    before = folder_sha256(tmp_path)
    assert folder_sha256(tmp_path) == before
    mixed[21:].to_parquet(tmp_path / "2.parquet")
    assert folder_sha256(tmp_path) != before


def test_a_split_holds_out_the_share_and_depends_on_the_seed() -> None:
    held_out = split_at_random(1001, 0.2, seed=3)
    assert held_out.shape == (1001,)
    assert held_out.sum() == 200
    assert np.array_equal(split_at_random(1001, 0.2, seed=3), held_out)
    assert not np.array_equal(split_at_random(1001, 0.2, seed=4), held_out)


def test_a_table_and_its_complement_take_every_row_once(tmp_path: Path) -> None:
    table = read(tmp_path, "x,y\n" + "".join(f"{row},{row}\n" for row in range(101)))
    held_out = split_at_random(101, 0.2, seed=0)
    taken = [rows_of(table.take(mask))[:, 0] for mask in (held_out, ~held_out)]
    assert [len(rows) for rows in taken] == [20, 81]
    assert sorted(np.concatenate(taken)) == list(range(101))


@pytest.mark.parametrize("inputs", ["x", "x w"])
def test_weights_are_kept_beside_the_rows_and_a_row_without_one_is_left_out(
    tmp_path: Path, inputs: str
) -> None:
    text = "x,y,w\n1,2,1.5\n2,3,0\n3,4,\n,5,7\n5,6,2\n"
    table = read(tmp_path, text, inputs, weight="w")
    assert table.blocks.weights is not None
    assert table.blocks.weights.tolist() == [1.5, 2]
    assert rows_of(table)[:, [0, -1]].tolist() == [[1, 2], [5, 6]]
    assert table.dropped == {"x": 1, "w": 2}
    taken = table.take(np.array([False, True])).blocks.weights
    assert taken is not None
    assert taken.tolist() == [2]


@pytest.mark.parametrize("cell", ["-1", "1e-31", "1e+31", "inf", "many"])
def test_what_is_no_weight_is_refused_by_its_row(tmp_path: Path, cell: str) -> None:
    with pytest.raises(
        DataError, match=rf"the column 'w' of .*: row 2 has '{re.escape(cell)}', which is (no|not a) "
    ):
        read(tmp_path, f"x,y,w\n1,2,1\n2,3,{cell}\n3,4,1\n", weight="w")


@pytest.mark.parametrize(
    ("cells", "times", "dated"),
    [
        ("1970-01-02 1970-01-01T00:00:30 1969-12-31", [86_400, 30, -86_400], True),
        ("2018 2017.5 -3", [2018, 2017.5, -3], False),
    ],
)
def test_times_are_numbers_or_dates_that_are_kept_beside_the_rows(
    tmp_path: Path, cells: str, times: list[float], dated: bool
) -> None:
    rows = "".join(f"{row},{row},{cell}\n" for row, cell in enumerate(cells.split()))
    table = read(tmp_path, f"x,y,t\n{rows}9,9,\n", split="time:t")
    assert table.split_by is not None
    assert (table.split_by.tolist(), table.dated) == (times, dated)
    assert table.dropped == {"t": 1}
    assert rows_of(table).shape == (3, 2)


def test_times_are_numbers_as_the_table_writes_them_and_may_be_missing(tmp_path: Path) -> None:
    table = read(tmp_path, "x;y;t\n1,5;2;500\n2,5;3;1.100,5\n4;5;NA\n", split="time:t")
    assert table.split_by is not None
    assert table.split_by.tolist() == [500, 1100.5]
    assert table.dropped == {"t": 1}


@pytest.mark.parametrize("target", ["good", "true", "2020-01-01"])
def test_a_target_that_is_no_number_is_refused_as_such(tmp_path: Path, target: str) -> None:
    sentence = f"row 1 has '{target}', which is not a number: only numbers can be predicted"
    with pytest.raises(DataError, match=sentence):
        read(tmp_path, f"x,y\n1,{target}\n2,{target}\n")


def test_a_negative_number_of_accounts_counts_for_no_missing_one(tmp_path: Path) -> None:
    rows = "".join(f"{row},{row}\n" for row in range(1, 201))
    with pytest.raises(DataError, match=r"row 201 has '\(5\.20\)', which is not a number"):
        read(tmp_path, f"x,y\n{rows}(5.20),3\n")


def test_dates_of_a_parquet_file_are_those_of_the_csv(tmp_path: Path) -> None:
    dates = pd.to_datetime(["2018-09-30 14:00", "2017-01-01 00:00", "2018-09-30 14:01"])
    frame = pd.DataFrame({"x": [1, 2, 3], "y": [3, 4, 6], "t": dates})
    frame.to_parquet(tmp_path / "table.parquet")
    frame.to_csv(tmp_path / "table.csv", index=False)
    asked = recipe(split="time:t")
    ours, theirs = (read_table(tmp_path / f"table.{form}", asked) for form in ("parquet", "csv"))
    assert ours.split_by is not None
    assert theirs.split_by is not None
    assert ours.split_by.tolist() == theirs.split_by.tolist()
    assert (ours.dated, theirs.dated) == (True, True)


def test_dates_of_a_named_format_are_read_by_it(tmp_path: Path) -> None:
    split = {"kind": "time", "column": "t", "format": "%d/%m/%Y"}
    table = read(tmp_path, "x,y,t\n1,2,02/01/1970\n2,3,01/02/1970\n", split=split)
    assert table.split_by is not None
    assert table.split_by.tolist() == [86_400, 31 * 86_400]


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ("2018-01-01 soon", "row 2 has 'soon', which is neither a number nor a date in ISO 8601"),
        ("2018-01-01 2018", "row 2 has '2018', which is a number, and the times before it are not"),
        ("2018 2018-01-01", "row 2 has '2018-01-01', which is a date, and the times before it are not"),
        ("01/02/2018 02/02/2018", "row 1 has '01/02/2018', which is neither"),
    ],
)
def test_what_is_no_time_is_refused_by_its_row(tmp_path: Path, cells: str, sentence: str) -> None:
    rows = "".join(f"{row},{row},{cell}\n" for row, cell in enumerate(cells.split()))
    with pytest.raises(DataError, match=f"the column 't' of .*: {sentence}"):
        read(tmp_path, f"x,y,t\n{rows}", split="time:t")


def test_groups_are_texts_however_the_pieces_of_a_long_file_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 12)
    groups = ["1", "2", "1", "A1", "1", "", "2", "01", "A1"]
    table = read(
        tmp_path, "x,y,g\n" + "".join(f"{row},{row},{g}\n" for row, g in enumerate(groups)), split="group:g"
    )
    assert table.split_by is not None
    assert table.split_by.tolist() == [0, 1, 0, 2, 0, 1, 3, 2]
    assert table.dropped == {"g": 1}


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_a_group_or_time_may_be_an_input_too(tmp_path: Path, kind: str) -> None:
    features = [{"name": "x"}, {"name": "g", "kind": kind}]
    path = table_file(tmp_path, "x,y,g\n1,2,7\n2,3,8\n3,5,7\n,9,8\n")
    for split in ("group:g", "time:g"):
        asked = {"target": {"name": "y"}, "features": features, "split": split, "missing": "mean"}
        table = read_table(path, make_recipe(asked))
        assert rows_of(table).shape == (4, 3)
        assert table.split_by is not None
        assert np.unique(table.split_by, return_inverse=True)[1].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("fields", [{"split": "time:no"}, {"split": "group:no"}, {"weight": "no"}])
def test_a_column_to_split_or_weight_by_that_is_not_there_is_named(
    tmp_path: Path, fields: dict[str, str]
) -> None:
    with pytest.raises(DataError, match="has no column 'no'"):
        read(tmp_path, "x,y\n1,2\n2,3\n", **fields)
