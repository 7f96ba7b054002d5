import numpy as np
import pytest

from tests.test_descent import cost, data, line, network, optimum, xy
from training import blocks
from training.blocks import Blocks
from training.least_squares import least_squares, solve


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
