"""A target is enough: what the commands find out of a table, what they tell, and what overrules it."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from model_store.store import open_store
from tests.conftest import only_json
from training.__main__ import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `python -m training ARGUMENTS…` in this process, which has torch already."""

    def command(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        output, errors = capsys.readouterr()
        return code, output, errors

    return command


def parsed(text: str) -> Any:
    return only_json(text)


def weights_file(store: Path, version: int) -> bytes:
    return (store / f"cars/versions/{version}/weights.safetensors").read_bytes()


def homes(folder: Path) -> Path:
    """A table of homes: row numbers, numbers, categories with rare and empty ones, days and free text."""
    rows = range(200)
    first = date(2019, 1, 1)
    columns = {
        "": rows,
        "size": [f"{40 + row * 37 % 90} m2" for row in rows],
        "place": [
            "" if row % 10 == 0 else "quay" if row == 1 else ("town", "harbour")[row % 2] for row in rows
        ],
        "sold": [(first + timedelta(days=row)).strftime("%m/%d/%Y") for row in rows],
        "advert": [f"a fine home of number {row}" for row in rows],
        "price": [500 + row * 7919 % 1009 for row in rows],
    }
    path = folder / "Fine homes.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_a_target_is_enough_and_what_was_decided_is_told(command: Command, tmp_path: Path) -> None:
    asked = ("fit", homes(tmp_path), "--store", tmp_path / "models", "--target", "price")
    code, output, errors = command(*asked)
    assert (code, errors) == (0, "")
    assert re.search(r"^size +number +40 to 129, m2", output, re.MULTILINE)
    assert re.search(r"^advert +left out +free text", output, re.MULTILINE)
    assert "fine-homes version 1 is in the store" in output
    assert re.findall(r"^(line|additive|ensemble) .* \d+\.\d", output, re.MULTILINE) == [
        "line",
        "additive",
        "ensemble",
    ]
    code, output, errors = command(*asked, "--network", "linear", "--json")
    assert (code, errors) == (0, "")
    said = parsed(output)
    assert [(each["column"], each["taken_as"]) for each in said["columns"]] == [
        ("column_1", "left out"),
        ("size", "number"),
        ("place", "category"),
        ("sold", "date"),
        ("advert", "left out"),
    ]
    assert said["remarks"] == []
    assert said["training"]["optimizer"] == "exact"
    size, place, sold = said["features"]
    assert (size["unit"], sold["format"]) == ("m2", "%m/%d/%Y")
    assert (place["missing"], place["other"]) == (20, 1)


def test_what_is_named_or_excluded_overrules_what_is_found_out(command: Command, tmp_path: Path) -> None:
    asked = ("fit", homes(tmp_path), "--store", tmp_path / "models", "--name", "homes", "--target", "price")
    overruled = ("--exclude", "sold", "--category", "size", "--rare", "2", "--optimizer", "gd")
    code, output, errors = command(*asked, *overruled, "--epochs", "3", "--json")
    assert (code, errors) == (0, "")
    said = parsed(output)
    assert [(each["name"], each["kind"]) for each in said["features"]] == [
        ("size", "categorical"),
        ("place", "categorical"),
    ]
    assert (said["training"]["optimizer"], said["training"]["epochs"]) == ("gd", 3)


def test_dates_may_be_named_with_their_format(command: Command, tmp_path: Path) -> None:
    table = homes(tmp_path)
    asked = ("fit", table, "--store", tmp_path / "models", "--target", "price", "--date")
    assert command(*asked, "sold=%m/%d/%Y", "--optimizer", "exact")[0] == 0
    manifest = open_store(str(tmp_path / "models")).load("fine-homes", 1).manifest
    assert [feature.name for feature in manifest.features] == ["sold"]
    code, _, errors = command(*asked, "sold")
    assert code == 3
    assert "row 1 has '01/01/2019', which is not a date (ISO 8601)" in errors


def test_comparing_tells_what_it_found_out(command: Command, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    asked = ("compare", homes(tmp_path), "--target", "price", "--epochs", "2", "--output", page, "--json")
    code, output, errors = command(*asked)
    assert (code, errors) == (0, "")
    assert [each["taken_as"] for each in parsed(output)["columns"]].count("left out") == 2


def test_a_recipe_of_a_version_is_fitted_again_on_any_table_like_it(command: Command, tmp_path: Path) -> None:
    store = tmp_path / "models"
    table = homes(tmp_path)
    asked = ("--name", "cars", "--target", "price", "--network", "linear")
    assert command("fit", table, "--store", store, *asked)[0] == 0
    recipe = tmp_path / "recipe.toml"
    recipe.write_bytes((store / "cars/versions/1/recipe.toml").read_bytes())
    elsewhere = table.rename(tmp_path / "elsewhere.csv")
    assert command("fit", recipe, "--store", store)[0] == 3
    code, _, errors = command("fit", recipe, "--data", elsewhere, "--store", store)
    assert (code, errors) == (0, "")
    assert weights_file(store, 1) == weights_file(store, 2)
