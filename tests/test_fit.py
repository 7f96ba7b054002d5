import numpy as np
import pytest
import torch

from model_store.encoding import Matrix
from model_store.manifest import Linear, Mlp, Network
from training.fit import Diverged, Recipe, fit


def recipe(
    network: Network | None = None, *, learning_rate: float = 0.1, epochs: int = 200, seed: int = 0
) -> Recipe:
    return Recipe(network or Linear(), "gd", learning_rate, epochs, seed)


def data(rows: int = 300, inputs: int = 3, seed: int = 1) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x, x @ rng.normal(size=inputs) + 4 + rng.normal(size=rows)


def test_the_loop_arrives_at_the_closed_form_least_squares_optimum() -> None:
    x, y = data()
    design = np.column_stack([x, np.ones(len(x))])
    optimum = np.linalg.solve(design.T @ design, design.T @ y)
    tensors = fit(recipe(epochs=1000), x, y).network.tensors()
    assert tensors["layers.0.weight"][0] == pytest.approx(optimum[:-1], abs=1e-12)
    assert tensors["layers.0.bias"][0] == pytest.approx(optimum[-1], abs=1e-12)


def test_one_epoch_is_one_step_down_the_gradient() -> None:
    x, y = data()
    before = fit(recipe(epochs=0), x, y).network.tensors()
    after = fit(recipe(epochs=1), x, y).network.tensors()
    weight, bias = before["layers.0.weight"][0], before["layers.0.bias"]
    residuals = x @ weight + bias - y
    assert after["layers.0.weight"][0] == pytest.approx(
        weight - 0.1 * 2 * x.T @ residuals / len(y), abs=1e-14
    )
    assert after["layers.0.bias"] == pytest.approx(bias - 0.1 * 2 * residuals.mean(), abs=1e-14)


def test_the_history_is_the_mean_squared_error_before_each_epoch_and_after_the_last() -> None:
    x, y = data()
    told: list[tuple[int, float]] = []
    fitted = fit(recipe(epochs=5), x, y, lambda epoch, cost: told.append((epoch, cost)))
    assert told == list(enumerate(fitted.history))
    assert len(told) == 6
    assert fitted.cost == pytest.approx(np.mean((fitted.network.predict(x) - y) ** 2))


@pytest.mark.parametrize("network", [Linear(), Mlp(hidden=(8, 4), activation="tanh")])
def test_the_same_arguments_give_the_same_bits_and_another_seed_does_not(network: Network) -> None:
    x, y = data()
    recipes = [recipe(network, learning_rate=0.01, epochs=20, seed=seed) for seed in (7, 7, 8)]
    weights = [fit(each, x, y).network.tensors() for each in recipes]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(np.array_equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_training_leaves_torchs_random_numbers_alone() -> None:
    torch.manual_seed(1)
    undisturbed = torch.rand(1)
    torch.manual_seed(1)
    fit(recipe(epochs=1), *data())
    assert torch.equal(torch.rand(1), undisturbed)


def test_a_diverging_cost_stops_the_training_and_names_the_learning_rate() -> None:
    x, y = data()
    with pytest.raises(Diverged, match="is too large for these data"):
        fit(recipe(epochs=5000), x * 1e5, y)
