import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.conftest import run, serving


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
    result = run(
        *("training", "fit", used_cars / "train-data.csv", "--target", "Price"),
        *("--feature", "Kilometers_Driven", "--optimizer", "gd", "--learning-rate", "0.1"),
        *("--epochs", "200", "--seed", "0", "--name", "used-car-price", "--store", store, "--promote"),
    )
    assert result.returncode == 0, result.stderr
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
