import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

import training
from model_store.answers import Answerer
from model_store.errors import InvalidName, NothingPromoted
from model_store.store import Store
from training.console import Narrator
from training.data import DataError, Table
from training.pipeline import compare, fit
from training.recipe import Recipe, make_recipe


def recipe(**fields: Any) -> Recipe:
    return make_recipe({"target": {"name": "y"}, "features": [{"name": "x"}], **fields})


def write_line(path: Path, rows: int) -> Path:
    """A table of x and y around a line."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    table = np.column_stack([x, 3 * x + 1 + rng.normal(size=rows)])
    np.savetxt(path, table, delimiter=",", header="x,y", comments="")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_line(tmp_path / "line.csv", 200)


def test_a_program_gets_the_manifest_the_model_and_the_scores_and_hears_nothing(
    table: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    published = fit(table, recipe(), "line", store)
    assert capfd.readouterr() == ("", "")
    stored = store.load("line", published.manifest.version)
    assert stored.manifest == published.manifest
    assert published.learned.held_out is not None
    assert stored.manifest.metrics == published.learned.held_out.metrics
    x = [-1.0, 0.0, 2.5]
    assert stored.predictor.predict({"x": x}) == pytest.approx(
        published.learned.model.predict({"x": x}), rel=1e-12
    )
    with pytest.raises(NothingPromoted):
        store.load_promoted("line")


@pytest.mark.parametrize("transform", ["none", "log"])
def test_the_reports_picture_is_drawn_from_the_bits_that_are_served(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, transform: str
) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=200)
    rows = np.column_stack([x, np.exp(0.5 * x + rng.normal(size=200) / 3)])
    path = tmp_path / "table.csv"
    np.savetxt(path, rows, delimiter=",", header="x,y", comments="")
    drawn: list[Any] = []
    monkeypatch.setattr(Axes, "fill_between", lambda _axes, *arrays, **_: drawn.append(arrays))
    fit(path, recipe(target={"name": "y", "transform": transform}), "line", store)
    answerer = Answerer(store.load("line", 1).predictor)
    ((at, low, high),) = drawn
    assert len(at) > 50
    served = [answerer.answer_row([float(value)]) for value in at]
    assert [(answer.lower, answer.upper) for answer in served] == list(zip(low, high, strict=True))


def test_the_report_of_a_version_that_no_command_made_gives_none(table: Path, store: Store) -> None:
    published = fit(table, recipe(holdout=0), "line", store)
    assert published.learned.held_out is None
    report = store.load("line", published.manifest.version).report
    assert report is not None
    assert b"How to make it again" in report
    assert b"<pre>" not in report


def test_an_mlp_is_trained_for_the_epochs_that_do_best(table: Path, store: Store) -> None:
    schedule = {"optimizer": "adam", "learning_rate": 0.05, "epochs": 300}
    asked = recipe(network={"hidden": [8]}, schedule=schedule)
    epochs = fit(table, asked, "line", store).manifest.training.epochs
    assert 0 < epochs < 300
    assert fit(table, asked.model_copy(update={"holdout": 0}), "line", store).manifest.training.epochs == 300


def test_the_same_arguments_give_the_same_bits_however_many_threads_the_caller_lets_torch_use(
    tmp_path: Path, store: Store
) -> None:
    # As many rows as torch shares between threads.
    path = write_line(tmp_path / "long.csv", 40_000)
    asked = recipe(schedule={"optimizer": "exact"}, holdout=0)
    before, weights = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            weights.append(fit(path, asked, "line", store).learned.model.fitted.network.tensors())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_comparing_is_timed_under_the_setting_that_fitting_trains_under(table: Path, store: Store) -> None:
    threads = []

    class Counting(Narrator):
        def table(self, table: Table) -> None:
            super().table(table)
            threads.append(torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        fit(table, recipe(schedule={"epochs": 1}), "line", store, narrator=Counting(quiet=True))
        compare(table, recipe(schedule={"epochs": 1}), narrator=Counting(quiet=True))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1]


def test_a_program_compares_and_hears_nothing(table: Path, capfd: pytest.CaptureFixture[str]) -> None:
    comparison = compare(table, recipe(schedule={"epochs": 3}))
    assert capfd.readouterr() == ("", "")
    assert [run.optimizer for run in comparison.runs] == ["gd", "sgd", "momentum", "rmsprop", "adam"]
    assert comparison.html().startswith(b"<!DOCTYPE html>")


def test_what_cannot_be_trained_raises_and_leaves_no_store(tmp_path: Path, store: Store) -> None:
    with pytest.raises(InvalidName):
        fit(tmp_path / "nowhere.csv", recipe(), "../x", store)
    with pytest.raises(DataError):
        fit(tmp_path / "nowhere.csv", recipe(), "line", store)
    assert not Path(store.url).exists()


def test_the_package_names_modules_and_is_imported_without_torch() -> None:
    assert all(find_spec(f"training.{name}") for name in training.__all__)
    code = "import sys, training; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (result.stdout, result.stderr) == ("False\n", "")
