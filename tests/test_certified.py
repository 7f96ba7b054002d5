"""`exact` beside what others computed: scikit-learn, and NIST's certified values for ill-conditioned data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from model_store.columns import Matrix, NumericFeature
from training.reading import read_table
from training.recipe import make_recipe
from training.train import train

# NIST Statistical Reference Datasets, Longley: y, then x1 to x6; B0 is the constant's.
LONGLEY = """\
y,x1,x2,x3,x4,x5,x6
60323,83.0,234289,2356,1590,107608,1947
61122,88.5,259426,2325,1456,108632,1948
60171,88.2,258054,3682,1616,109773,1949
61187,89.5,284599,3351,1650,110929,1950
63221,96.2,328975,2099,3099,112075,1951
63639,98.1,346999,1932,3594,113270,1952
64989,99.0,365385,1870,3547,115094,1953
63761,100.0,363112,3578,3350,116219,1954
66019,101.2,397469,2904,3048,117388,1955
67857,104.6,419180,2822,2857,118734,1956
68169,108.4,442769,2936,2798,120445,1957
66513,110.8,444546,4681,2637,121950,1958
68655,112.6,482704,3813,2552,123366,1959
69564,114.2,502601,3931,2514,125368,1960
69331,115.7,518173,4806,2572,127852,1961
70551,116.9,554894,4007,2827,130081,1962
"""
CERTIFIED = [
    15.0618722713733,
    -0.358191792925910e-01,
    -2.02022980381683,
    -1.03322686717359,
    -0.511041056535807e-01,
    1829.15146461355,
    -3482258.63459582,
]


def exact_line(path: Path, target: str, inputs: list[str]) -> Matrix:
    """The coefficients for the raw inputs, the constant last."""
    recipe = make_recipe(
        {
            "target": {"name": target},
            "features": [{"name": name} for name in inputs],
            "schedule": {"optimizer": "exact"},
        }
    )
    model = train(recipe, read_table(path, recipe))
    tensors = model.fitted.network.tensors()
    weight, bias = tensors["layers.0.weight"][0], tensors["layers.0.bias"][0]
    numeric = [feature for feature in model.features if isinstance(feature, NumericFeature)]
    mean, std = np.array([(feature.mean, feature.std) for feature in numeric]).T
    return np.append(weight / std, bias - np.sum(weight * mean / std))


def test_exact_gives_scikit_learns_coefficients_on_its_diabetes_data(tmp_path: Path) -> None:
    table: pd.DataFrame = load_diabetes(as_frame=True).frame
    table.to_csv(tmp_path / "diabetes.csv", index=False)
    inputs = table.drop(columns="target")
    oracle = LinearRegression().fit(inputs.to_numpy(), table["target"].to_numpy())
    expected = np.append(oracle.coef_, oracle.intercept_)
    actual = exact_line(tmp_path / "diabetes.csv", "target", list(inputs.columns))
    assert actual == pytest.approx(expected, rel=1e-9)


def test_exact_gives_nists_certified_longley_values_to_nine_digits(tmp_path: Path) -> None:
    (tmp_path / "longley.csv").write_text(LONGLEY)
    actual = exact_line(tmp_path / "longley.csv", "y", ["x1", "x2", "x3", "x4", "x5", "x6"])
    digits = -np.log10(np.abs(actual / CERTIFIED - 1))
    assert digits.min() > 9
