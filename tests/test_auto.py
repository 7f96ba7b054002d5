"""Which network is chosen for a table, and what is kept when there is no time for all."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest

from model_store.columns import Matrix
from model_store.manifest import Linear
from model_store.store import Store
from training import auto, pipeline
from training.auto import Candidate, Choice, simplest
from training.blocks import Blocks
from training.data import Table
from training.ensemble import fit_ensemble
from training.pipeline import fit, learn
from training.publish import Learned
from training.recipe import EnsembleNetwork, Recipe, RidgeNetwork, make_recipe
from training.train import Model, train
from training.verify import train_again

ROWS: Final = 250
INPUTS: Final = ["x0", "x1", "x2", "x3", "x4"]


def recipe(**fields: Any) -> Recipe:
    return make_recipe({"target": {"name": "y"}, "network": {"kind": "auto"}, **fields})


def drawn(seed: int = 0) -> tuple[Matrix, Matrix]:
    """Five uniform inputs and noise of the standard deviation 1."""
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(ROWS, 5)), rng.normal(size=ROWS)


def write(path: Path, inputs: Matrix, target: Matrix) -> Path:
    pd.DataFrame({**dict(zip(INPUTS, inputs.T, strict=True)), "y": target}).to_csv(path, index=False)
    return path


@pytest.fixture
def friedman(tmp_path: Path) -> Path:
    """The first table of Friedman, Multivariate Adaptive Regression Splines, 1991, section 4.3."""
    x, noise = drawn()
    target = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return write(tmp_path / "friedman.csv", x, target + noise)


def names(learned: Learned) -> list[str]:
    return [trial.name for trial in learned.findings.trials]


def chosen(learned: Learned) -> str:
    (trial,) = [trial for trial in learned.findings.trials if trial.is_chosen]
    return trial.name


def test_the_ensemble_is_chosen_where_inputs_act_on_one_another(friedman: Path) -> None:
    learned = learn(friedman, recipe())
    assert (names(learned), chosen(learned)) == (["line", "additive", "ensemble"], "ensemble")
    assert isinstance(learned.recipe.network, EnsembleNetwork)
    assert learned.recipe.network.epochs == learned.model.fitted.epochs


def test_the_additive_model_is_chosen_for_a_sum_of_curves(tmp_path: Path) -> None:
    x, noise = drawn()
    path = write(tmp_path / "sum.csv", x, np.sin(6 * x[:, 0]) + np.abs(x[:, 1] - 0.5) + 0.2 * noise)
    learned = learn(path, recipe())
    assert chosen(learned) == "additive"
    assert (learned.recipe.network, learned.recipe.encoding) == (RidgeNetwork(), "piecewise")
    assert learned.model.fitted.network.hidden == []


def test_the_line_is_chosen_for_a_line(tmp_path: Path) -> None:
    x, noise = drawn()
    learned = learn(write(tmp_path / "line.csv", x, 3 * x[:, 0] - 2 * x[:, 1] + noise), recipe())
    assert chosen(learned) == "line"
    assert (learned.recipe.network, learned.recipe.encoding) == (RidgeNetwork(), "z-score")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Any model."""
    path = write(tmp_path_factory.mktemp("any") / "any.csv", *drawn())
    return learn(path, recipe(network={"kind": "ridge"}, holdout=0)).model


def choice(
    model: Model, errors: Matrix, weights: Matrix | None = None, groups: Matrix | None = None
) -> Choice:
    """What is chosen of candidates, the simplest first, with these squared errors (candidates, rows)."""
    asked = recipe(**({} if groups is None else {"split": "group:g"}))
    blocks = Blocks([np.zeros((errors.shape[1], 1))], 1, weights)
    table = Table("t.csv", asked, blocks, {}, {}, {}, "", groups)
    return simplest(
        [Candidate(str(place), asked, model, each, 0.0) for place, each in enumerate(errors)], table
    )


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        # Above the least by 1 in each row: surely worse.
        ([[2, 2, 2, 2], [1, 1, 1, 1]], 1),
        # By 0, 0, 2 and 2: the mean is 1, its standard error 1 / √4.
        ([[1, 1, 3, 3], [1, 1, 1, 1]], 1),
        # By -1, -1, 2 and 2: the mean is 0.5, its standard error 1.5 / √4.
        ([[0, 0, 3, 3], [1, 1, 1, 1]], 0),
        # The second is not surely worse than the last, which is the best; the first is.
        ([[4, 4, 4, 4], [0, 0, 3, 3], [1, 1, 1, 1]], 1),
        # Of equal ones the simpler.
        ([[1, 2], [2, 1]], 0),
        ([[1, 1, 1, 1]], 0),
    ],
)
def test_the_simplest_that_is_within_one_standard_error_of_the_best_is_chosen(
    model: Model, errors: list[list[float]], expected: int
) -> None:
    found = choice(model, np.array(errors, dtype=float))
    assert [trial.is_chosen for trial in found.trials] == [place == expected for place in range(len(errors))]
    assert [trial.cost for trial in found.trials] == [np.mean(each) for each in errors]


def test_the_standard_error_is_that_of_the_mean_difference(model: Model) -> None:
    rng = np.random.default_rng(0)
    errors = rng.exponential(size=(2, 400)) + np.array([[0.5], [0.0]])
    worse, best = choice(model, errors).trials
    assert worse.excess == pytest.approx(np.mean(errors[0] - errors[1]))
    assert worse.uncertainty == pytest.approx(np.std(errors[0] - errors[1]) / 20)
    assert (best.excess, best.uncertainty) == (0, 0)


def test_rows_of_much_weight_make_a_difference_more_uncertain(model: Model) -> None:
    rng = np.random.default_rng(1)
    weights = rng.exponential(size=100)
    # The oracle: how the weighted mean of differences varies from table to table.
    differences = rng.normal(size=(4000, 100))
    spread = np.std(differences @ weights / weights.sum())
    told = [
        choice(model, np.array([9 + each, np.full(100, 1.0)]), weights).trials[0].uncertainty
        for each in differences[:200]
    ]
    assert np.sqrt(np.mean(np.square(told))) == pytest.approx(spread, rel=0.1)


def test_copies_of_rows_in_their_groups_make_nothing_more_certain(model: Model) -> None:
    errors = np.random.default_rng(2).exponential(size=(2, 50))
    alone = choice(model, errors).trials
    groups = np.repeat(np.arange(50.0), 9)
    together = choice(model, np.repeat(errors, 9, axis=1), groups=groups).trials
    apart = choice(model, np.repeat(errors, 9, axis=1)).trials
    for one, copied, doubted in zip(alone, together, apart, strict=True):
        assert copied.uncertainty == pytest.approx(one.uncertainty, rel=1e-12)
        assert doubted.uncertainty == pytest.approx(one.uncertainty / 3, rel=1e-12)


def test_when_the_minutes_are_over_it_is_the_line(friedman: Path) -> None:
    learned = learn(friedman, recipe(network={"kind": "auto", "minutes": 1e-9}))
    assert (names(learned), chosen(learned)) == (["line"], "line")


def interrupt_at(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """Interrupt the training of the candidate at this place."""
    started: list[Recipe] = []

    def training(recipe: Recipe, *arguments: Any, **options: Any) -> Model:
        started.append(recipe)
        if len(started) > place:
            raise KeyboardInterrupt
        return train(recipe, *arguments, **options)

    monkeypatch.setattr(auto, "train", training)


@pytest.mark.parametrize(("place", "kept"), [(1, "line"), (2, "additive")])
def test_an_interrupt_keeps_the_best_so_far(
    friedman: Path, monkeypatch: pytest.MonkeyPatch, place: int, kept: str
) -> None:
    interrupt_at(monkeypatch, place)
    learned = learn(friedman, recipe())
    assert (names(learned), chosen(learned)) == (["line", "additive"][:place], kept)


def test_an_interrupt_before_anything_is_finished_is_one(
    friedman: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    interrupt_at(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        fit(friedman, recipe(), "toy", store)
    assert not Path(store.url).exists()


@pytest.mark.parametrize("kind", ["auto", "ensemble"])
def test_an_ensemble_that_was_interrupted_trains_again_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store, kind: str
) -> None:
    x, noise = drawn()
    path = write(tmp_path / "product.csv", x, 10 * (x[:, 0] - 0.5) * (x[:, 1] - 0.5) + 0.1 * noise)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        def on_epoch(epoch: int, _cost: float) -> None:
            if epoch == 30:
                raise KeyboardInterrupt

        return fit_ensemble(*arguments, **options | {"on_epoch": on_epoch})

    with monkeypatch.context() as patch:
        patch.setattr("training.crossed.fit_ensemble", interrupted)
        asked = recipe(network={"kind": kind}, features=[{"name": "x0"}, {"name": "x1"}])
        learned = fit(path, asked, "toy", store).learned
    assert 0 < learned.model.fitted.epochs < 30
    assert learned.recipe.network == EnsembleNetwork(epochs=learned.model.fitted.epochs)
    assert train_again(store.load("toy", 1), None, pytest.fail) == []


def test_of_a_table_too_long_for_memory_a_line_is_solved_for(
    friedman: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MOST_ROWS", ROWS - 1)
    learned = learn(friedman, recipe())
    assert (names(learned), learned.recipe.network) == ([], Linear())
    assert learned.model.fitted.cost == learned.model.line.cost


def test_costs_are_those_of_the_logarithm_where_it_is_trained(tmp_path: Path) -> None:
    x, noise = drawn()
    path = write(tmp_path / "log.csv", x, np.exp(10 + 3 * x[:, 0] + 0.5 * noise))
    learned = learn(path, recipe(target={"name": "y", "transform": "log"}))
    (trial, *_) = learned.findings.trials
    assert trial.cost == pytest.approx(0.25, rel=0.3)
    assert learned.held_out
    residuals = np.log(learned.held_out.actual) - np.log(learned.held_out.predicted)
    assert [each.cost for each in learned.findings.trials if each.is_chosen] == [
        pytest.approx(np.mean(residuals**2), rel=1e-9)
    ]


def test_of_noise_the_line_is_chosen_though_no_epoch_does_any_good(tmp_path: Path) -> None:
    noise = np.random.default_rng(4).normal(size=(120, 4))
    path = tmp_path / "noise.csv"
    pd.DataFrame(noise, columns=list("abcy")).to_csv(path, index=False)
    learned = learn(path, recipe())
    assert (names(learned), chosen(learned)) == (["line", "additive", "ensemble"], "line")
    ensemble = learn(path, recipe(network={"kind": "ensemble"}))
    assert ensemble.recipe.network == EnsembleNetwork(epochs=0)
    again = learn(path, ensemble.recipe)
    assert again.held_out
    assert ensemble.held_out
    assert again.held_out.metrics == ensemble.held_out.metrics
