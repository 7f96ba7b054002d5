import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model_store.store import open_store
from tests.conftest import run


def fit(table: Path, store: Path, *more: str) -> tuple[int, str, str]:
    result = run("training", "fit", table, "--name", "cars", "--store", store, *more)
    return result.returncode, result.stdout, result.stderr


ASKED = ("--target", "Price", "--feature", "Kilometers_Driven")


def test_the_first_model_comes_out_as_published(cars: Path, tmp_path: Path) -> None:
    code, output, _ = fit(cars, tmp_path / "models", *ASKED, "--optimizer", "gd", "--learning-rate", "0.1")
    assert code == 0
    assert re.search(r"^W = -0\.129 ", output, re.MULTILINE)
    assert re.search(r"^b = 9\.479$", output, re.MULTILINE)
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
    assert version.manifest.training.rows == 6019
    assert version.manifest.metrics is not None
    assert version.manifest.metrics.rows == 1204


def test_training_again_gives_the_next_version_with_the_same_bits(cars: Path, tmp_path: Path) -> None:
    store = tmp_path / "models"
    for expected in (1, 2):
        code, output, _ = fit(cars, store, *ASKED, "--feature", "Year", "--epochs", "50")
        assert code == 0
        assert f"cars version {expected} is in the store" in output
    files = [(store / f"cars/versions/{number}/weights.safetensors").read_bytes() for number in (1, 2)]
    assert files[0] == files[1]


def test_without_a_holdout_there_are_no_scores_and_no_interval(cars: Path, tmp_path: Path) -> None:
    store = tmp_path / "models"
    assert fit(cars, store, *ASKED, "--holdout", "0", "--promote")[0] == 0
    manifest = open_store(str(store)).load_promoted("cars").manifest
    assert manifest.metrics is None
    assert manifest.interval is None


HEADER = "Price,Kilometers_Driven\n"
WILD = (*ASKED, "--holdout", "0", "--learning-rate", "9", "--epochs", "9999")


@pytest.mark.parametrize(
    ("text", "more", "code", "sentence"),
    [
        ("Price,Km\n1,2\n", ASKED, 3, "no column 'Kilometers_Driven'"),
        ("", ASKED, 3, "is empty"),
        (HEADER + "1,5\n2,5\n", (*ASKED, "--holdout", "0"), 3, "is constant"),
        (HEADER + "1,red\n2,5\n", ASKED, 3, "is not numeric: row 1 has 'red'"),
        (HEADER + "1,4\n2,5\n", ASKED, 3, "--holdout 0"),
        (HEADER + "1,4\n2,5\n", (*ASKED, "--learning-rate", "0"), 2, "above 0"),
        (HEADER + "1,4\n2,5\n", (*ASKED, "--name", "../x"), 2, "cannot name a model"),
        (HEADER + "1,4\n2,5\n", ("--target", "Price"), 2, "--feature"),
        (HEADER + "1,4\n2,5\n3,7\n", WILD, 4, "too large"),
    ],
)
def test_what_cannot_be_trained_ends_with_a_sentence_and_a_code(
    tmp_path: Path, text: str, more: tuple[str, ...], code: int, sentence: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(text)
    result = run("training", "fit", table, "--name", "cars", "--store", tmp_path / "models", *more)
    assert result.returncode == code, result.stderr
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "models").exists()
