"""Ridge lines and ensembles, from a table to a version: what is served, and what is claimed of it."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score

from model_store.columns import Columns, Matrix
from model_store.store import Store
from training.blocks import Blocks
from training.crossed import Crossed
from training.data import DataError, Table
from training.evaluate import claimed_interval, evaluate, own_rows
from training.pipeline import fit, learn
from training.publish import Learned
from training.reading import read_table
from training.recipe import Recipe, make_recipe
from training.splits import crossed_folds, folds_of
from training.train import train

RIDGE: Final[dict[str, Any]] = {"kind": "ridge"}
ENSEMBLE: Final[dict[str, Any]] = {"kind": "ensemble", "epochs": 4}
LOG: Final = {"name": "y", "transform": "log"}
TARGETS: Final[dict[str, dict[str, Any]]] = {
    "as it is": {"name": "y"},
    "its logarithm": LOG,
    "its logarithm, for means": LOG | {"predicts": "mean"},
}
INPUTS: Final[list[dict[str, Any]]] = [
    {"name": "size", "missing": "indicator"},
    {"name": "sold", "kind": "date"},
    {"name": "fuel", "kind": "categorical", "new_categories": "other", "rare": 2},
]
EACH_NETWORK = pytest.mark.parametrize("network", [RIDGE, ENSEMBLE], ids=["ridge", "ensemble"])
EACH_TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sales: a size that may be missing, a day, a fuel, a weight, one of 15 makers, and the price y."""
    rng = np.random.default_rng(0)
    size, fuel, maker = rng.normal(100, 20, 150), rng.integers(3, size=150), rng.integers(15, size=150)
    columns = {
        "size": np.where(rng.random(150) < 0.1, np.nan, size),
        "sold": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.permutation(150), unit="D"),
        "fuel": np.array(["gas", "oil", "wood"])[fuel],
        "weight": rng.integers(1, 5, size=150),
        "maker": np.array([f"maker {letter}" for letter in "abcdefghijklmno"])[maker],
        "y": 100 + np.abs(size - 100) + 10 * fuel + 3 * rng.normal(size=150),
    }
    path = tmp_path_factory.mktemp("sales") / "sales.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def recipe(network: dict[str, Any], **fields: Any) -> Recipe:
    return make_recipe({"target": {"name": "y"}, "features": INPUTS, "network": network, **fields})


def out_of_fold(learned: Learned) -> Matrix:
    """What was said of each row when it was left out, (rows,), in the unit of the network's outputs."""
    assert isinstance(learned.model.fitted, Crossed)
    return learned.model.fitted.out_of_fold


@EACH_NETWORK
@EACH_TARGET
def test_a_version_answers_what_torch_does_for_missing_values_dates_and_categories(
    table: Path, store: Store, network: dict[str, Any], target: dict[str, Any]
) -> None:
    published = fit(table, recipe(network, target=target), "toy", store)
    stored = store.load("toy", 1)
    assert stored.manifest.network == published.learned.model.fitted.network.shape
    rows: Columns = {
        "size": [None, 0.0, 71.5, 100.0, 1e6],
        "sold": ["2020-03-01", "2019-01-01", "2020-02-29", "2030-05-17", "2020-01-07"],
        "fuel": ["gas", "wood", None, "coal", "oil"],
    }
    expected = published.learned.model.predict(rows)
    assert len(set(expected.tolist())) == 5
    assert stored.predictor.predict(rows) == pytest.approx(expected, rel=1e-9)


@EACH_NETWORK
@EACH_TARGET
@pytest.mark.parametrize("weight", [None, "weight"])
def test_scores_are_scikit_learns_of_what_was_said_of_rows_left_out(
    table: Path, network: dict[str, Any], target: dict[str, Any], weight: str | None
) -> None:
    learned = learn(table, recipe(network, target=target, weight=weight))
    actual, weights = learned.table.target(), learned.table.blocks.weights
    assert (weights is None) == (weight is None)
    predicted = out_of_fold(learned)
    if target.get("transform") == "log":
        predicted = np.exp(predicted) * (learned.model.target.smearing or 1.0)
    assert learned.held_out
    metrics, labels = learned.held_out.metrics, crossed_folds(learned.table)
    assert metrics.rows == 150
    assert metrics.model.r2 == pytest.approx(r2_score(actual, predicted, sample_weight=weights), rel=1e-9)
    assert metrics.model.mae == pytest.approx(
        mean_absolute_error(actual, predicted, sample_weight=weights), rel=1e-9
    )
    assert metrics.folds
    assert metrics.folds.count == 8
    of_each = [
        r2_score(
            actual[labels == fold],
            predicted[labels == fold],
            sample_weight=None if weights is None else weights[labels == fold],
        )
        for fold in range(8)
    ]
    assert metrics.folds.mean.r2 == pytest.approx(np.mean(of_each), rel=1e-9)


@EACH_NETWORK
def test_of_noise_nothing_is_claimed(tmp_path: Path, network: dict[str, Any]) -> None:
    noise = np.random.default_rng(1).normal(size=(200, 5))
    path = tmp_path / "noise.csv"
    np.savetxt(path, noise, delimiter=",", header="a,b,c,d,y", comments="")
    learned = learn(path, make_recipe({"target": {"name": "y"}, "network": network}))
    assert learned.held_out
    assert learned.held_out.metrics.model.r2 < 0.05


@EACH_NETWORK
def test_whole_groups_are_left_out_together(table: Path, network: dict[str, Any]) -> None:
    learned = learn(table, recipe(network, split="group:maker"))
    groups, labels = learned.table.split_by, crossed_folds(learned.table)
    assert groups is not None
    assert all(len(set(labels[groups == group])) == 1 for group in set(groups.tolist()))
    assert learned.held_out
    predicted = out_of_fold(learned)
    assert learned.held_out.metrics.model.r2 == pytest.approx(
        r2_score(learned.table.target(), predicted), rel=1e-9
    )


@EACH_NETWORK
def test_what_only_names_the_group_says_nothing_of_other_groups(
    table: Path, tmp_path: Path, network: dict[str, Any]
) -> None:
    frame = pd.read_csv(table)
    levels = np.random.default_rng(2).normal(size=15)
    frame["y"] = levels[frame["maker"].rank(method="dense").to_numpy(int) - 1]
    frame.to_csv(tmp_path / "groups.csv", index=False)
    inputs = [{"name": "size", "missing": "mean"}, {**INPUTS[2], "name": "maker"}]
    scores = []
    for split in ("random", "group:maker"):
        held_out = learn(tmp_path / "groups.csv", recipe(network, features=inputs, split=split)).held_out
        assert held_out
        scores.append(held_out.metrics.model.r2)
    assert scores[0] > 0.5
    assert scores[1] < 0.1


@EACH_NETWORK
@pytest.mark.parametrize(
    ("how", "rows"),
    [
        ({"split": "time:sold", "cross_validate": 3}, 112),
        ({"split": "time:sold", "holdout": 0.2}, 30),
        ({"split": "group:maker", "holdout": 0.2}, None),
        ({"holdout": 0.2}, 30),
    ],
    ids=str,
)
def test_by_time_or_held_out_once_rows_are_scored_by_models_that_saw_none_of_them(
    table: Path, network: dict[str, Any], how: dict[str, Any], rows: int | None
) -> None:
    asked = recipe(network, **how)
    learned = learn(table, asked)
    whole, actual, predicted = read_table(table, asked), [], []
    for fold in folds_of(whole):
        seen, held = whole.take(fold.seen), whole.take(fold.held)
        model = train(asked, seen)
        actual += held.target().tolist()
        for block in held.blocks:
            predicted += model.predict(held.columns(block)).tolist()
    assert learned.held_out
    assert learned.held_out.metrics.rows == len(actual)
    assert rows in {None, len(actual)}
    assert learned.held_out.metrics.model.r2 == pytest.approx(r2_score(actual, predicted), rel=1e-6)


@EACH_NETWORK
def test_without_a_holdout_nothing_is_claimed(table: Path, network: dict[str, Any]) -> None:
    learned = learn(table, recipe(network, holdout=0))
    assert (learned.held_out, learned.interval) == (None, None)


@pytest.mark.parametrize("encoding", [None, "piecewise"])
def test_beside_it_stands_the_exact_line_of_z_scores_that_saw_the_same_rows(
    tmp_path: Path, encoding: str | None
) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=160)
    rows = np.column_stack([x, np.abs(x) + x + rng.normal(size=160) / 4])
    path = tmp_path / "bend.csv"
    np.savetxt(path, rows, delimiter=",", header="x,y", comments="")
    learned = learn(path, recipe(RIDGE, features=[{"name": "x", "encoding": encoding}]))
    labels, predicted = crossed_folds(learned.table), np.empty(160)
    for fold in range(8):
        seen, held = labels != fold, labels == fold
        line = LinearRegression().fit(rows[seen, :1], rows[seen, 1])
        predicted[held] = line.predict(rows[held, :1])
    assert learned.held_out
    assert learned.held_out.metrics.least_squares.r2 == pytest.approx(
        r2_score(rows[:, 1], predicted), rel=1e-9
    )


def test_folds_are_fewer_where_the_target_would_not_vary_in_one(tmp_path: Path) -> None:
    path = tmp_path / "rare.csv"
    x = np.arange(24.0)
    np.savetxt(path, np.column_stack([x, x % 4 == 0]), delimiter=",", header="x,y", comments="")
    learned = learn(path, recipe(RIDGE, features=[{"name": "x"}]))
    assert learned.held_out
    folds = learned.held_out.metrics.folds
    assert folds
    assert 2 <= folds.count < 8
    labels = crossed_folds(learned.table)
    assert set(labels.tolist()) == set(range(folds.count))
    assert all(0 < learned.table.target()[labels == fold].mean() < 1 for fold in range(folds.count))
    with pytest.raises(DataError, match="leaves too few to fit or to score on"):
        learn(path, recipe(RIDGE, features=[{"name": "x"}], cross_validate=8))


def steep(rows: int, rng: np.random.Generator) -> Matrix:
    """Three inputs of which two act on one another, and a target with noise, last."""
    x = rng.uniform(-1, 1, size=(rows, 3))
    return np.column_stack([x, 100 + 10 * x[:, 0] * x[:, 1] + 3 * x[:, 2] + rng.normal(size=rows)])


@pytest.mark.parametrize("network", [RIDGE, {"kind": "ensemble", "epochs": 40}], ids=["ridge", "ensemble"])
def test_the_interval_holds_nine_of_ten_new_rows(network: dict[str, Any]) -> None:
    names, rows, fresh, trials = ["x0", "x1", "x2"], 200, 1000, 6
    asked = recipe(network, features=[{"name": name} for name in names])
    held = []
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        table = Table("t.csv", asked, Blocks([steep(rows, rng)], 4), {}, {}, {}, "")
        model = train(asked, table)
        interval = claimed_interval(model, own_rows(model, table), evaluate(asked, table, model))
        assert interval
        new = steep(fresh, rng)
        errors = new[:, -1] - model.predict(dict(zip(names, new.T, strict=False)))
        held.append(np.mean((errors >= interval.lower) & (errors <= interval.upper)))
    # A trial's coverage spreads like that of the residuals' quantiles, and its fresh rows binomially.
    assert np.mean(held) > 0.9 - 3 * ((0.09 / rows + 0.09 / fresh) / trials) ** 0.5
