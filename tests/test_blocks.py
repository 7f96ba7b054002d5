from collections.abc import Iterator

import numpy as np
import pytest

from model_store.columns import Matrix
from training import blocks
from training.blocks import Blocks, regroup


def pieces(matrix: Matrix, *sizes: int) -> Iterator[Matrix]:
    start = 0
    for size in sizes:
        yield matrix[start : start + size]
        start += size
    yield matrix[start:]


def numbered(rows: int) -> Matrix:
    return np.arange(rows * 3, dtype=np.float64).reshape(rows, 3)


def test_a_short_matrix_is_one_block_in_memory() -> None:
    held = Blocks(pieces(numbered(10), 4, 0, 3), 3)
    assert held.in_memory
    assert (len(held), held.rows) == (1, 10)
    assert np.array_equal(held[0], numbered(10))


@pytest.mark.parametrize("rows", [4, 5, 8, 9, 21])
def test_a_long_matrix_comes_back_from_its_file_in_even_blocks(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 12)
    held = Blocks(pieces(numbered(rows), 1, 0, 2, 7), 3)
    assert held.in_memory == (rows == 4)
    assert [len(block) for block in held][:-1] == [4] * (len(held) - 1)
    for _ in range(2):
        assert np.array_equal(np.concatenate(list(held)), numbered(rows))
    assert np.array_equal(held[len(held) - 1], numbered(rows)[(len(held) - 1) * 4 :])


def test_a_mask_takes_its_rows_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_VALUES", 12)
    chosen = np.random.default_rng(0).random(21) < 0.5
    taken = Blocks([numbered(21)], 3).take(chosen)
    assert taken.rows == chosen.sum()
    assert np.array_equal(np.concatenate(list(taken)), numbered(21)[chosen])


def test_no_rows_are_no_blocks() -> None:
    held = Blocks([], 3)
    assert (held.rows, len(held), list(held)) == (0, 0, [])


def test_regrouped_pieces_have_the_asked_length_but_the_last() -> None:
    lengths = [len(piece) for piece in regroup(pieces(numbered(11), 1, 6), 3, 4)]
    assert lengths == [4, 4, 3]
