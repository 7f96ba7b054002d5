import html
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from model_store.errors import NothingPromoted
from model_store.explanation import explain
from model_store.store import open_store
from tests.conftest import only_json, run
from training.__main__ import main

ASKED = ("--target", "Price", "--feature", "Kilometers_Driven")
OPTIMIZERS = ["gd", "sgd", "momentum", "rmsprop", "adam"]


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `python -m training ARGUMENTS…` in this process, which has torch already."""

    def command(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        output, errors = capsys.readouterr()
        return code, output, errors

    return command


@pytest.fixture
def fit(command: Command) -> Command:
    return lambda table, store, *more: command("fit", table, "--name", "cars", "--store", store, *more)


def parsed(text: str) -> Any:
    return only_json(text)


def weights_file(store: Path, version: int) -> bytes:
    return (store / f"cars/versions/{version}/weights.safetensors").read_bytes()


def test_the_first_model_comes_out_as_published(cars: Path, tmp_path: Path) -> None:
    result = run(
        *("training", "fit", cars, "--name", "cars", "--store", tmp_path / "models", *ASKED),
        *("--optimizer", "gd", "--learning-rate", "0.1"),
    )
    output = result.stdout
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"^W = -0\.129 ± 0\.\d+  \(z-score", output, re.MULTILINE)
    assert re.search(r"^b = 9\.479 ± 0\.\d+$", output, re.MULTILINE)
    costs = [float(cost) for cost in re.findall(r"cost +([\d.]+)$", output, re.MULTILINE)]
    assert len(costs) > 8
    assert costs == sorted(costs, reverse=True)


def test_the_shipped_weights_are_the_optimum_on_all_rows(cars: Path, first_model: Path) -> None:
    table = pd.read_csv(cars)
    km, price = table["Kilometers_Driven"].to_numpy(float), table["Price"].to_numpy(float)
    slope = np.cov(km, price, bias=True)[0, 1] / km.std()
    version = open_store(str(first_model)).load_promoted("used-car-price")
    assert version.predictor.weights["layers.0.weight"].item() == pytest.approx(slope, abs=1e-9)
    assert version.predictor.weights["layers.0.bias"].item() == pytest.approx(price.mean(), abs=1e-9)
    training = version.manifest.training
    assert training.rows == 6019
    assert training.optimum == pytest.approx(price.var() - slope**2, rel=1e-9)
    assert training.cost == pytest.approx(price.var() - slope**2, rel=1e-9)
    assert version.manifest.metrics is not None
    assert version.manifest.metrics.rows == 6019


def test_training_again_gives_the_next_version_with_the_same_bits(
    fit: Command, cars: Path, tmp_path: Path
) -> None:
    store = tmp_path / "models"
    for expected in (1, 2):
        code, output, _ = fit(
            cars, store, *ASKED, "--feature", "Year", "--epochs", "3", "--optimizer", "adam"
        )
        assert code == 0
        assert f"cars version {expected} is in the store" in output
    assert weights_file(store, 1) == weights_file(store, 2)


def test_without_a_holdout_there_are_no_scores_and_no_interval(
    fit: Command, cars: Path, tmp_path: Path
) -> None:
    store = tmp_path / "models"
    assert fit(cars, store, *ASKED, "--holdout", "0", "--promote")[0] == 0
    manifest = open_store(str(store)).load_promoted("cars").manifest
    assert manifest.metrics is None
    assert manifest.interval is None


RECIPE = """\
data = "{data}"
name = "cars"
missing = "mean"
target = {{ name = "Price", transform = "log" }}
network = {{ kind = "mlp", hidden = [4] }}
schedule = {{ optimizer = "adam", learning_rate = 0.01, epochs = 3 }}
features = [{{ name = "Year" }}, {{ name = "Power" }}, {{ name = "Fuel_Type", kind = "categorical" }}]
"""


def test_a_recipe_gives_the_bits_of_the_same_options(
    command: Command, fit: Command, cars: Path, tmp_path: Path
) -> None:
    path, store = tmp_path / "recipe.toml", tmp_path / "models"
    path.write_text(RECIPE.format(data=cars))
    code, _, errors = command("fit", path, "--store", store)
    assert code == 0, errors
    code, _, errors = fit(
        cars,
        store,
        *("--target", "Price", "--target-transform", "log", "--missing", "mean", "--hidden", "4"),
        *("--feature", "Year", "--feature", "Power", "--category", "Fuel_Type"),
        *("--optimizer", "adam", "--learning-rate", "0.01", "--epochs", "3"),
    )
    assert code == 0, errors
    assert weights_file(store, 1) == weights_file(store, 2)
    manifest = open_store(str(store)).load("cars", 1).manifest
    assert manifest.features[1].model_dump()["unit"] == "bhp"
    assert manifest.target.transform == "log"
    assert manifest.training.missing == "mean"


def test_piecewise_a_line_bends_and_is_told_stored_explained_and_trained_again(
    fit: Command, command: Command, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 400)
    pd.DataFrame({"x": x, "Price": np.abs(x)}).to_csv(tmp_path / "v.csv", index=False)
    models = tmp_path / "models"
    code, output, errors = fit(
        *(tmp_path / "v.csv", models, "--target", "Price", "--feature", "x", "--number-encoding", "piecewise")
    )
    assert (code, errors) == (0, "")
    assert "(clipped z-score of x: mean" in output
    assert len(re.findall(r"^W = .*\(x near -?0\.\d+\)$", output, re.MULTILINE)) == 17
    version = open_store(str(models)).load("cars", 1)
    assert version.manifest.metrics
    assert version.manifest.metrics.model.r2 > 0.99
    served = version.predictor.predict({"x": [-0.75, 0.5]})
    assert served == pytest.approx([0.75, 0.5], abs=0.02)
    for row in (-0.9, 0.0, 3.0):
        explanation = explain(version.predictor, {"x": [row]})
        total = explanation.baseline + explanation.contributions["x"]
        assert total == pytest.approx(version.predictor.predict({"x": [row]})[0], abs=1e-9)
    assert "Line: the model's predictions." in html.unescape((version.report or b"").decode())
    code, output, errors = command("verify", "cars", "--store", models, "--version", 1, "--retrain")
    assert (code, errors) == (0, "")
    assert "trained again: the same bits" in output


def test_an_encoding_does_not_go_with_raw_inputs(fit: Command, cars: Path, tmp_path: Path) -> None:
    code, _, errors = fit(
        cars, tmp_path / "models", *ASKED, "--normalize", "none", "--number-encoding", "clipped"
    )
    assert code == 2
    assert "the encoding 'clipped' of numbers does not go with normalize 'none'" in errors


PRODUCT = ("--target", "Price", "--feature", "a", "--feature", "b")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two numbers that act on one another."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    path = tmp_path_factory.mktemp("product") / "product.csv"
    pd.DataFrame({"a": a, "b": b, "Price": 10 + a * b + rng.normal(size=200) / 10}).to_csv(path, index=False)
    return path


def test_what_was_tried_for_the_network_that_suits_is_in_json_and_in_the_recipe(
    fit: Command, command: Command, product: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    code, output, errors = fit(product, models, *PRODUCT, "--network", "auto", "--json")
    assert (code, errors) == (0, "")
    said = parsed(output)
    assert [trial["name"] for trial in said["trials"]] == ["line", "additive", "ensemble"]
    assert [trial["is_chosen"] for trial in said["trials"]] == [False, False, True]
    assert said["network"]["kind"] == "mlp"
    assert said["metrics"]["model"]["r2"] > 0.9
    assert said["metrics"]["least_squares"]["r2"] < 0.1
    code, _, errors = command("fit", models / "cars/versions/1/recipe.toml", "--store", models)
    assert (code, errors) == (0, "")
    assert weights_file(models, 1) == weights_file(models, 2)


def test_what_was_tried_is_told_within_the_minutes(fit: Command, product: Path, tmp_path: Path) -> None:
    code, output, errors = fit(
        product, tmp_path / "models", *PRODUCT, "--network", "auto", "--minutes", "1e-9"
    )
    assert (code, errors) == (0, "")
    assert re.search(r"^line .* chosen$", output, re.MULTILINE)
    assert not re.search(r"^ensemble ", output, re.MULTILINE)


def test_nothing_is_tried_for_the_lesson(fit: Command, cars: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    said = [
        parsed(fit(cars, models, *ASKED, *more, "--json")[1])
        for more in ((), ("--network", "linear", "--optimizer", "gd", "--learning-rate", "0.1"))
    ]
    assert [each["trials"] for each in said] == [[], []]
    assert [each["training"]["optimizer"] for each in said] == ["gd", "gd"]
    assert said[0]["features"][0]["kind"] == "numeric"
    assert weights_file(models, 1) == weights_file(models, 2)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--network", "ridge", "--optimizer", "adam"), "the network 'ridge' does not heed 'optimizer'"),
        (("--network", "auto", "--epochs", "9"), "the network 'auto' does not heed 'epochs'"),
        (("--network", "auto", "--hidden", "9"), "network.auto.hidden"),
        (("--network", "auto", "--minutes", "-1"), "network.auto.minutes"),
    ],
)
def test_options_that_a_network_does_not_heed_are_refused(
    fit: Command, product: Path, tmp_path: Path, more: tuple[str, ...], sentence: str
) -> None:
    code, _, errors = fit(product, tmp_path / "models", *PRODUCT, *more)
    assert code == 2
    assert sentence in errors


def test_json_is_one_object_with_the_weights_and_the_costs(fit: Command, cars: Path, tmp_path: Path) -> None:
    store = tmp_path / "models"
    code, output, errors = fit(cars, store, *ASKED, "--optimizer", "exact", "--json")
    assert (code, errors) == (0, "")
    said = parsed(output)
    assert (said["name"], said["version"], said["promoted"]) == ("cars", 1, False)
    assert said["weights"]["layers.0.weight"][0][0] == pytest.approx(-0.129, abs=5e-4)
    assert said["weights"]["layers.0.bias"][0] == pytest.approx(9.479, abs=5e-4)
    assert said["history"][-1] == said["training"]["cost"] == pytest.approx(said["training"]["optimum"])
    assert said["metrics"]["rows"] == 6019
    assert said["metrics"]["folds"]["count"] == 5


def test_dropped_rows_and_mixed_units_are_told(fit: Command, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "Price,Run\n" + "".join(f"{row},{row % 7} km\n{row},{row % 5} mi\n,3 km\n" for row in range(9))
    )
    code, output, errors = fit(
        table, tmp_path / "models", "--target", "Price", "--feature", "Run", "--holdout", "0"
    )
    assert code == 0, errors
    assert "18 rows of" in output
    assert "Price is empty in 9 rows, which are left out" in output
    assert "Run has several units, read as one: km (" in output


@pytest.fixture(scope="module")
def sales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred sales, one a day from 2018-01-01 on, by ten makers; x says y but for noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    days = pd.date_range("2018-01-01", periods=100).strftime("%Y-%m-%d")
    columns = {"sold": days, "maker": rng.permutation(list("abcdefghij") * 10), "w": rng.integers(0, 3, 100)}
    path = tmp_path_factory.mktemp("sales") / "sales.csv"
    pd.DataFrame({**columns, "x": x, "y": x + rng.normal(size=100)}).to_csv(path, index=False)
    return path


SALES = ("--target", "y", "--feature", "x", "--optimizer", "exact")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--holdout", "0.2"), "on 20 held-out rows\n"),
        (
            ("--split", "time:sold", "--holdout", "0.2"),
            "on 20 held-out rows, the last in time by sold, from 2018-03-22 on\n",
        ),
        (("--split", "group:maker", "--holdout", "0.2"), "on 20 held-out rows, whole groups by maker\n"),
        ((), "on 100 held-out rows in 5 folds\n"),
        (("--split", "group:maker"), "on 100 held-out rows in 5 folds, whole groups by maker\n"),
        (
            ("--split", "time:sold", "--cross-validate", "4"),
            "in 4 folds, each later than the rows fitted on by sold, from 2018-01-21 on\n",
        ),
    ],
)
def test_the_rows_that_were_scored_on_are_told_and_shown(
    fit: Command, sales: Path, tmp_path: Path, more: tuple[str, ...], sentence: str
) -> None:
    code, output, errors = fit(sales, tmp_path / "models", *SALES, *more)
    assert code == 0, errors
    assert sentence in output
    folds = re.search(r"^R² -?\d\.\d+ ± 0\.\d+, .* of [45] folds\)$", output, re.MULTILINE)
    assert bool(folds) == ("--holdout" not in more)
    shown = run("model_store", "show", "cars", "1", "--store", tmp_path / "models").stdout
    assert re.sub("^on [0-9]+ held-out rows,? ?", "", sentence).strip() in shown
    assert ("of 5 folds" in shown or "of 4 folds" in shown) == bool(folds)


def test_json_says_the_split_the_weight_and_the_folds(fit: Command, sales: Path, tmp_path: Path) -> None:
    asked = ("--split", "time:sold", "--cross-validate", "3", "--weight", "w", "--json")
    code, output, errors = fit(sales, tmp_path / "models", *SALES, *asked)
    assert code == 0, errors
    said = parsed(output)
    assert said["training"]["split"] == {"kind": "time", "column": "sold", "format": None}
    assert (said["training"]["cross_validate"], said["training"]["weight"]) == (3, "w")
    assert said["metrics"]["since"] > "2018-01-20"
    folds = said["metrics"]["folds"]
    assert folds["count"] == 3
    assert folds["mean"]["r2"] < said["metrics"]["model"]["r2"] + folds["std"]["r2"]


def test_a_weight_of_2_is_the_row_twice_and_of_0_none(fit: Command, sales: Path, tmp_path: Path) -> None:
    table, store = pd.read_csv(sales), tmp_path / "models"
    table.loc[table.index.repeat(table["w"])].to_csv(tmp_path / "repeated.csv", index=False)
    asked = (*SALES, "--holdout", "0")
    assert fit(tmp_path / "repeated.csv", store, *asked)[0] == 0
    code, output, errors = fit(sales, store, *asked, "--weight", "w")
    assert code == 0, errors
    assert f"w is empty or 0 in {(table['w'] == 0).sum()} rows, which are left out" in output
    repeated, weighted = (open_store(str(store)).load("cars", number) for number in (1, 2))
    assert weighted.manifest.training.rows == (table["w"] > 0).sum()
    assert weighted.manifest.training.cost == pytest.approx(repeated.manifest.training.cost, rel=1e-12)
    columns = {"x": table["x"].tolist()}
    assert weighted.predictor.predict(columns) == pytest.approx(repeated.predictor.predict(columns), rel=1e-9)


def test_a_recipe_splits_and_weights_as_its_options_do(
    command: Command, fit: Command, sales: Path, tmp_path: Path
) -> None:
    path, store = tmp_path / "recipe.toml", tmp_path / "models"
    path.write_text(
        f'data = "{sales}"\nname = "cars"\nsplit = "time:sold"\nweight = "w"\ncross_validate = 3\n'
        'target = { name = "y" }\nfeatures = [{ name = "x" }]\nschedule = { optimizer = "exact" }\n'
    )
    assert command("fit", path, "--store", store)[0] == 0
    more = ("--split", "time:sold", "--weight", "w", "--cross-validate", "3")
    assert fit(sales, store, *SALES, *more)[0] == 0
    ours, theirs = (open_store(str(store)).load("cars", number).manifest for number in (1, 2))
    assert weights_file(store, 1) == weights_file(store, 2)
    assert (ours.metrics, ours.interval, ours.training) == (theirs.metrics, theirs.interval, theirs.training)


def test_a_learning_rate_too_large_for_the_weights_is_said_to_be_theirs(
    fit: Command, sales: Path, tmp_path: Path
) -> None:
    asked = ("--target", "y", "--feature", "x", "--weight", "w", "--learning-rate", "9")
    code, _, errors = fit(sales, tmp_path / "models", *asked)
    assert code == 4
    assert "because of the weights and of " in errors


def test_compare_weights_the_rows(command: Command, sales: Path, tmp_path: Path) -> None:
    page = ("--output", tmp_path / "compare.html", "--json")
    asked = ("--target", "y", "--feature", "x", "--epochs", "3", "--weight", "w", *page)
    code, output, errors = command("compare", sales, *asked)
    assert code == 0, errors
    table = pd.read_csv(sales)
    line = LinearRegression().fit(table[["x"]], table["y"], sample_weight=table["w"])
    squares = (table["y"] - line.predict(table[["x"]])) ** 2
    assert parsed(output)["optimum"] == pytest.approx(np.average(squares, weights=table["w"]), rel=1e-9)


HEADER = "Price,Kilometers_Driven\n"
FINE = HEADER + "1,4\n2,5\n3,7\n"
WILD = (*ASKED, "--holdout", "0", "--learning-rate", "9", "--epochs", "9999")


@pytest.mark.parametrize(
    ("text", "more", "code", "sentence"),
    [
        (FINE, (*ASKED, "--learning-rate", "0"), 2, "schedule.learning_rate"),
        (FINE, (*ASKED, "--name", "../x"), 2, "cannot name a model"),
        (FINE, (*ASKED, "--epochs", "-1"), 2, "schedule.epochs"),
        (FINE, ("--target", "Price"), 3, "say --feature or --category"),
        (FINE, ("--target", "Price", "--exclude", "Km"), 3, "no column 'Km'"),
        (FINE, (*ASKED, "--exclude", "Price"), 2, "'Price' is asked for twice"),
        (FINE, ("--feature", "Price"), 2, "say --target"),
        (FINE, (*ASKED, "--network", "mlp"), 2, "--hidden 32,16"),
        (FINE, (*ASKED, "--hidden", "4,x"), 2, "as in 32,16"),
        ("Price,Km\n1,2\n", ASKED, 3, "no column 'Kilometers_Driven'"),
        (HEADER + "1,5\n2,5\n", (*ASKED, "--holdout", "0"), 3, "is constant"),
        (HEADER + "1,red\n2,5\n", ASKED, 3, "row 1 has 'red'"),
        (FINE, ASKED, 3, "--holdout 0"),
        (FINE, (*ASKED, "--split", "times:x"), 2, "random, time:COLUMN or group:COLUMN"),
        (FINE, (*ASKED, "--split", "time:Year"), 3, "no column 'Year'"),
        (FINE, (*ASKED, "--weight", "Year"), 3, "no column 'Year'"),
        (FINE, (*ASKED, "--weight", "Price"), 2, "must be different columns"),
        (FINE, (*ASKED, "--cross-validate", "1"), 2, "cross_validate"),
        (FINE, (*ASKED, "--cross-validate", "2"), 3, "2 folds of the 3 rows"),
        (FINE + "4,7\n", (*ASKED, "--holdout", "0.9"), 3, "--holdout 0"),
        (FINE, WILD, 4, "For the 3 rows the largest stable one is "),
    ],
)
def test_what_cannot_be_trained_ends_with_a_sentence_and_a_code(
    fit: Command, tmp_path: Path, text: str, more: tuple[str, ...], code: int, sentence: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(text)
    ended, output, errors = fit(table, tmp_path / "models", *more)
    assert ended == code
    assert re.fullmatch(r"error: [^\n]+\n", errors)
    assert sentence in errors
    assert "version" not in output
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("fit", "t.csv", "--optimizer", "newton"), "newton"),
        (("fit",), "Missing argument"),
        (("unfit",), "unfit"),
    ],
)
def test_what_is_not_a_command_or_an_option_ends_with_the_usage(
    command: Command, arguments: tuple[str, ...], sentence: str
) -> None:
    code, output, errors = command(*arguments)
    assert (code, output) == (2, "")
    assert errors.startswith("Usage: python -m training")
    assert sentence in errors


def test_a_process_that_fails_has_the_code_and_no_traceback(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(FINE)
    result = run("training", "fit", table, "--name", "cars", "--store", tmp_path / "models", *WILD)
    assert result.returncode == 4
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)
    assert not (tmp_path / "models").exists()


def test_a_process_whose_reader_leaves_ends_without_a_traceback(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(FINE)
    arguments = ("fit", table, "--name", "cars", "--store", tmp_path / "models", *ASKED, "--holdout", "0")
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "training", *map(str, arguments)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


def test_a_process_asked_for_help_names_its_commands() -> None:
    result = run("training", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage: python -m training" in result.stdout
    assert all(name in result.stdout for name in ("fit", "compare", "sample"))


def test_the_report_says_the_command_that_makes_the_version_again(
    fit: Command, cars: Path, tmp_path: Path
) -> None:
    store = tmp_path / "the models"
    assert fit(cars, store, *ASKED, "--epochs", "1")[0] == 0
    page = (store / "cars/versions/1/report.html").read_text()
    (said,) = re.findall(r"<pre><code>(.*)</code></pre>", page)
    assert shlex.split(html.unescape(said)) == [
        *("python", "-m", "training", "fit", str(cars), "--name", "cars", "--store", str(store)),
        *(*ASKED, "--epochs", "1"),
    ]


def test_raw_kilometres_diverge_as_in_the_lesson(fit: Command, cars: Path, tmp_path: Path) -> None:
    code, _, errors = fit(cars, tmp_path / "models", *ASKED, "--normalize", "none")
    km = pd.read_csv(cars)["Kilometers_Driven"].to_numpy(float)
    design = np.column_stack([km, np.ones(len(km))])
    assert code == 4
    # Diverges on the rows that are not held out, whose bound is near that of all rows.
    rate = float(re.findall(r"largest stable one is ([\d.e+-]+),", errors)[0])
    assert rate == pytest.approx(1 / np.linalg.eigvalsh(design.T @ design / len(km)).max(), rel=0.2)
    assert "Kilometers_Driven reaches" in errors
    assert not (tmp_path / "models").exists()


def test_a_recipe_goes_without_options_and_data_goes_with_a_recipe(
    command: Command, fit: Command, cars: Path, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(data="nowhere.csv"))
    code, _, errors = command("fit", path, "--epochs", "3", "--store", tmp_path / "models")
    assert code == 2
    assert "leave out the options for schedule" in errors
    assert fit(cars, tmp_path / "models", *ASKED, "--data", cars)[0] == 2
    assert command("fit", path, "--data", cars, "--store", tmp_path / "models")[0] == 0


def test_compare_writes_a_page_and_lists_every_optimizer(
    command: Command, cars: Path, tmp_path: Path
) -> None:
    page = tmp_path / "compare.html"
    code, output, errors = command("compare", cars, *ASKED, "--epochs", "5", "--output", page, "--json")
    assert (code, errors) == (0, "")
    runs = parsed(output)["runs"]
    assert [each["optimizer"] for each in runs] == OPTIMIZERS
    assert len({each["history"][0] for each in runs}) == 1
    assert all(len(each["history"]) == len(each["seconds"]) for each in runs)
    text = page.read_text()
    assert all(name in text.lower() for name in OPTIMIZERS)
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text)


def test_compare_shows_an_optimizer_that_diverges_up_to_there(
    command: Command, cars: Path, tmp_path: Path
) -> None:
    page = tmp_path / "compare.html"
    code, output, errors = command(
        *("compare", cars, *ASKED, "--learning-rate", "1.5", "--epochs", "30", "--output", page, "--json")
    )
    assert (code, errors) == (0, "")
    gd = parsed(output)["runs"][0]
    assert gd["trouble"].startswith("the cost went from")
    assert 1 < len(gd["history"]) < 31


@pytest.mark.parametrize("wanted", [("compare", *ASKED, "--epochs", "1", "--output"), ("sample",)])
def test_a_file_that_cannot_be_written_is_a_sentence(
    command: Command, cars: Path, tmp_path: Path, wanted: tuple[str, ...]
) -> None:
    verb, *options = wanted
    source = [cars] if verb == "compare" else []
    code, _, errors = command(verb, *source, *options, tmp_path / "nowhere" / "file")
    assert code == 2
    assert "cannot be written" in errors


def test_a_table_of_fifty_rows_is_trained_and_reported(fit: Command, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("y,x\n" + "".join(f"{row * row},{row}\n" for row in range(50)))
    code, output, errors = fit(table, tmp_path / "models", "--target", "y", "--feature", "x")
    assert code == 0, errors
    assert "cars version 1" in output


def test_a_surplus_cell_in_every_row_is_refused_rather_than_shifts_the_columns(
    fit: Command, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("km,age,y\n" + "".join(f"{row},{row % 7},{row % 5},0\n" for row in range(50)))
    store = tmp_path / "models"
    code, _, errors = fit(table, store, "--target", "y", "--feature", "age")
    assert code == 3
    assert "row 1: 3 cells are expected, 4 are there" in errors
    assert not store.exists()


def test_numbers_too_large_to_square_are_refused_by_name(fit: Command, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("y,x\n1,1e200\n2,5\n3,6\n4,7\n")
    code, _, errors = fit(table, tmp_path / "models", "--target", "y", "--feature", "x", "--holdout", "0")
    assert code == 3
    assert "the column 'x'" in errors


def test_momentum_with_its_defaults_trains_on_ordinary_data(fit: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=641)
    table = tmp_path / "table.csv"
    pd.DataFrame({"x": x, "y": 3 * x + rng.normal(size=641)}).to_csv(table, index=False)
    asked = ("--target", "y", "--feature", "x", "--optimizer", "momentum", "--epochs", "20")
    code, _, errors = fit(table, tmp_path / "models", *asked)
    assert code == 0, errors


def test_a_table_whose_name_names_no_model_is_asked_for_one(command: Command, tmp_path: Path) -> None:
    code, _, errors = command("fit", "-", "--target", "y", "--store", tmp_path / "models")
    assert code == 2
    assert errors == "error: say --name: - does not tell what the model is called in the store\n"


def test_what_is_worse_than_the_mean_is_published_but_not_promoted(
    fit: Command, cars: Path, tmp_path: Path
) -> None:
    store = tmp_path / "models"
    asked = (*ASKED, "--learning-rate", "1e-6", "--epochs", "2", "--promote")
    code, output, errors = fit(cars, store, *asked, "--json")
    assert code == 5
    assert "cars version 1 is in the store but not promoted: it is worse than predicting the mean" in errors
    assert "--anyway" in errors
    said = parsed(output)
    assert (said["promoted"], said["version"]) == (False, 1)
    assert said["verdicts"][0]["found"].startswith("It is worse than predicting the mean: R² ")
    assert open_store(str(store)).versions("cars") == [1]
    with pytest.raises(NothingPromoted):
        open_store(str(store)).load_promoted("cars")
    assert fit(cars, store, *asked, "--anyway")[0] == 0
    assert open_store(str(store)).load_promoted("cars").manifest.version == 2


def test_the_lesson_is_level_with_the_mean_and_so_it_is_told_and_promoted(
    fit: Command, cars: Path, tmp_path: Path
) -> None:
    code, output, _ = fit(cars, tmp_path / "models", *ASKED, "--promote")
    assert code == 0
    assert "It is not surely better than predicting the mean" in output
    assert open_store(str(tmp_path / "models")).load_promoted("cars").manifest.version == 1
