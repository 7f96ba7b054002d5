from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data import Table
from training.reading import read_table
from training.recipe import make_recipe
from training.remarks import Remark, remarks_on
from training.splits import Fold, split_at_random

ROWS = 400


def clean() -> dict[str, list[str]]:
    """A table of noise: numbers, small whole numbers, a unit and categories."""
    rng = np.random.default_rng(0)
    return {
        "x": [f"{value:.6f}" for value in rng.normal(size=ROWS)],
        "rooms": [str(value) for value in rng.integers(0, 9, ROWS)],
        "year": [str(value) for value in np.sort(rng.integers(1950, 2020, ROWS))],
        "run": [f"{value} km" for value in rng.integers(0, 999, ROWS)],
        "c": [str(value) for value in rng.choice(["a", "b", "c"], ROWS)],
        "y": [f"{value:.6f}" for value in rng.normal(size=ROWS)],
    }


def read(folder: Path, columns: dict[str, list[str]], **fields: Any) -> Table:
    lines = [",".join(row) for row in zip(*columns.values(), strict=True)]
    path = folder / "table.csv"
    path.write_text("\n".join([",".join(columns), *lines, ""]))
    features = [
        {"name": name, "kind": "categorical" if name == "c" else "numeric"} for name in columns if name != "y"
    ]
    return read_table(path, make_recipe({"target": {"name": "y"}, "features": features} | fields))


def remarks(folder: Path, columns: dict[str, list[str]], **fields: Any) -> tuple[Remark, ...]:
    table = read(folder, columns, **fields)
    held_out = split_at_random(table.rows, 0.2, seed=0)
    return remarks_on(table, [Fold(~held_out, held_out)])


def changed(name: str, change: dict[int, str]) -> dict[str, list[str]]:
    """The clean table with other cells in a column, by row."""
    columns = clean()
    columns[name] = [change.get(row, cell) for row, cell in enumerate(columns[name])]
    return columns


def test_a_clean_table_has_no_remarks(tmp_path: Path) -> None:
    assert remarks(tmp_path, clean()) == ()


def test_rows_that_are_left_out_are_told_with_what_would_keep_them(tmp_path: Path) -> None:
    columns = changed("x", {3: "", 5: "NA", 7: ""}) | {"y": changed("y", {7: "", 8: ""})["y"]}
    x, y, whole = remarks(tmp_path, columns)
    assert x == Remark(
        column="x",
        found="x is empty in 3 rows, which are left out of 400",
        rows=3,
        advice="--missing mean, or missing = 'indicator' in a recipe, keeps them",
    )
    assert y.words == (
        "y is empty in 2 rows, which are left out of 400. Nothing can be learned from a row without it."
    )
    assert (whole.found, whole.rows) == ("4 of 400 rows are left out in all, most of them for x", 4)
    assert [remark.column for remark in remarks(tmp_path, columns, missing="mean")] == ["y"]


def test_a_weight_of_0_and_a_row_without_a_time_are_told_as_what_they_are(tmp_path: Path) -> None:
    columns = clean()
    columns["w"] = ["0", "1 kg", "2", ""] * (ROWS // 4)
    columns["t"] = [str(row) if row else "" for row in range(ROWS)]
    features = [{"name": "x"}]
    found = remarks(tmp_path, columns, features=features, weight="w", split="time:t", holdout=0.3)
    assert [(remark.column, remark.rows) for remark in found] == [("w", 200), ("t", 1), (None, 200)]
    assert "w is empty or 0 in 200 rows" in found[0].found
    assert found[1].advice == "Every row needs a value to be split or weighed by"


def test_copies_of_rows_are_told_and_those_on_both_sides_of_the_split(tmp_path: Path) -> None:
    columns = {name: cells + cells[:50] for name, cells in clean().items()}
    table = read(tmp_path, columns)
    held_out = split_at_random(table.rows, 0.2, seed=0)
    copies, flattered = remarks_on(table, [Fold(~held_out, held_out)])
    assert copies.rows == 50
    assert "copies of others" in copies.found
    on_both_sides = sum(held_out[row] != held_out[ROWS + row] for row in range(50))
    assert flattered.rows == on_both_sides > 0
    assert remarks_on(table) == (copies,)


def test_rows_that_are_alike_by_chance_are_no_copies(tmp_path: Path) -> None:
    columns = {name: clean()[name] for name in ("rooms", "c")} | {"y": clean()["rooms"][::-1]}
    assert not [remark for remark in remarks(tmp_path, columns) if "copies" in remark.found]


@pytest.mark.parametrize("scale", [1.0, -0.001])
def test_a_copy_of_the_target_is_told(tmp_path: Path, scale: float) -> None:
    columns = clean()
    columns["x"] = [f"{scale * float(cell) + 3:.9f}" for cell in columns["y"]]
    (remark,) = remarks(tmp_path, columns)
    assert (remark.column, remark.rows) == ("x", ROWS)
    assert "x is nearly a copy of y: their correlation is 1.000000" in remark.found


def test_an_input_that_goes_with_the_target_is_no_copy(tmp_path: Path) -> None:
    columns = clean()
    columns["x"] = [
        f"{float(cell) + 0.1 * float(noise)}" for cell, noise in zip(columns["y"], columns["x"], strict=True)
    ]
    assert remarks(tmp_path, columns) == ()


@pytest.mark.parametrize("start", [0, 1])
def test_a_row_number_among_the_inputs_is_told_even_with_rows_left_out(tmp_path: Path, start: int) -> None:
    columns = clean() | {"x": [str(start + row) for row in range(ROWS)]}
    columns["y"] = changed("y", {3: "", 9: ""})["y"]
    found = [remark for remark in remarks(tmp_path, columns) if remark.column == "x"]
    assert [remark.found for remark in found] == ["x counts the rows"]


def test_an_identifier_among_the_inputs_is_told(tmp_path: Path) -> None:
    columns = {"house_id": [str(7919 * row % 10007) for row in range(ROWS)], **clean()}
    (remark,) = remarks(tmp_path, columns)
    assert "house_id has the name and the values of an identifier" in remark.found


@pytest.mark.parametrize("number", ["-9999", "-200", "999", "99999"])
def test_a_number_that_stands_for_a_missing_one_is_told(tmp_path: Path, number: str) -> None:
    (remark,) = remarks(tmp_path, changed("x", dict.fromkeys(range(0, ROWS, 50), number)))
    assert (remark.column, remark.rows) == ("x", 8)
    assert f"x is {number} in 8 rows, far from" in remark.found
    assert remark.advice.endswith(f"--missing-word {number}")


def test_a_single_number_far_away_stands_for_itself(tmp_path: Path) -> None:
    assert remarks(tmp_path, changed("x", {5: "9999"})) == ()


def test_several_units_are_told_and_units_that_some_numbers_lack(tmp_path: Path) -> None:
    (remark,) = remarks(tmp_path, changed("run", {3: "19M", 4: "201k", 5: "7"}))
    assert remark.found == (
        "run has several units, read as one: km (397 rows), M (1 rows), k (1 rows), none (1 rows)"
    )
    assert remark.rows == ROWS


@pytest.mark.parametrize(("name", "value", "shown"), [("rooms", "2", "2"), ("c", "a", "'a'")])
def test_a_column_that_is_nearly_constant_is_told(tmp_path: Path, name: str, value: str, shown: str) -> None:
    columns = clean()
    others = {7: columns[name][7], 8: "1" if name == "rooms" else "b", 9: "3" if name == "rooms" else "c"}
    columns[name] = [others.get(row, value) for row in range(ROWS)]
    (remark,) = remarks(tmp_path, columns)
    same = columns[name].count(value)
    assert (remark.column, remark.rows) == (name, same)
    assert remark.found == f"{name} is {shown} in {same} of 400 rows"


def test_a_column_whose_name_is_nearly_that_of_one_that_is_used_is_told(tmp_path: Path) -> None:
    columns = clean()
    lines = [",".join(row) for row in zip(*columns.values(), columns["x"], strict=True)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([",".join([*columns, "Y "]), *lines, ""]))
    recipe = make_recipe({"target": {"name": "y"}, "features": [{"name": "x"}]})
    (remark,) = remarks_on(read_table(path, recipe))
    assert (remark.column, remark.rows) == ("y", ROWS)
    assert remark.found == "beside 'y' there is 'Y ', which differs in case or blanks alone"
