import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from model_store.manifest import Linear
from tests.conftest import serving
from training.__main__ import main
from training.data import Table
from training.evaluate import evaluate
from training.reading import read_table
from training.recipe import Recipe, Schedule, TargetColumn, read_recipe
from training.splits import split_at_random


@dataclass(frozen=True)
class Trained:
    """The first model, trained on the real data: its store, its manifest, W and b."""

    store: Path
    manifest: dict[str, Any]
    weight: float
    bias: float


@pytest.fixture(scope="module")
def trained(used_cars: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    store = tmp_path_factory.mktemp("real") / "models"
    arguments = [
        *("fit", str(used_cars / "train-data.csv"), "--target", "Price"),
        *("--feature", "Kilometers_Driven", "--optimizer", "gd", "--learning-rate", "0.1"),
        *("--epochs", "200", "--seed", "0", "--name", "used-car-price", "--store", str(store), "--promote"),
    ]
    assert main(arguments) == 0
    folder = store / "used-car-price" / "versions" / "1"
    weights = load_file(folder / "weights.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return Trained(
        store, manifest, float(weights["layers.0.weight"][0, 0]), float(weights["layers.0.bias"][0])
    )


def column(path: Path, name: str) -> NDArray[np.float64]:
    """A column of a CSV file without empty cells in it, read without pandas."""
    with path.open(encoding="utf-8", newline="") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file)])


@pytest.fixture(scope="module")
def km(used_cars: Path) -> NDArray[np.float64]:
    return column(used_cars / "train-data.csv", "Kilometers_Driven")


@pytest.fixture(scope="module")
def price(used_cars: Path) -> NDArray[np.float64]:
    return column(used_cars / "train-data.csv", "Price")


def test_w_and_b_are_the_published_ones(trained: Trained) -> None:
    assert (round(trained.weight, 3), round(trained.bias, 3)) == (-0.129, 9.479)


def test_w_and_b_are_the_closed_form_of_least_squares(
    trained: Trained, km: NDArray[np.float64], price: NDArray[np.float64]
) -> None:
    slope = np.cov(km, price, ddof=0)[0, 1] / np.var(km)
    assert trained.weight == pytest.approx(slope * np.std(km), abs=1e-9)
    assert trained.bias == pytest.approx(np.mean(price), abs=1e-9)


@pytest.mark.parametrize("part", ["feature", "target"])
def test_the_manifest_holds_numpys_mean_and_population_std(
    trained: Trained, km: NDArray[np.float64], price: NDArray[np.float64], part: str
) -> None:
    values = km if part == "feature" else price
    described = trained.manifest["features"][0] if part == "feature" else trained.manifest["target"]
    assert described["mean"] == pytest.approx(np.mean(values), rel=1e-12)
    assert described["std"] == pytest.approx(np.std(values), rel=1e-12)
    assert (described["minimum"], described["maximum"]) == (values.min(), values.max())


def test_all_rows_were_trained_on(trained: Trained, km: NDArray[np.float64]) -> None:
    assert trained.manifest["training"]["rows"] == len(km) == 6019


def test_the_new_cars_get_what_numpy_gives(trained: Trained, used_cars: Path) -> None:
    new = column(used_cars / "test-data.csv", "Kilometers_Driven")
    feature, interval = trained.manifest["features"][0], trained.manifest["interval"]
    expected = trained.bias + trained.weight * ((new - feature["mean"]) / feature["std"])
    with serving(trained.store) as url:
        body = {"instances": [{"Kilometers_Driven": value} for value in new]}
        answer = httpx.post(f"{url}/predict/batch", json=body).json()
    assert len(answer["predictions"]) == 1234
    assert answer["predictions"] == expected.tolist()
    assert answer["interval"]["lower"] == (expected + interval["lower"]).tolist()
    assert answer["interval"]["upper"] == (expected + interval["upper"]).tolist()
    outside = np.flatnonzero((new < feature["minimum"]) | (new > feature["maximum"])).tolist()
    assert answer["out_of_range"] == ({"Kilometers_Driven": outside} if outside else {})


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (("--normalize", "none"), ["learning rate 0.1", "8.489e-11", "Kilometers_Driven reaches 6.5e+06"]),
        (
            ("--optimizer", "sgd", "--learning-rate", "0.1", "--holdout", "0.2"),
            ["learning rate 0.1", "0.013: on the 4,815 rows", "Driven reaches a z-score of 64.24"],
        ),
    ],
)
def test_training_that_diverges_says_why_and_publishes_nothing(
    used_cars: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    numbers: list[str],
) -> None:
    arguments = [
        *("fit", str(used_cars / "train-data.csv"), "--target", "Price"),
        *("--feature", "Kilometers_Driven", "--name", "cars", "--store", str(tmp_path / "models"), *options),
    ]
    assert main(arguments) == 4
    errors = capsys.readouterr().err
    assert all(number in errors for number in numbers), errors
    assert not (tmp_path / "models").exists()


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe(Path(__file__).parent.parent / "examples" / "used-cars.toml").recipe


def test_the_nine_column_line_scores_as_scikit_learns(used_cars: Path, recipe: Recipe) -> None:
    exact = recipe.model_copy(
        update={
            "target": TargetColumn(name="Price"),
            "network": Linear(),
            "schedule": Schedule(optimizer="exact"),
            "holdout": 0.2,
        }
    )
    table = read_table(used_cars / "train-data.csv", exact)
    seen, held = columns_for_scikit_learn(table)
    oracle = LinearRegression().fit(*seen).score(*held)
    assert evaluate(exact, table).metrics.model.r2 == pytest.approx(oracle, rel=1e-9)
    assert 0.6 < oracle < 0.8


def test_the_second_example_is_level_with_scikit_learns_perceptron(used_cars: Path, recipe: Recipe) -> None:
    table = read_table(used_cars / "train-data.csv", recipe)
    (x, y), (new_x, new_y) = columns_for_scikit_learn(table)
    oracle = MLPRegressor(hidden_layer_sizes=(32, 16), random_state=0, max_iter=500, early_stopping=True)
    theirs = r2_score(new_y, np.exp(oracle.fit(x, np.log(y)).predict(new_x)))
    ours = evaluate(recipe, table).metrics.model.r2
    assert ours > theirs - 0.03
    assert ours > 0.85


Rows = tuple[NDArray[np.float64], NDArray[np.float64]]


def columns_for_scikit_learn(table: Table) -> tuple[Rows, Rows]:
    """The rows our model sees and those held out, encoded by scikit-learn, and their target."""
    held_out = split_at_random(table.rows, 0.2, 0)
    rows = pd.concat(pd.DataFrame(table.columns(block)) for block in table.blocks)
    texts = rows.select_dtypes(exclude="number").columns
    scaler = ColumnTransformer(
        [("text", OneHotEncoder(), texts)], remainder=StandardScaler(), sparse_threshold=0
    )
    encoded, target = scaler.fit(rows[~held_out]).transform(rows), table.target()
    return (encoded[~held_out], target[~held_out]), (encoded[held_out], target[held_out])
