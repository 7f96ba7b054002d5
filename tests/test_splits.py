from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, TimeSeriesSplit

from model_store.columns import Matrix
from model_store.manifest import GroupSplit, TimeSplit
from training.blocks import Blocks
from training.data import DataError, Table
from training.evaluate import evaluate
from training.recipe import make_recipe
from training.splits import cross_validation, folds_of, hold_out_rows, since

ROWS = 240


def table(values: Matrix, split: str, **fields: Any) -> Table:
    """Rows with an x and a y, split by the values in the way that `split` names."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=len(values))
    recipe = make_recipe(
        {"target": {"name": "y"}, "features": [{"name": "x"}], "split": f"{split}:by", **fields}
    )
    rows = np.column_stack([x, x + rng.normal(size=len(values))])
    return Table("table.csv", recipe, Blocks([rows], 2), {}, {}, {}, "", values.astype(float))


def shuffled(rows: int = ROWS) -> Matrix:
    return np.random.default_rng(1).permutation(rows).astype(float)


def groups(sizes: list[int]) -> Matrix:
    return np.random.default_rng(2).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(float)


def test_the_last_share_in_time_is_held_out() -> None:
    times = shuffled()
    fold = hold_out_rows(table(times, "time"), 0.25, seed=0)
    assert np.array_equal(fold.held, times >= 180)
    assert np.array_equal(fold.seen, ~fold.held)


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda times: len(set(times)) > 1),
    st.floats(0.01, 0.9),
)
def test_of_all_borders_between_times_the_one_nearest_to_the_share_is_taken(
    times: list[int], share: float
) -> None:
    values = np.array(times, dtype=float)
    fold = hold_out_rows(table(values, "time"), share, seed=0)
    assert values[fold.seen].max() < values[fold.held].min()
    possible = [int((values >= time).sum()) for time in sorted(set(times))[1:]]
    wanted = round(len(times) * share)
    assert abs(fold.held.sum() - wanted) == min(abs(rows - wanted) for rows in possible)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12), st.floats(0.05, 0.9), st.integers(0, 9))
def test_a_group_is_on_one_side_and_the_share_is_missed_by_less_than_a_group(
    sizes: list[int], share: float, seed: int
) -> None:
    values = groups(sizes)
    fold = hold_out_rows(table(values, "group"), share, seed)
    assert not set(values[fold.held]) & set(values[fold.seen])
    assert fold.held.any()
    assert fold.seen.any()
    assert abs(fold.held.sum() - len(values) * share) <= max(sizes)


def test_the_seed_decides_which_groups_are_held_out() -> None:
    split = table(groups([10] * 20), "group")
    masks = [hold_out_rows(split, 0.2, seed).held for seed in (3, 3, 4)]
    assert [mask.sum() for mask in masks] == [40, 40, 40]
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_folds_in_time_are_scikit_learns() -> None:
    times = shuffled()
    order = np.argsort(times)
    folds = cross_validation(table(times, "time"), 5, seed=0)
    for fold, (seen, held) in zip(folds, TimeSeriesSplit(5).split(order), strict=True):
        assert set(np.flatnonzero(fold.seen)) == set(order[seen])
        assert set(np.flatnonzero(fold.held)) == set(order[held])


def test_folds_in_time_keep_rows_of_the_same_time_together() -> None:
    times = np.floor(shuffled() / 7)
    folds = cross_validation(table(times, "time"), 4, seed=0)
    for fold in folds:
        assert times[fold.seen].max() < times[fold.held].min()
        assert not np.any(fold.seen & fold.held)
    held = np.sum([fold.held for fold in folds], axis=0)
    assert np.array_equal(held, times >= times[folds[0].held].min())


def test_folds_of_groups_are_of_scikit_learns_sizes_and_take_each_row_once() -> None:
    values = groups([40, 30, 30, 20, 20, 10, 5, 5, 3, 1])
    folds = cross_validation(table(values, "group"), 3, seed=0)
    theirs = [len(held) for _, held in GroupKFold(3).split(values, groups=values)]
    assert sorted(int(fold.held.sum()) for fold in folds) == sorted(theirs)
    assert np.array_equal(np.sum([fold.held for fold in folds], axis=0), np.ones(len(values)))
    for fold in folds:
        assert not set(values[fold.held]) & set(values[fold.seen])


def test_random_folds_take_each_row_once_and_differ_by_a_row_at_most() -> None:
    recipe = make_recipe({"target": {"name": "y"}, "features": [{"name": "x"}]})
    whole = Table("table.csv", recipe, Blocks([np.zeros((101, 2))], 2), {}, {}, {}, "")
    folds, other = cross_validation(whole, 4, seed=0), cross_validation(whole, 4, seed=1)
    assert sorted(int(fold.held.sum()) for fold in folds) == [25, 25, 25, 26]
    assert np.array_equal(np.sum([fold.held for fold in folds], axis=0), np.ones(101))
    assert all(np.array_equal(fold.seen, ~fold.held) for fold in folds)
    assert not np.array_equal(folds[0].held, other[0].held)
    assert since(whole, folds) is None


@pytest.mark.parametrize(
    ("values", "split", "count", "sentence"),
    [
        (np.zeros(20), "time", None, "has 1 different times in 20 rows, .* 2 parts.*--holdout 0"),
        (np.zeros(20), "group", None, "has 1 different groups in 20 rows, .* 2 parts.*--split random"),
        (np.arange(20) % 3, "time", 3, "has 3 different times in 20 rows, .* 4 parts.* or fewer folds"),
        (np.arange(20) % 3, "group", 4, "has 3 different groups in 20 rows, .* 4 parts.* or fewer folds"),
        (np.arange(20), "time", 11, "11 folds of the 20 rows of table.csv leave fewer than 2 rows to a fold"),
        (np.arange(20), "group", 10**9, "1000000000 folds of the 20 rows of table.csv leave fewer than 2"),
    ],
)
def test_too_few_rows_times_or_groups_are_refused_with_the_way_out(
    values: Matrix, split: str, count: int | None, sentence: str
) -> None:
    split_table = table(values, split, cross_validate=count)
    with pytest.raises(DataError, match=sentence):
        _ = cross_validation(split_table, count, 0) if count else hold_out_rows(split_table, 0.2, 0)


def test_a_fold_whose_target_does_not_vary_is_refused() -> None:
    values = groups([100, 100, 2])
    split_table = table(values, "group", cross_validate=3)
    split_table.blocks[0][values == 2, 1] = 5
    with pytest.raises(DataError, match=r"holding out 2 of the 202 rows of table\.csv .* or fewer folds"):
        evaluate(split_table.recipe, split_table)


def test_scores_in_time_see_the_change_that_random_rows_hide() -> None:
    """A target that rises by 10 after four fifths of the rows, its input none the wiser.

    At random the line through x misses a jump of variance 0.8 · 0.2 · 100 = 16 beside the variance 1 of x, so
    that R² is 1 / 17. Fitted before the jump it errs by 10 wherever it is scored: R² is 1 - 100 / 1.
    """
    rows = 20_000
    x = np.random.default_rng(0).normal(size=rows)
    times = np.arange(rows, dtype=float)
    y = x + 10 * (times >= 0.8 * rows)
    r2 = {}
    for split in ("random", "time:by"):
        recipe = make_recipe(
            {
                "target": {"name": "y"},
                "features": [{"name": "x"}],
                "split": split,
                "schedule": {"optimizer": "exact"},
                "holdout": 0.2,
            }
        )
        blocks = Blocks([np.column_stack([x, y])], 2)
        made = Table("table.csv", recipe, blocks, {}, {}, {}, "", None if split == "random" else times)
        held_out = evaluate(recipe, made)
        r2[split] = held_out.metrics.model.r2
        assert held_out.metrics.since == (None if split == "random" else "16000")
    assert r2["random"] == pytest.approx(1 / 17, abs=0.05)
    assert r2["time:by"] == pytest.approx(-99, rel=0.05)


def test_early_stopping_does_not_look_at_the_time_that_is_scored_on() -> None:
    asked = {"network": {"hidden": [4]}, "schedule": {"learning_rate": 0.05, "epochs": 60}, "holdout": 0.2}
    times = shuffled()
    before, after = table(times, "time", **asked), table(times, "time", **asked)
    epochs = evaluate(before.recipe, before).epochs
    assert epochs
    after.blocks[0][times >= 192, 1] *= -7
    assert evaluate(after.recipe, after).epochs == epochs
    after.blocks[0][(times >= 173) & (times < 192), 1] *= -7
    assert evaluate(after.recipe, after).epochs != epochs


@pytest.mark.parametrize(
    ("split", "values", "folds"),
    [
        ("time", shuffled(), 5),
        ("group", groups([80, 80, 80]), 3),
        ("group", groups([20] * 12), 5),
        ("time", np.arange(240) % 4, 3),
    ],
)
def test_where_nothing_is_said_there_are_five_folds_or_as_many_as_the_table_allows(
    split: str, values: Matrix, folds: int
) -> None:
    made = table(values, split)
    masks = folds_of(made)
    assert len(masks) == folds
    times_held = np.sum([fold.held for fold in masks], axis=0)
    assert set(times_held.tolist()) == ({0, 1} if split == "time" else {1})
    assert not any((fold.held & fold.seen).any() for fold in masks)


def test_a_split_is_read_from_its_words_and_from_its_fields() -> None:
    assert make_split("time:when: it was") == TimeSplit(column="when: it was")
    assert make_split("group:station") == GroupSplit(column="station")
    fields = {"kind": "time", "column": "when", "format": "%d/%m/%Y"}
    assert make_split(fields) == TimeSplit(column="when", format="%d/%m/%Y")


def make_split(split: object) -> object:
    return make_recipe({"target": {"name": "y"}, "features": [{"name": "x"}], "split": split}).split
