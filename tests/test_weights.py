"""What is said of a line's weights: in the terminal, in `--json`, in the report and in the manifest."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model_store.store import open_store
from training.__main__ import main
from training.reading import read_table
from training.recipe import make_recipe
from training.train import Model, train
from training.weights import most_rank, rank_warning, weights_of

ROWS, CITIES = 240, ("Ulm", "Bonn", "Nice", "Lyon")


def homes() -> pd.DataFrame:
    """Two numbers, two categories of which one follows from the other, and a price."""
    rng = np.random.default_rng(2)
    city = rng.choice(CITIES, ROWS)
    table = pd.DataFrame({"area": rng.normal(90, 20, ROWS), "age": rng.uniform(0, 50, ROWS), "city": city})
    table["state"] = table["city"].map({"Ulm": "D", "Bonn": "D", "Nice": "F", "Lyon": "F"})
    table["price"] = 2 * table["area"] - table["age"] + rng.normal(0, 5, ROWS)
    return table


def model(tmp_path: Path, table: pd.DataFrame, **fields: Any) -> Model:
    path = tmp_path / "homes.csv"
    table.to_csv(path, index=False)
    kinds = {name: "numeric" if table[name].dtype.kind == "f" else "categorical" for name in table}
    features = [{"name": name, "kind": kind} for name, kind in kinds.items() if name != "price"]
    asked = {"target": {"name": "price"}, "features": features, "schedule": {"optimizer": "exact"}, **fields}
    return train(made := make_recipe(asked), read_table(path, made))


def test_a_full_set_of_categories_is_no_reason_to_warn(tmp_path: Path) -> None:
    found = model(tmp_path, homes()[["area", "age", "city", "price"]])
    assert (found.line.rank, most_rank(found), rank_warning(found)) == (6, 6, None)
    errors = {weight.name.partition(":")[0]: weight.error for weight in weights_of(found)}
    assert errors["z-score of area"] == pytest.approx(5 / np.sqrt(ROWS), rel=0.2)
    assert errors["bias"] is None
    assert errors["city = Ulm"] is None


@pytest.mark.parametrize("apart", [0.0, 1e-14])
def test_a_near_copy_and_a_category_that_follows_are_named_with_what_to_do(
    tmp_path: Path, apart: float
) -> None:
    table = homes()
    area = table["area"].to_numpy()
    table.insert(1, "surface", area * (1 + apart * np.random.default_rng(3).normal(size=ROWS)))
    found = model(tmp_path, table)
    assert (found.line.rank, most_rank(found)) == (6, 8)
    said = rank_warning(found) or ""
    assert {"area, surface", "city, state"} <= set(re.split("; |: |\\. ", said))
    assert "age" not in said
    assert "lines that do not hang on their last digits" in said
    assert "--exclude one of each" in said
    errors = {weight.name.partition(":")[0]: weight.error for weight in weights_of(found)}
    assert errors["z-score of area"] is None
    assert errors["z-score of age"] is not None


def test_columns_that_miss_values_together_are_named_by_what_is_the_same(tmp_path: Path) -> None:
    table = homes()[["area", "age", "price"]]
    table.loc[::7, ["area", "age"]] = np.nan
    features = [{"name": name, "missing": "indicator"} for name in ("area", "age")]
    said = rank_warning(model(tmp_path, table, features=features)) or ""
    assert "from one another: area is missing, age is missing. The rows" in said


def test_fewer_rows_than_weights_are_said_to_be_too_few(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["price", *(f"x{number}" for number in range(12))]
    table = pd.DataFrame(rng.normal(size=(10, 13)), columns=names)
    found = model(tmp_path, table)
    assert "The 10 rows are too few to tell 13 weights apart" in (rank_warning(found) or "")
    assert {weight.error for weight in weights_of(found)} == {None}


@pytest.mark.parametrize(("epochs", "is_sure"), [(400, True), (4, False)])
def test_a_descent_has_standard_errors_where_it_has_arrived(
    tmp_path: Path, epochs: int, is_sure: bool
) -> None:
    found = model(tmp_path, homes()[["area", "age", "price"]], schedule={"epochs": epochs})
    assert all((weight.error is not None) == is_sure for weight in weights_of(found))


def test_raw_inputs_have_the_standard_errors_of_z_scores(tmp_path: Path) -> None:
    table = homes()[["area", "age", "price"]]
    raw, scored = (
        weights_of(model(tmp_path, table, schedule={"optimizer": "exact", "normalize": normalize}))
        for normalize in ("none", "z-score")
    )
    assert raw == scored


def fit(tmp_path: Path, *options: str) -> tuple[Path, Path]:
    path, store = tmp_path / "homes.csv", tmp_path / "models"
    homes().to_csv(path, index=False)
    assert main(["fit", str(path), "--target", "price", "--store", str(store), *options]) == 0
    return path, store


def test_the_terminal_shows_errors_rank_and_condition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, "--feature", "area", "--feature", "age", "--optimizer", "exact")
    output = capsys.readouterr().out
    assert re.search(r"^W = \d+\.\d{3} ± 0\.\d{3}  \(z-score of area", output, re.MULTILINE)
    assert re.search(r"^b = \d+\.\d{3} ± 0\.\d{3}$", output, re.MULTILINE)
    z = homes()[["area", "age"]].corr().to_numpy()
    condition = np.sqrt(np.linalg.cond(z))
    assert f"  rank 3 of 3, condition number {condition:.3g}\n" in output
    assert "least-squares line's" not in output
    assert "follow from one another" not in output


def test_json_manifest_and_report_tell_what_the_rows_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, store = fit(tmp_path, "--optimizer", "exact", "--json")
    facts = json.loads(capsys.readouterr().out)
    assert "city, state" in facts["rank_warning"]
    weights, bias = facts["standard_errors"]["layers.0.weight"][0], facts["standard_errors"]["layers.0.bias"]
    assert len(weights) == len(facts["weights"]["layers.0.weight"][0])
    assert [error is None for error in weights] == [False, False] + [True] * 6
    assert bias == [None]
    version = open_store(str(store)).load("homes", 1)
    assert version.manifest.training.rank == facts["training"]["rank"] == 6
    assert version.manifest.training.condition == facts["training"]["condition"]
    page = html.unescape((store / "homes/versions/1/report.html").read_text())
    assert facts["rank_warning"] in page
    rows = re.findall(r'<th scope="row" class="name">(z-score of \w+|city = \w+)', page)
    assert rows == ["z-score of area", "z-score of age", *(f"city = {city}" for city in sorted(CITIES))]
    assert str(weights[0]) in page


def test_a_network_has_no_rank_and_no_weights_to_tell_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, "--network", "mlp", "--hidden", "2", "--epochs", "5", "--json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["standard_errors"] is None
    assert facts["rank_warning"] is None
    assert facts["training"]["rank"] is None
