"""What is said of models that are no good, and of none that is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from model_store.columns import Matrix
from training.evaluate import own_rows
from training.pipeline import learn
from training.publish import Learned
from training.recipe import make_recipe
from training.verdicts import verdicts_on

ROWS = 200


def learned(folder: Path, y: Matrix, x: Matrix, **fields: Any) -> Learned:
    """A model of y from x, (rows, k)."""
    names = [f"x{index}" for index in range(x.shape[1])]
    path = folder / "table.csv"
    np.savetxt(path, np.column_stack([x, y]), delimiter=",", header=",".join([*names, "y"]), comments="")
    features = [{"name": name} for name in names]
    asked = {"target": {"name": "y"}, "features": features, "network": {"kind": "linear"}, **fields}
    return learn(path, make_recipe(asked))


def said(of: Learned) -> list[str]:
    return [verdict.words for verdict in of.findings.verdicts]


@pytest.fixture
def x() -> Matrix:
    return np.random.default_rng(0).normal(size=(ROWS, 2))


@pytest.fixture
def y(x: Matrix) -> Matrix:
    """A line with a noise of a quarter of its variance, far from zero."""
    return 500 + x @ [2.0, -1.0] + np.random.default_rng(1).normal(size=ROWS)


@pytest.mark.parametrize("optimizer", ["gd", "sgd", "momentum", "rmsprop", "adam", "exact"])
def test_every_optimizer_converges_on_an_ordinary_table_at_its_defaults(
    tmp_path: Path, x: Matrix, y: Matrix, optimizer: str
) -> None:
    of = learned(tmp_path, y, x, schedule={"optimizer": optimizer})
    oracle = LinearRegression().fit(x, y).predict(x)
    assert of.model.fitted.cost == pytest.approx(np.mean((y - oracle) ** 2), rel=0.01)
    assert said(of) == []


def test_rare_categories_are_learned_where_nothing_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(2000) % 500
    y = rng.normal(size=500)[codes] + 0.1 * rng.normal(size=2000)
    path = tmp_path / "table.csv"
    rows = "".join(f"c{code},{value}\n" for code, value in zip(codes, y, strict=True))
    path.write_text(f"c,y\n{rows}")
    features = [{"name": "c", "kind": "categorical"}]
    asked = {"target": {"name": "y"}, "features": features, "network": {"kind": "linear"}}
    of = learn(path, make_recipe(asked))
    means = np.array([y[codes == code].mean() for code in range(500)])
    assert of.model.fitted.cost == pytest.approx(np.mean((y - means[codes]) ** 2), rel=1e-6)
    assert said(of) == []


def test_a_line_that_has_not_arrived_is_told_with_what_to_do(tmp_path: Path, x: Matrix, y: Matrix) -> None:
    of = learned(tmp_path, y, x, schedule={"optimizer": "adam", "epochs": 15})
    above = of.model.fitted.cost / of.model.line.cost
    assert above > 1.01
    (verdict,) = said(of)
    assert verdict.startswith("Its cost, ")
    assert f"{100 * (above - 1):.3g} % above the least that any line reaches" in verdict
    assert verdict.endswith("Take --optimizer exact, or more --epochs.")


def test_what_is_worse_than_the_mean_is_told_first(tmp_path: Path, x: Matrix, y: Matrix) -> None:
    of = learned(tmp_path, y, x, schedule={"learning_rate": 1e-4})
    assert of.held_out is not None
    assert of.held_out.metrics.is_worse_than_the_mean
    first, *others = said(of)
    assert first.startswith("It is worse than predicting the mean: R² on held-out rows is -")
    assert first.endswith("Take --optimizer exact.")
    assert any("above the least that any line reaches" in other for other in others)


def test_what_is_no_better_than_the_mean_is_told_and_is_not_worse(tmp_path: Path, x: Matrix) -> None:
    of = learned(tmp_path, np.random.default_rng(2).normal(size=ROWS), x)
    assert of.held_out is not None
    assert not of.held_out.metrics.is_worse_than_the_mean
    (verdict,) = said(of)
    assert verdict.startswith("It is not surely better than predicting the mean: R² on held-out rows is ")
    assert verdict.endswith("More rows, or inputs that tell more, may help.")


def test_without_scores_the_mean_is_compared_on_the_models_own_rows(
    tmp_path: Path, x: Matrix, y: Matrix
) -> None:
    of = learned(tmp_path, y, x, schedule={"learning_rate": 1e-4}, holdout=0)
    assert said(of)[0].startswith("It is worse than the mean even on its own rows: its cost is ")
    assert said(learned(tmp_path, y, x, holdout=0)) == []


def test_a_network_that_ends_while_it_still_learns_is_told_to_go_on(
    tmp_path: Path, x: Matrix, y: Matrix
) -> None:
    of = learned(tmp_path, y, x, network={"hidden": [8]}, schedule={"epochs": 3})
    assert "It was still getting better after 3 epochs. Take --epochs 6." in said(of)


def test_a_network_behind_the_line_is_told(tmp_path: Path, x: Matrix, y: Matrix) -> None:
    of = learned(tmp_path, y, x, network={"hidden": [2]}, schedule={"epochs": 2})
    assert any("Exact least squares errs less on held-out rows" in words for words in said(of))


def test_a_model_that_errs_more_on_its_own_rows_than_the_scored_on_new_ones_is_told(
    tmp_path: Path, x: Matrix, y: Matrix
) -> None:
    of = learned(tmp_path, y, x)
    assert of.held_out is not None
    own = own_rows(of.model, of.table)
    assert verdicts_on(of.recipe, of.model, own, of.held_out, of.interval) == ()
    unlike = replace(own, cost=2 * float(np.mean(of.held_out.residuals.values**2)))
    (verdict,) = verdicts_on(of.recipe, of.model, unlike, of.held_out, of.interval)
    assert "its scores are those of others" in verdict.words


def test_why_there_is_no_interval_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    few = learned(tmp_path, rng.normal(size=8), rng.normal(size=(8, 1)))
    assert few.interval is None
    assert any("It claims no interval: 8 held-out rows are too few, 9 are needed" in s for s in said(few))
    wide = learned(tmp_path, rng.normal(size=40), rng.normal(size=(40, 35)))
    assert wide.interval is None
    assert any("a line with 36 weights from 32 rows tells little" in words for words in said(wide))
