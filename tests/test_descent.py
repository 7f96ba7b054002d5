from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch

from model_store.columns import Matrix
from model_store.manifest import Linear, Mlp, Network
from training import blocks
from training.blocks import Blocks
from training.descent import Diverged, descend
from training.network import FeedForward
from training.recipe import Optimizer, Schedule
from training.rows import Rows

INPUTS = 3
DESCENTS: tuple[Optimizer, ...] = ("gd", "sgd", "momentum", "rmsprop", "adam")
MakeOptimizer = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]


def xy(rows: int = 300, seed: int = 1) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, INPUTS))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x, x @ rng.normal(size=INPUTS) + 4 + rng.normal(size=rows)


def data(rows: int = 300, seed: int = 1) -> Blocks:
    x, y = xy(rows, seed)
    return Blocks([np.column_stack([x, y])], INPUTS + 1)


def schedule(
    optimizer: Optimizer = "gd", *, rate: float = 0.1, epochs: int = 20, batch_size: int = 64, seed: int = 0
) -> Schedule:
    return Schedule(optimizer=optimizer, learning_rate=rate, epochs=epochs, batch_size=batch_size, seed=seed)


def network(kind: Network | None = None, seed: int = 0) -> FeedForward:
    return FeedForward(kind or Linear(), INPUTS, seed)


def line(trained: FeedForward) -> Matrix:
    """The weights and then the bias."""
    tensors = trained.tensors()
    return np.append(tensors["layers.0.weight"][0], tensors["layers.0.bias"])


def optimum(x: Matrix, y: Matrix) -> Matrix:
    return np.asarray(np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y)[0], np.float64)


def cost(weights: Matrix, x: Matrix, y: Matrix) -> float:
    return float(np.mean((x @ weights[:-1] + weights[-1] - y) ** 2))


def test_gradient_descent_arrives_at_the_closed_form() -> None:
    fitted = descend(network(), schedule(epochs=1000), data())
    assert line(fitted.network) == pytest.approx(optimum(*xy()), abs=1e-12)


def test_one_epoch_of_gradient_descent_is_one_step_down_the_gradient() -> None:
    x, y = xy()
    before, after = line(network()), line(descend(network(), schedule(epochs=1), data()).network)
    residuals = x @ before[:-1] + before[-1] - y
    gradient = 2 * np.append(x.T @ residuals, residuals.sum()) / len(y)
    assert after == pytest.approx(before - 0.1 * gradient, abs=1e-14)


@pytest.mark.parametrize("optimizer", DESCENTS)
@pytest.mark.parametrize("kind", [Linear(), Mlp(hidden=(8, 4), activation="tanh")])
def test_the_same_arguments_give_the_same_bits_and_another_seed_does_not(
    kind: Network, optimizer: Optimizer
) -> None:
    weights = [
        descend(
            network(kind, seed), schedule(optimizer, rate=0.01, epochs=5, seed=seed), data()
        ).network.tensors()
        for seed in (7, 7, 8)
    ]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not any(np.array_equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_the_seed_of_the_schedule_decides_the_batches() -> None:
    weights = [line(descend(network(), schedule("sgd", seed=seed), data()).network) for seed in (1, 2)]
    assert not np.array_equal(weights[0], weights[1])


def test_training_leaves_torchs_random_numbers_alone() -> None:
    torch.manual_seed(1)
    undisturbed = torch.rand(1)
    torch.manual_seed(1)
    descend(network(), schedule("sgd", epochs=1), data())
    assert torch.equal(torch.rand(1), undisturbed)


@pytest.mark.parametrize(
    ("optimizer", "make"),
    [
        ("gd", lambda weights: torch.optim.SGD(weights, 0.01)),
        ("sgd", lambda weights: torch.optim.SGD(weights, 0.01)),
        ("momentum", lambda weights: torch.optim.SGD(weights, 0.01, momentum=0.9)),
        ("rmsprop", lambda weights: torch.optim.RMSprop(weights, 0.01)),
        ("adam", lambda weights: torch.optim.Adam(weights, 0.01)),
    ],
)
def test_an_optimizer_is_torchs_on_batches_of_all_rows(optimizer: Optimizer, make: MakeOptimizer) -> None:
    x, y = map(torch.from_numpy, xy())
    plain = network(Mlp(hidden=(4,)))
    descent = make(plain.parameters())
    for _ in range(30):
        descent.zero_grad()
        torch.autograd.backward(torch.mean((plain(x).reshape(-1) - y) ** 2))
        descent.step()
    fitted = descend(
        network(Mlp(hidden=(4,))), schedule(optimizer, rate=0.01, epochs=30, batch_size=300), data()
    )
    for name, tensor in plain.tensors().items():
        assert fitted.network.tensors()[name] == pytest.approx(tensor, rel=1e-9, abs=1e-12)


def test_stochastic_gradient_descent_steps_down_the_gradient_of_each_batch() -> None:
    x, y = xy()
    generator = torch.Generator().manual_seed(5)
    torch.randperm(1, generator=generator)  # the order of the blocks, of which there is one
    order = torch.randperm(len(y), generator=generator).numpy()
    expected = line(network())
    for start, end in ((0, 64), (64, 128), (128, 192), (192, 300)):
        batch = order[start:end]
        residuals = x[batch] @ expected[:-1] + expected[-1] - y[batch]
        expected = expected - 0.1 * 2 * np.append(x[batch].T @ residuals, residuals.sum()) / len(batch)
    fitted = descend(network(), schedule("sgd", epochs=1, seed=5), data())
    assert line(fitted.network) == pytest.approx(expected, abs=1e-13)


def test_every_epoch_takes_every_row_once_in_a_new_order() -> None:
    rows, generator = Rows(data()), torch.Generator().manual_seed(0)
    targets = [torch.cat([batch.target for batch in rows.batches(50, generator)]) for _ in range(2)]
    expected = rows[0].target
    assert not torch.equal(*targets)
    for target in targets:
        assert torch.equal(target.sort(dim=0).values, expected.sort(dim=0).values)


@pytest.mark.parametrize("optimizer", ["gd", "sgd"])
def test_the_history_is_the_cost_after_0_1_2_epochs(optimizer: Optimizer) -> None:
    told: list[tuple[int, float]] = []
    fitted = descend(
        network(),
        schedule(optimizer, epochs=5),
        data(),
        on_epoch=lambda epoch, cost: told.append((epoch, cost)),
    )
    stopped = [descend(network(), schedule(optimizer, epochs=epochs), data()).network for epochs in range(6)]
    assert fitted.history == pytest.approx([cost(line(each), *xy()) for each in stopped], rel=1e-13)
    assert told == list(enumerate(fitted.history))
    assert fitted.cost == fitted.history[-1]
    assert fitted.epochs == 5


def test_watching_stops_when_the_watched_cost_has_not_fallen_for_twenty_epochs() -> None:
    x, y = xy()
    # Trained towards y, judged by half of it: the cost of the watched rows falls, then rises.
    watched = Blocks([np.column_stack([x, y / 2])], INPUTS + 1)
    fitted = descend(network(), schedule(rate=0.02, epochs=500), data(), watch=watched)
    steps = [descend(network(), schedule(rate=0.02, epochs=epochs), data()).network for epochs in range(60)]
    costs = [cost(line(each), x, y / 2) for each in steps]
    best = int(np.argmin(costs))
    assert 0 < fitted.epochs == best < 40
    for name, tensor in steps[best].tensors().items():
        np.testing.assert_array_equal(fitted.network.tensors()[name], tensor)
    assert fitted.cost == pytest.approx(cost(line(fitted.network), x, y), rel=1e-12)


def test_a_watched_cost_that_always_falls_is_best_after_the_last_epoch() -> None:
    fitted = descend(network(), schedule(rate=0.01, epochs=30), data(), watch=data())
    assert fitted.epochs == 30


def test_without_epochs_the_first_weights_are_the_best_watched_ones() -> None:
    assert descend(network(), schedule(epochs=0), data(), watch=data()).epochs == 0


def test_gradient_descent_costs_the_same_in_many_blocks_and_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = descend(network(), schedule(), data()).history
    monkeypatch.setattr("training.rows.SLICE_ROWS", 7)
    assert descend(network(), schedule(), data()).history == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 80)
    assert descend(network(), schedule(), data()).history == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("optimizer", DESCENTS)
def test_every_optimizer_comes_near_the_optimum_in_many_blocks(
    optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 400)
    rate = 0.1 if optimizer == "gd" else 0.005
    fitted = descend(network(), schedule(optimizer, rate=rate, epochs=300, batch_size=50), data())
    assert fitted.cost == pytest.approx(cost(optimum(*xy()), *xy()), rel=0.01)


@pytest.mark.parametrize(
    ("rate", "epochs", "least", "most"),
    [
        pytest.param(1e200, 99, 1, 1, id="not finite"),
        pytest.param(1.5, 99, 5, 5, id="keeps growing"),
        pytest.param(1.5, 2, 2, 2, id="ends higher"),
    ],
)
def test_a_cost_that_is_not_finite_or_grows_stops_the_training(
    rate: float, epochs: int, least: int, most: int
) -> None:
    with pytest.raises(Diverged) as stop:
        descend(network(), schedule(rate=rate, epochs=epochs), data())
    assert least <= len(stop.value.history) - 1 <= most
    assert not stop.value.history[-1] <= stop.value.history[0]
    assert str(len(stop.value.history) - 1) in str(stop.value)


def test_a_cost_that_grows_now_and_then_on_its_way_down_does_not_stop_the_training() -> None:
    fitted = descend(network(), schedule("sgd", rate=0.3, epochs=50, batch_size=16), data())
    assert any(np.diff(fitted.history) > 0)
    assert fitted.cost < fitted.history[0]
