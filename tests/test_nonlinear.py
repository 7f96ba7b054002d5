from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store._nonlinear import all_clipped, clipped_z_score, hats, row_hats

finite = st.floats(allow_nan=False, allow_infinity=False)
middling = st.floats(-1e6, 1e6)


def ascending(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    """Two knots or more, no further apart than float64 can say."""
    knots = st.lists(numbers, min_size=2, max_size=20, unique=True).map(sorted)
    return knots.filter(lambda knots: all(0 < right - left < np.inf for left, right in pairwise(knots)))


@settings(deadline=None)
@given(
    knots=ascending(st.integers(-1000, 1000).map(float)), numbers=st.lists(middling, min_size=1, max_size=20)
)
def test_hats_are_each_knots_unit_vector_interpolated(knots: list[float], numbers: list[float]) -> None:
    encoded = hats(knots, np.array(numbers))
    expected = [np.interp(numbers, knots, unit) for unit in np.eye(len(knots))]
    np.testing.assert_allclose(encoded, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(encoded.sum(axis=0), 1.0, rtol=1e-15)
    assert (np.count_nonzero(encoded, axis=0) <= 2).all()


def test_a_number_at_a_knot_or_beyond_the_last_has_that_hat_alone() -> None:
    encoded = hats((1.0, 2.0, 4.0), np.array([-np.inf, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, np.inf]))
    expected = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert encoded.T.tolist() == expected


def test_a_line_over_hats_is_any_piecewise_linear_function_of_the_number() -> None:
    rng = np.random.default_rng(1)
    knots, values, numbers = np.sort(rng.normal(size=9)), rng.normal(size=9), rng.normal(size=500)
    encoded = hats(knots.tolist(), numbers)
    bent = np.interp(numbers, knots, values)
    np.testing.assert_allclose(encoded.T @ values, bent, rtol=0, atol=1e-12)
    solved = np.linalg.lstsq(encoded.T, bent, rcond=None)[0]
    np.testing.assert_allclose(solved, values, rtol=0, atol=1e-9)


@settings(deadline=None)
@given(knots=ascending(finite), data=st.data())
def test_the_hats_of_one_number_have_the_bits_of_many(knots: list[float], data: Any) -> None:
    numbers = data.draw(st.lists(finite | st.sampled_from(knots), min_size=1, max_size=20))
    near, together = row_hats(knots, 2), hats(knots, np.array(numbers)).T
    for number, expected in zip(numbers, together, strict=True):
        alone = np.zeros(2 + len(knots))
        left, right, share = near(number)
        alone[left], alone[right] = 1.0 - share, share
        assert alone[2:].tobytes() == expected.tobytes()


def exactly_clipped(z: float) -> float:
    """The oracle: z / sqrt(1 + z²/9) in 50 digits."""
    with localcontext(prec=50, Emax=10**6, Emin=-(10**6)):
        x = Decimal(z)
        return float(x / (1 + x * x / 9).sqrt())


@settings(deadline=None)
@given(numbers=st.lists(finite | middling, min_size=1, max_size=20))
def test_z_scores_are_clipped_by_the_formula_with_the_same_bits_one_by_one(numbers: list[float]) -> None:
    clipped = all_clipped(np.array(numbers))
    assert clipped.tolist() == pytest.approx([exactly_clipped(number) for number in numbers], rel=1e-15)
    assert (np.abs(clipped) <= 3).all()
    one = clipped_z_score(0.0, 1.0)
    assert np.array([one(number) for number in numbers]).tobytes() == clipped.tobytes()


@pytest.mark.parametrize("z", [1e9, 1e155, 1.7e308, np.inf])
def test_a_z_score_whose_square_overflows_is_clipped_to_3(z: float) -> None:
    assert all_clipped(np.array([z, -z])).tolist() == [3.0, -3.0]
    assert [clipped_z_score(0.0, 1.0)(x) for x in (z, -z)] == [3.0, -3.0]
