"""Weighted rows: a weight of 2 counts as the row twice, in the cost, its optimum and its bounds."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression

from model_store.columns import Matrix
from model_store.manifest import Linear, Mlp
from tests.test_descent import line, network, schedule, xy
from training import blocks
from training.blocks import Blocks
from training.descent import Diverged, descend
from training.least_squares import least_squares, solve
from training.recipe import Optimizer, Schedule
from training.rows import Rows, mean_squared_error
from training.stability import full_batch_bound

ROWS = 300
COUNTS: Matrix = np.random.default_rng(8).integers(1, 5, ROWS).astype(np.float64)


def weighted(counts: Matrix = COUNTS) -> Blocks:
    x, y = xy(ROWS)
    return Blocks([np.column_stack([x, y])], 4, counts)


def repeated() -> Blocks:
    x, y = xy(ROWS)
    return Blocks([np.repeat(np.column_stack([x, y]), COUNTS.astype(int), axis=0)], 4)


def oracle() -> Matrix:
    x, y = xy(ROWS)
    fitted = LinearRegression().fit(x, y, sample_weight=COUNTS)
    return np.append(fitted.coef_, fitted.intercept_)


@pytest.mark.parametrize("block_values", [10**6, 80])
def test_weighted_least_squares_are_scikit_learns(block_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", block_values)
    assert least_squares(weighted()).numpy() == pytest.approx(oracle(), rel=1e-10)


@pytest.mark.parametrize("block_values", [10**6, 80])
@pytest.mark.parametrize("kind", [Linear(), Mlp(hidden=(5,), activation="tanh")])
def test_a_weight_is_a_number_of_rows_to_the_cost_and_to_each_step_down_it(
    kind: Linear | Mlp, block_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", block_values)
    ours, theirs = (descend(network(kind), schedule(epochs=30), data) for data in (weighted(), repeated()))
    assert ours.history == pytest.approx(theirs.history, rel=1e-10)
    for name, tensor in theirs.network.tensors().items():
        assert ours.network.tensors()[name] == pytest.approx(tensor, abs=1e-10)


def test_gradient_descent_arrives_at_the_weighted_optimum() -> None:
    fitted = descend(network(), schedule(epochs=1000), weighted())
    assert line(fitted.network) == pytest.approx(oracle(), abs=1e-10)
    assert fitted.cost == pytest.approx(solve(network(), weighted()).cost, rel=1e-12)


def test_a_batch_takes_a_step_down_the_gradient_of_its_share_of_the_weighted_cost() -> None:
    x, y = xy(ROWS)
    order = shuffled_rows(seed=5)
    shares = COUNTS / COUNTS.mean()
    expected = line(network())
    for batch in (order[:100], order[100:200], order[200:]):
        residuals = (x[batch] @ expected[:-1] + expected[-1] - y[batch]) * shares[batch]
        expected = expected - 0.1 * 2 * np.append(x[batch].T @ residuals, residuals.sum()) / 100
    fitted = descend(network(), schedule("sgd", epochs=1, batch_size=100, seed=5), weighted())
    assert line(fitted.network) == pytest.approx(expected, abs=1e-12)


def shuffled_rows(seed: int) -> NDArray[np.int64]:
    """The order in which the first epoch takes the rows of a table of one block."""
    generator = torch.Generator().manual_seed(seed)
    torch.randperm(1, generator=generator)
    order: NDArray[np.int64] = torch.randperm(ROWS, generator=generator).numpy()
    return order


def test_the_scale_of_the_weights_does_not_matter() -> None:
    costs = [
        mean_squared_error(network(), Rows(weighted(COUNTS * factor))) for factor in (1e-20, 1.0, 3.0, 1e20)
    ]
    assert costs == pytest.approx([costs[1]] * 4, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["gd", "sgd", "momentum", "rmsprop", "adam"])
def test_rows_of_equal_weight_descend_as_rows_without(optimizer: Optimizer) -> None:
    plain = Blocks(weighted(), 4)
    ours, theirs = (
        descend(network(), schedule(optimizer, rate=0.01, epochs=5), data)
        for data in (weighted(np.full(ROWS, 3.0)), plain)
    )
    assert line(ours.network) == pytest.approx(line(theirs.network), rel=1e-12)


def test_the_weighted_bound_parts_descents_that_converge_from_those_that_diverge() -> None:
    counts = np.where(xy(ROWS)[0][:, 0] > 1.5, 40.0, 1.0)
    data = weighted(counts)
    design = np.column_stack([xy(ROWS)[0], np.ones(ROWS)])
    largest = np.linalg.eigvalsh((design.T * counts) @ design / counts.sum()).max()
    rate = full_batch_bound(data).learning_rate
    assert rate == pytest.approx(1 / largest, rel=1e-12)
    assert rate < full_batch_bound(Blocks(data, 4)).learning_rate
    below, above = (Schedule(learning_rate=rate * share, epochs=2000) for share in (0.99, 1.01))
    optimum = least_squares(data).numpy()
    assert line(descend(network(), below, data).network) == pytest.approx(optimum, abs=1e-8)
    with pytest.raises(Diverged):
        descend(network(), above, data)
