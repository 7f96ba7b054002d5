import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.inspection import permutation_importance as sklearn_importance
from sklearn.metrics import mean_squared_error

from model_store.columns import Column, Matrix
from model_store.dates import days_of_array
from training.data import Table
from training.importance import MOST_ROWS, SHUFFLES, curves, permutation_importance
from training.pipeline import learn
from training.publish import Learned
from training.recipe import make_recipe
from training.train import Model

ROWS = 600
FEATURES = [{"name": "a"}, {"name": "b", "missing": "indicator"}, {"name": "c", "kind": "categorical"}]


def frame(rows: int = ROWS) -> pd.DataFrame:
    """A number, one that may miss, a category, a day, and a target that each of them moves."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(3, 2, rows), rng.gamma(2, 1, rows)
    c, day = rng.choice(list("pqr"), rows), rng.integers(0, 1000, rows)
    y = 10 + 2 * a + np.sin(2 * b) + np.select([c == "p", c == "q"], [1.5, -1.0], 0.0) + 0.002 * day
    days = np.datetime64("2019-03-01") + day
    columns = {"a": a, "b": np.where(rng.random(rows) < 0.1, np.nan, b), "c": c, "day": days}
    return pd.DataFrame({**columns, "y": y + 0.3 * rng.normal(size=rows)})


def numbers(given: pd.DataFrame) -> dict[str, Matrix]:
    """The numbers and the days of a table, as their features accept them."""
    days = days_of_array(given.day.to_numpy())
    return {"a": given.a.to_numpy(), "b": given.b.to_numpy(), "day": days}


def learned(tmp_path: Path, given: pd.DataFrame, **fields: Any) -> Learned:
    given.to_csv(tmp_path / "table.csv", index=False)
    recipe = make_recipe({"target": {"name": "y"}, "features": FEATURES, "holdout": 0.0, **fields})
    return learn(tmp_path / "table.csv", recipe)


@dataclass
class Estimator:
    """A model as scikit-learn takes it, for rows as the table has them, (n, inputs)."""

    model: Model
    table: Table

    def fit(self) -> None:
        """Be fitted already."""

    def score(self, rows: Matrix, target: Matrix) -> float:
        """The negative of the root mean squared error."""
        return -math.sqrt(mean_squared_error(target, self.model.predict(self.table.columns(rows))))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"network": {"kind": "mlp", "hidden": [8, 4]}, "schedule": {"epochs": 10}},
        {"network": {"kind": "ensemble", "epochs": 5}, "target": {"name": "y", "transform": "log"}},
    ],
    ids=["line", "mlp", "ensemble of logarithms"],
)
def test_importance_is_scikit_learns(tmp_path: Path, fields: dict[str, Any]) -> None:
    given = frame()
    of = learned(tmp_path, given[given.y > 0.1], **fields)
    rows = np.concatenate(list(of.table.blocks))
    oracle = sklearn_importance(
        Estimator(of.model, of.table), rows[:, :-1], rows[:, -1], n_repeats=50, random_state=1
    )
    importance = permutation_importance(of.model, of.table)
    assert list(importance.values()) == sorted(importance.values(), reverse=True)
    for name, mean, std in zip("abc", oracle.importances_mean, oracle.importances_std, strict=True):
        assert importance[name] == pytest.approx(mean, abs=4.5 * std / math.sqrt(SHUFFLES))


def test_shuffling_an_independent_input_adds_twice_its_variance_times_the_squared_weight(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal([5, -1], [3.0, 0.5], (2 * MOST_ROWS, 2))
    y = 2 * x[:, 0] - 4 * x[:, 1] + rng.normal(size=len(x))
    given = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y})
    of = learned(tmp_path, given, features=[{"name": "b"}, {"name": "a"}])
    # The covariance of a shuffled input with itself has a standard deviation of its variance / sqrt(rows).
    for name, squared_effect in {"a": 36.0, "b": 4.0}.items():
        expected = math.sqrt(1 + 2 * squared_effect) - 1
        assert of.importance[name] == pytest.approx(expected, rel=4 * (1 / MOST_ROWS) ** 0.5)
    assert list(of.importance) == ["a", "b"]


def test_an_input_without_influence_does_not_matter(tmp_path: Path) -> None:
    given = frame().assign(b=lambda rows: np.random.default_rng(0).permutation(rows.b.to_numpy()))
    importance = learned(tmp_path, given).importance
    assert list(importance)[-1] == "b"
    assert abs(importance["b"]) < 0.01 * importance["a"]


def test_the_same_table_has_the_same_importance(tmp_path: Path) -> None:
    of = learned(tmp_path, frame())
    assert permutation_importance(of.model, of.table) == permutation_importance(of.model, of.table)


@pytest.mark.parametrize("transform", ["none", "log"])
def test_a_curve_is_what_the_prediction_changes_by_along_its_input(tmp_path: Path, transform: str) -> None:
    given, target = frame(), {"name": "y", "transform": transform}
    given = given[given.y > 0.1]
    of = learned(tmp_path, given, network={"kind": "ridge"}, target=target)
    found = curves(of.model, numbers(given))
    assert found.keys() == {"a", "b"}
    for name, points in found.items():
        x, added = points.T
        assert (x[0], x[-1]) == (given[name].min(), given[name].max())
        row: dict[str, float | str] = {"a": 1.0, "b": 0.5, "c": "q"}
        columns: dict[str, Column] = {
            key: x if key == name else [value] * len(x) for key, value in row.items()
        }
        predicted = of.model.predict(columns)
        outputs = np.log(predicted) if transform == "log" else predicted
        assert added - added[0] == pytest.approx(outputs - outputs[0], abs=1e-9)


def test_a_curve_is_drawn_beside_its_average(tmp_path: Path) -> None:
    given = frame()
    points = curves(learned(tmp_path, given, network={"kind": "ridge"}).model, numbers(given))["a"]
    along = np.interp(given.a, *points.T)
    assert np.mean(along) == pytest.approx(0, abs=1e-3)
    assert np.std(along) == pytest.approx(2 * given.a.std(), rel=0.05)


def test_a_curve_has_most_points_where_the_rows_are(tmp_path: Path) -> None:
    given = frame()
    given.loc[0, "a"] = 1e5
    x = curves(learned(tmp_path, given, network={"kind": "ridge"}).model, numbers(given))["a"][:, 0]
    assert np.count_nonzero(x < 20) > 150


def test_a_dates_curve_leaves_out_its_months_and_weekdays(tmp_path: Path) -> None:
    given = frame()
    given["y"] += np.where(given.day.dt.day_of_week == 6, 5.0, 0.0) + given.day.dt.month
    day = {"name": "day", "kind": "date"}
    of = learned(tmp_path, given, features=[{"name": "a"}, day], network={"kind": "ridge"})
    x, added = curves(of.model, numbers(given))["day"].T
    mondays = days_of_array(np.array(["2019-06-03", "2020-06-01", "2021-06-07"], dtype="datetime64[D]"))
    predicted = of.model.predict({"a": [1.0] * 3, "day": mondays})
    assert np.diff(np.interp(mondays, x, added)) == pytest.approx(np.diff(predicted), abs=1e-2)
    assert np.abs(np.diff(added)).max() < 0.5


@pytest.mark.parametrize(
    ("network", "encoding"), [("linear", None), ("ridge", "clipped"), ("ensemble", "piecewise")]
)
def test_only_an_additive_model_has_curves(tmp_path: Path, network: str, encoding: str | None) -> None:
    given, kind = frame(), {"kind": network, **({"epochs": 1} if network == "ensemble" else {})}
    of = learned(tmp_path, given, network=kind, encoding=encoding)
    assert curves(of.model, numbers(given)) == {}
