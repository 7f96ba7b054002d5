from fractions import Fraction

import numpy as np
import pytest

from model_store.columns import Matrix
from model_store.manifest import Linear
from tests.test_descent import cost, data, line, network, optimum, xy
from training import blocks
from training.blocks import Blocks
from training.least_squares import least_squares, solve
from training.network import FeedForward


def test_exact_is_the_closed_form() -> None:
    solved = solve(network(), data())
    assert line(solved.network) == pytest.approx(optimum(*xy()), rel=1e-12)
    assert solved.history == pytest.approx([cost(line(network()), *xy()), cost(optimum(*xy()), *xy())])


def test_many_blocks_have_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 80)
    many = data(301)
    assert len(many) == 16
    assert least_squares(many).numpy() == pytest.approx(optimum(*xy(301)), rel=1e-10)


def test_blocks_of_fewer_rows_than_columns_have_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 8)
    assert least_squares(data(31)).numpy() == pytest.approx(optimum(*xy(31)), rel=1e-10)


def test_of_several_optima_the_shortest_is_taken_by_one_block_and_by_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = xy()
    twice = np.column_stack([x, x[:, :1], y])
    expected = optimum(twice[:, :-1], y)
    assert least_squares(Blocks([twice], 5)).numpy() == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 100)
    assert least_squares(Blocks([twice], 5)).numpy() == pytest.approx(expected, rel=1e-10)


def near_copies(apart: float, rows: int = 500) -> Matrix:
    """Two columns that differ by so much, and a target that hangs on the difference."""
    rng = np.random.default_rng(4)
    x, difference = rng.normal(size=(2, rows))
    noise = rng.normal(size=rows)
    return np.column_stack([x, x + apart * difference, 3 * x + 5 * difference + 0.1 * noise])


def rational_cost(table: Matrix) -> float:
    """The least mean squared error of a line, in rational arithmetic."""
    rows = [[Fraction(1), *map(Fraction, row)] for row in table.tolist()]
    size = len(rows[0])
    normal = [[sum((row[i] * row[j] for row in rows), Fraction(0)) for j in range(size)] for i in range(size)]
    for pivot in range(size - 1):
        for below in range(pivot + 1, size):
            factor = normal[below][pivot] / normal[pivot][pivot]
            normal[below] = [a - factor * b for a, b in zip(normal[below], normal[pivot], strict=True)]
    return float(normal[-1][-1] / len(rows))


# The weights go as 1 / apart, and so does what rounding does to a prediction.
@pytest.mark.parametrize(("apart", "rel"), [(1e-6, 1e-9), (1e-9, 1e-6), (1e-10, 1e-4)])
@pytest.mark.parametrize("block_values", [10**6, 300])
def test_columns_that_differ_little_have_the_optimum_of_rational_arithmetic(
    apart: float, rel: float, block_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = near_copies(apart)
    monkeypatch.setattr(blocks, "BLOCK_VALUES", block_values)
    found = solve(FeedForward(Linear(), 2, 0), Blocks([table], 3))
    assert found.cost == pytest.approx(rational_cost(table), rel=rel)
    assert (found.rank, found.free.shape) == (3, (2, 0))
    assert found.condition == pytest.approx(2 / apart, rel=0.1)


def test_columns_equal_but_for_rounding_lose_a_rank_and_are_one_column_to_the_line() -> None:
    table = near_copies(1e-14)
    found = solve(FeedForward(Linear(), 2, 0), Blocks([table], 3))
    alone = solve(FeedForward(Linear(), 1, 0), Blocks([table[:, 1:]], 2))
    assert (found.rank, found.free.shape) == (2, (2, 1))
    assert found.condition == 1
    assert found.cost == pytest.approx(alone.cost, rel=1e-9)
    assert found.free[:, 0].abs().numpy() == pytest.approx(np.sqrt([0.5, 0.5]))
    assert found.errors.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("block_values", [10**6, 4000])
def test_a_full_set_of_one_hot_columns_takes_one_off_the_rank_however_many_rows(
    block_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    number, category = rng.normal(size=70_000), rng.choice(4, 70_000, p=[0.7, 0.2, 0.09, 0.01])
    table = np.column_stack([number, np.eye(4)[category], number + category + rng.normal(size=70_000)])
    monkeypatch.setattr(blocks, "BLOCK_VALUES", block_values)
    found = solve(FeedForward(Linear(), 5, 0), Blocks([table], 6))
    design = np.delete(table[:, :-1], 1, axis=1)
    assert found.rank == 5
    assert found.cost == pytest.approx(cost(optimum(design, table[:, -1]), design, table[:, -1]), rel=1e-9)
    assert found.errors.isnan().tolist() == [False, True, True, True, True, True]
    assert found.errors[0].item() == pytest.approx(closed_form_errors(design, table[:, -1])[0], rel=1e-9)


def closed_form_errors(x: Matrix, y: Matrix, weights: Matrix | None = None) -> Matrix:
    """The roots of the diagonal of s² (XᵀWX)⁻¹, the bias last."""
    design = np.column_stack([x, np.ones(len(x))])
    scale = np.ones(len(x)) if weights is None else np.sqrt(weights / weights.mean())
    rows, target = design * scale[:, None], y * scale
    residuals = target - rows @ np.linalg.lstsq(rows, target)[0]
    variance = residuals @ residuals / (len(rows) - rows.shape[1])
    return np.asarray(np.sqrt(variance * np.diag(np.linalg.inv(rows.T @ rows))), np.float64)


@pytest.mark.parametrize("block_values", [10**6, 80])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_standard_errors_are_the_closed_form(
    is_weighted: bool, block_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = xy()
    x = x * [1.0, 1e3, 1e-3] + [0, 3e4, 1]
    weights = np.random.default_rng(6).uniform(0.1, 5, len(y)) if is_weighted else None
    monkeypatch.setattr(blocks, "BLOCK_VALUES", block_values)
    found = solve(network(), Blocks([np.column_stack([x, y])], 4, weights))
    assert found.errors.numpy() == pytest.approx(closed_form_errors(x, y, weights), rel=1e-6)


def test_the_weights_of_new_samples_spread_as_their_standard_errors_say() -> None:
    rng, samples = np.random.default_rng(7), 600
    x = rng.normal(size=(12, 2)) @ [[1, 0.9], [0, 0.3]] + 1
    drawn = [
        solve(FeedForward(Linear(), 2, 0), Blocks([np.column_stack([x, x @ [1.0, -2] + noise])], 3))
        for noise in rng.normal(size=(samples, 12))
    ]
    spread = np.std([line(each.network) for each in drawn], axis=0)
    said = np.sqrt(np.mean([each.errors.numpy() ** 2 for each in drawn], axis=0))
    assert said / spread == pytest.approx(
        np.ones(3), abs=4 * np.sqrt(1 / (2 * samples) + 2 / (9 * 4 * samples))
    )


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_as_many_rows_as_weights_or_fewer_have_no_standard_errors(rows: int) -> None:
    x, y = xy()
    found = solve(network(), Blocks([np.column_stack([x, y])[:rows]], 4))
    assert (found.rank, found.rows) == (rows, rows)
    assert found.cost == pytest.approx(0, abs=1e-20)
    assert found.errors.isnan().all()


def test_a_column_that_is_the_same_in_all_rows_is_free() -> None:
    x, y = xy()
    found = solve(FeedForward(Linear(), 2, 0), Blocks([np.column_stack([x[:, 0], np.ones(len(y)), y])], 3))
    assert found.rank == 2
    assert found.errors.isnan().tolist() == [False, True, True]
    assert np.isfinite(line(found.network)).all()
