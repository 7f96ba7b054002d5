from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from model_store.columns import Matrix
from model_store.manifest import Linear
from training import blocks
from training.blocks import Blocks
from training.descent import Diverged, descend
from training.network import FeedForward
from training.reading import read_table
from training.recipe import Optimizer, Recipe, Schedule, make_recipe
from training.stability import Unstable, full_batch_bound, largest_stable, worst_batch_bound
from training.train import train

CARS = 6019


def correlated(rows: int = 500) -> Matrix:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, 3)) + [0.5, -1, 2]
    return np.column_stack([x, x @ [1.0, -2, 0.5] + rng.normal(size=rows)])


def stable_rate(inputs: Matrix) -> float:
    design = np.column_stack([inputs, np.ones(len(inputs))])
    return float(1 / np.linalg.eigvalsh(design.T @ design / len(design)).max())


def batches(rows: int, size: int, seed: int) -> list[Matrix]:
    """The first epoch's batches, as row numbers, of a table of one block."""
    generator = torch.Generator().manual_seed(seed)
    torch.randperm(1, generator=generator)
    order = torch.randperm(rows, generator=generator).numpy()
    return np.split(order, range(size, rows, size))


def test_the_full_batch_bound_is_one_over_the_largest_eigenvalue(monkeypatch: pytest.MonkeyPatch) -> None:
    table = correlated()
    expected = pytest.approx(stable_rate(table[:, :-1]), rel=1e-12)
    assert full_batch_bound(Blocks([table], 4)).learning_rate == expected
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 300)
    assert full_batch_bound(Blocks([table], 4)).learning_rate == expected


def test_gradient_descent_converges_just_below_the_bound_and_diverges_just_above_it() -> None:
    table = correlated()
    data, rate = Blocks([table], 4), stable_rate(table[:, :-1])
    below, above = (
        Schedule(learning_rate=rate * share, epochs=epochs) for share, epochs in ((0.99, 9000), (1.01, 2000))
    )
    fitted = descend(FeedForward(Linear(), 3, 0), below, data).network.tensors()
    expected = np.linalg.lstsq(np.column_stack([table[:, :-1], np.ones(len(table))]), table[:, -1])[0]
    assert fitted["layers.0.weight"][0] == pytest.approx(expected[:-1], abs=1e-8)
    assert fitted["layers.0.bias"][0] == pytest.approx(expected[-1], abs=1e-8)
    with pytest.raises(Diverged):
        descend(FeedForward(Linear(), 3, 0), above, data)


@pytest.mark.parametrize(("optimizer", "share"), [("sgd", 1.0), ("momentum", 1.0)])
def test_the_worst_batchs_bound_is_that_of_the_first_epochs_batches(
    optimizer: Optimizer, share: float
) -> None:
    table = correlated()
    expected = share * min(stable_rate(table[rows, :-1]) for rows in batches(500, 32, seed=4))
    schedule = Schedule(optimizer=optimizer, batch_size=32, seed=4)
    assert worst_batch_bound(schedule, Blocks([table], 4)).learning_rate == pytest.approx(expected, rel=1e-12)


def test_optimizers_that_choose_their_step_have_no_bound() -> None:
    for optimizer in ("rmsprop", "adam"):
        schedule = Schedule.model_validate({"optimizer": optimizer})
        assert largest_stable(schedule, Blocks([correlated()], 4)) is None


@pytest.fixture(scope="module")
def outlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Used cars, one of which has 6,500,000 km: a z-score of about 70."""
    rng = np.random.default_rng(0)
    km = rng.normal(57_000, 30_000, size=CARS).round()
    km[1234] = 6_500_000
    table = pd.DataFrame(
        {"km": km, "year": rng.integers(2000, 2020, CARS), "price": rng.gamma(2.0, 4.7, CARS)}
    )
    path = tmp_path_factory.mktemp("outlier") / "cars.csv"
    table.to_csv(path, index=False)
    return path


def recipe(optimizer: Optimizer, **schedule: object) -> Recipe:
    return make_recipe(
        {
            "target": {"name": "price"},
            "features": [{"name": "year"}, {"name": "km"}],
            "schedule": {"optimizer": optimizer, "epochs": 20, **schedule},
        }
    )


def z_scores(path: Path) -> Matrix:
    inputs = pd.read_csv(path)[["year", "km"]].to_numpy(float)
    scores: Matrix = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    return scores


@pytest.mark.parametrize(("optimizer", "share"), [("sgd", 1.0), ("momentum", 1.0)])
def test_an_outlier_that_breaks_a_batch_is_refused_with_the_bound_and_the_input(
    outlier: Path, optimizer: Optimizer, share: float
) -> None:
    z = z_scores(outlier)
    assert 65 < z.max() < 75
    rate = share * min(stable_rate(z[rows]) for rows in batches(CARS, 64, seed=0))
    asked = recipe(optimizer)
    with pytest.raises(Unstable) as refusal:
        train(asked, read_table(outlier, asked))
    text = str(refusal.value)
    assert "learning rate 0.1 is too large" in text
    assert f"worst batch of 64 rows the largest stable one is {rate:.4g}" in text
    assert f"km reaches a z-score of {z.max():.4g}" in text
    assert f"--learning-rate {rate / 2:.2g}" in text
    assert "Nothing was published" in text


def test_the_advised_learning_rate_trains_and_so_do_gd_and_adam(outlier: Path) -> None:
    z = z_scores(outlier)
    rate = min(stable_rate(z[rows]) for rows in batches(CARS, 64, seed=0))
    for asked in (
        recipe("sgd", learning_rate=float(f"{rate / 2:.2g}")),
        recipe("gd", epochs=300),
        recipe("adam"),
    ):
        model = train(asked, read_table(outlier, asked))
        assert model.fitted.cost < 1.05 * model.line.cost


def test_raw_inputs_are_refused_with_the_bound_and_the_way_out(outlier: Path) -> None:
    raw = pd.read_csv(outlier)[["year", "km"]].to_numpy(float)
    asked = recipe("gd", normalize="none")
    with pytest.raises(Unstable) as refusal:
        train(asked, read_table(outlier, asked))
    text = str(refusal.value)
    assert f"For all rows the largest stable one is {stable_rate(raw):.4g}" in text
    assert "km reaches 6.5e+06" in text
    assert "Leave out --normalize none" in text


def test_a_category_is_blamed_by_its_value_and_an_mlp_without_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("fuel,y\n" + "petrol,1\n" * 90 + "diesel,2\n" * 10)
    asked = {
        "target": {"name": "y"},
        "features": [{"name": "fuel", "kind": "categorical"}],
        "schedule": {"learning_rate": 50.0},
    }
    table = read_table(path, line := make_recipe(asked))
    with pytest.raises(Unstable, match=r"(the bias|fuel = petrol) reaches a z-score of 1"):
        train(line, table)
    with pytest.raises(
        Unstable, match=r"learning rate 50 is too large for these data. Try --learning-rate 5$"
    ):
        train(make_recipe({**asked, "network": {"hidden": [4], "activation": "tanh"}}), table)


def test_momentum_stays_bounded_just_below_its_own_bound() -> None:
    table = correlated()
    schedule = Schedule(optimizer="momentum", batch_size=500)
    rate = worst_batch_bound(schedule, Blocks([table], 4)).learning_rate
    sound = schedule.model_copy(update={"learning_rate": rate * 0.99, "epochs": 300})
    history = descend(FeedForward(Linear(), 3, 0), sound, Blocks([table], 4)).history
    assert all(later < 1.5 * earlier for earlier, later in pairwise(history[200:]))
