import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model_store.columns import Matrix
from model_store.manifest import Linear
from training import blocks
from training.blocks import Blocks
from training.descent import Diverged, descend
from training.network import FeedForward
from training.reading import read_table
from training.recipe import Optimizer, Recipe, Schedule, make_recipe
from training.splits import hold_out_rows
from training.stability import Unstable, full_batch_bound, largest_stable, rounded_down
from training.train import train

CARS = 640
FAR_KM = 6_500_000


def correlated(rows: int = 500) -> Matrix:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 3)) @ (np.eye(3) + 0.4 * rng.normal(size=(3, 3))) + [0.5, -1, 1]
    return np.column_stack([x, x @ [1.0, -2, 0.5] + rng.normal(size=rows)])


def stable_rate(inputs: Matrix) -> float:
    design = np.column_stack([inputs, np.ones(len(inputs))])
    return float(1 / np.linalg.eigvalsh(design.T @ design / len(design)).max())


def test_the_full_batch_bound_is_one_over_the_largest_eigenvalue(monkeypatch: pytest.MonkeyPatch) -> None:
    table = correlated()
    expected = pytest.approx(stable_rate(table[:, :-1]), rel=1e-12)
    assert full_batch_bound(Blocks([table], 4)).learning_rate == expected
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 300)
    assert full_batch_bound(Blocks([table], 4)).learning_rate == expected


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "factor", "below"),
    [
        ("gd", 64, 1.0, 0.99),
        ("sgd", 500, 1.0, 0.99),
        ("sgd", 251, 1.0, 0.99),
        ("momentum", 500, 1.9, 0.997),
    ],
)
def test_a_descent_with_all_rows_converges_just_below_its_bound_and_diverges_just_above_it(
    optimizer: Optimizer, batch_size: int, factor: float, below: float
) -> None:
    table = correlated()
    data = Blocks([table], 4)
    schedule = Schedule(optimizer=optimizer, batch_size=batch_size, epochs=2000)
    found = largest_stable(schedule, data)
    assert found is not None
    assert found.learning_rate == pytest.approx(factor * stable_rate(table[:, :-1]), rel=1e-12)
    converging, diverging = (
        schedule.model_copy(update={"learning_rate": found.learning_rate * share}) for share in (below, 1.01)
    )
    fitted = descend(FeedForward(Linear(), 3, 0), converging, data).network.tensors()
    expected = np.linalg.lstsq(np.column_stack([table[:, :-1], np.ones(len(table))]), table[:, -1])[0]
    assert fitted["layers.0.weight"][0] == pytest.approx(expected[:-1], abs=1e-8)
    assert fitted["layers.0.bias"][0] == pytest.approx(expected[-1], abs=1e-8)
    with pytest.raises(Diverged):
        descend(FeedForward(Linear(), 3, 0), diverging, data)


@pytest.mark.parametrize(
    ("optimizer", "batch_size"), [("sgd", 250), ("momentum", 64), ("rmsprop", 500), ("adam", 500)]
)
def test_no_bound_is_claimed_for_parts_of_the_rows_and_for_steps_of_their_own_length(
    optimizer: Optimizer, batch_size: int
) -> None:
    schedule = Schedule(optimizer=optimizer, batch_size=batch_size)
    assert largest_stable(schedule, Blocks([correlated()], 4)) is None


def test_no_bound_is_claimed_where_each_block_is_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 300)
    assert largest_stable(Schedule(optimizer="sgd", batch_size=500), Blocks([correlated()], 4)) is None


@pytest.mark.parametrize("number", [1.0, 0.99999999, 1.23456, 8.4899999e-11, 123456.7, 2 / 3])
def test_a_bound_is_printed_to_four_digits_and_never_above_itself(number: float) -> None:
    printed = float(rounded_down(number))
    assert number * (1 - 1e-3) < printed <= number


@pytest.fixture(scope="module")
def outlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Used cars, one of which has 6,500,000 km."""
    rng = np.random.default_rng(0)
    km = rng.normal(57_000, 30_000, size=CARS).round()
    km[123] = FAR_KM
    table = pd.DataFrame(
        {"km": km, "year": rng.integers(2000, 2020, CARS), "price": rng.gamma(2.0, 4.7, CARS)}
    )
    path = tmp_path_factory.mktemp("outlier") / "cars.csv"
    table.to_csv(path, index=False)
    return path


def recipe(optimizer: Optimizer, *, network: dict[str, object] | None = None, **schedule: object) -> Recipe:
    return make_recipe(
        {
            "target": {"name": "price"},
            "features": [{"name": "year"}, {"name": "km"}],
            "schedule": {"optimizer": optimizer, "epochs": 40, **schedule},
            **({"network": network} if network else {}),
        }
    )


def with_rate(asked: Recipe, rate: float) -> Recipe:
    schedule = asked.schedule.model_copy(update={"learning_rate": rate})
    return asked.model_copy(update={"schedule": schedule})


def refusal(asked: Recipe, path: Path) -> str:
    with pytest.raises(Unstable) as refused:
        train(asked, read_table(path, asked))
    return str(refused.value)


def holds(asked: Recipe, path: Path) -> bool:
    try:
        history = train(asked, read_table(path, asked)).fitted.history
    except Unstable:
        return False
    return history[-1] < history[0] and history[-1] <= 1.1 * min(history)


@pytest.mark.parametrize(
    "asked",
    [
        recipe("sgd", learning_rate=0.5),
        recipe("momentum", learning_rate=0.1),
        recipe("momentum", learning_rate=0.04),
        recipe("momentum", network={"hidden": [4]}, learning_rate=20.0),
        recipe("gd", network={"hidden": [4]}, learning_rate=500.0),
        recipe("rmsprop", network={"hidden": [4], "activation": "tanh"}, learning_rate=5.0),
    ],
    ids=["sgd", "momentum", "momentum as was advised", "mlp", "mlp with all rows", "mlp by rmsprop"],
)
def test_an_advised_rate_was_tried_and_holds_and_the_one_before_does_not(
    asked: Recipe, outlier: Path
) -> None:
    text = refusal(asked, outlier)
    assert f"the learning rate {asked.schedule.learning_rate:g} is too large" in text
    number = r"([\d.e+-]+\d)"
    ((holding, diverging),) = re.findall(
        f"Take --learning-rate {number}: on the 640 rows it was tried and holds, {number} was tried", text
    )
    assert float(holding) == pytest.approx(float(diverging) / 2, rel=0.1)
    assert holds(with_rate(asked, float(holding)), outlier)
    assert not holds(with_rate(asked, float(diverging)), outlier)
    assert re.search(r"km reaches a z-score of \d\d\.\d+: is that row right\?$", text)


def test_momentum_with_all_rows_is_not_refused_below_its_own_bound(outlier: Path) -> None:
    asked = recipe("momentum", batch_size=CARS, learning_rate=1.5, epochs=400)
    model = train(asked, read_table(outlier, asked))
    assert model.fitted.cost == pytest.approx(model.line.cost, rel=1e-9)


@pytest.mark.parametrize("optimizer", ["gd", "momentum"])
def test_a_bound_is_explained_by_the_input_and_half_of_it_converges(
    outlier: Path, optimizer: Optimizer
) -> None:
    asked = recipe(optimizer, batch_size=CARS, learning_rate=3.0, epochs=400)
    text = refusal(asked, outlier)
    (said,) = re.findall(r"For the 640 rows the largest stable one is (\d[\d.]*),", text)
    (advised,) = re.findall(r"--learning-rate (\d[\d.]*)$", text)
    assert float(advised) == pytest.approx(float(said) / 2, rel=0.05)
    model = train(with_rate(asked, float(advised)), read_table(outlier, asked))
    assert model.fitted.cost == pytest.approx(model.line.cost, rel=1e-9)


def test_raw_inputs_are_refused_with_the_bound_and_the_way_out(outlier: Path) -> None:
    raw = pd.read_csv(outlier)[["year", "km"]].to_numpy(float)
    text = refusal(recipe("gd", normalize="none"), outlier)
    assert f"For the 640 rows the largest stable one is {rounded_down(stable_rate(raw))}" in text
    assert "because km reaches 6.5e+06. Leave out --normalize none" in text


@pytest.mark.parametrize(
    ("asked", "remedy"),
    [
        (recipe("sgd", normalize="none"), "Leave out --normalize none"),
        (recipe("sgd", learning_rate=1e9), "Take --optimizer exact"),
        (recipe("gd", network={"hidden": [4]}, learning_rate=1e30), "Look for an outlier"),
    ],
    ids=["raw", "line", "mlp"],
)
def test_where_no_tried_rate_holds_there_is_another_way_out(
    asked: Recipe, remedy: str, outlier: Path
) -> None:
    text = refusal(asked, outlier)
    (least,) = re.findall(r"On the 640 rows not even ([\d.e+-]+) holds, which was tried", text)
    assert float(least) == pytest.approx(asked.schedule.learning_rate / 2**16, rel=0.05)
    assert remedy in text


def test_a_fit_of_some_rows_says_of_how_many(outlier: Path) -> None:
    asked = recipe("gd", learning_rate=3.0)
    table = read_table(outlier, asked)
    with pytest.raises(Unstable, match=r"For the 512 rows the largest"):
        train(asked, table.take(hold_out_rows(table, 0.2, 0).seen))


def test_a_category_is_blamed_by_its_value_which_has_no_z_score(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("fuel,y\n" + "petrol,1\n" * 90 + "diesel,2\n" * 10)
    asked = make_recipe(
        {
            "target": {"name": "y"},
            "features": [{"name": "fuel", "kind": "categorical"}],
            "schedule": {"learning_rate": 50.0},
        }
    )
    with pytest.raises(Unstable, match=r"because (the bias|fuel = petrol) reaches 1\. Take"):
        train(asked, read_table(path, asked))
