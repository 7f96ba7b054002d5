"""Sizes are those of numpy's interpolation, with the same bits for a row as for many."""

import math
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_store.golden import scale_rounding
from model_store.manifest import ResidualQuantiles
from model_store.scale import Scale

SCALE = Scale(outputs=(-2.0, 0.0, 0.5, 8.0), sizes=(3.0, 1.0, 4.0, 0.5))
positive = st.floats(min_value=1e-9, max_value=1e9)


@st.composite
def scales(draw: st.DrawFn) -> Scale:
    """Two to twelve knots at any distance."""
    first = draw(st.floats(min_value=-1e6, max_value=1e6))
    steps = draw(st.lists(st.floats(min_value=1e-3, max_value=1e9), min_size=1, max_size=11))
    sizes = draw(st.lists(positive, min_size=len(steps) + 1, max_size=len(steps) + 1))
    return Scale(outputs=tuple(accumulate(steps, initial=first)), sizes=tuple(sizes))


def test_sizes_are_linear_between_the_outputs_and_level_beyond() -> None:
    outputs = np.concatenate([np.linspace(-5, 12, 999), SCALE.outputs, [-1e308, 1e308]])
    np.testing.assert_allclose(SCALE.at(outputs), np.interp(outputs, SCALE.outputs, SCALE.sizes), rtol=1e-14)


@given(scales(), st.lists(st.floats(allow_nan=True), max_size=30), st.floats(-10, 0), st.floats(0, 10))
@example(Scale(outputs=(0.0, 1.8741885401922285), sizes=(325455707.2261965, 1e-9)), [], -1.0, 1.0)
@example(SCALE, [-0.0, 0.0, math.inf, -math.inf, 1e308, -1e308, 5e-324], -1.0, 1.0)
def test_a_row_has_the_bits_of_a_batch(scale: Scale, drawn: list[float], lower: float, upper: float) -> None:
    outputs = [*drawn, *scale.outputs]
    outputs += [*np.nextafter(scale.outputs, np.inf).tolist(), *np.nextafter(scale.outputs, -np.inf).tolist()]
    batch, size_at = scale.at(np.array(outputs)), scale.row_scale()
    assert np.array([size_at(output) for output in outputs]).tobytes() == batch.tobytes()
    assert (batch[np.isfinite(outputs)] > 0).all()
    interval = ResidualQuantiles(coverage=0.9, lower=lower, upper=upper, scale=scale)
    alone = interval.row_bounds()
    with np.errstate(over="ignore"):
        together = np.array(interval.bounds(np.array(outputs)))
    assert np.array([alone(output) for output in outputs]).T.tobytes() == together.tobytes()


@given(scales(), st.floats(-1e9, 1e9), st.integers(1, 4))
@example(Scale(outputs=(0.0, 1e9), sizes=(1e9, 1e9 + 1)), 59.604644775390625, 1)
def test_sizes_at_outputs_a_little_apart_are_no_further_apart_than_is_said(
    scale: Scale, output: float, steps: int
) -> None:
    outputs = output + np.spacing(output) * np.arange(-steps, steps + 1)
    sizes, allowed = scale.at(outputs), scale_rounding(scale, np.array([np.ptp(outputs)]))
    assert np.ptp(sizes) <= allowed[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": (1.0, 1.0, 2.0, 3.0)}, "outputs do not ascend"),
        ({"outputs": (1.0, 2.0, 1.5, 3.0)}, "outputs do not ascend"),
        ({"outputs": (1.0, 2.0, 3.0)}, "3 outputs have 4 sizes"),
        ({"outputs": (1.0,), "sizes": (1.0,)}, "outputs"),
        ({"outputs": (-1.7e308, 0.0, 1.0, 1.7e308)}, "outputs are too far apart, or too near"),
        ({"outputs": (0.0, 5e-324, 1.0, 2.0)}, "outputs are too far apart, or too near"),
        ({"outputs": tuple(map(float, range(101))), "sizes": (1.0,) * 101}, "outputs"),
        ({"outputs": (1.0, 2.0, 3.0, math.inf)}, "outputs.3"),
        ({"sizes": (1.0, 0.0, 1.0, 1.0)}, "sizes.1"),
        ({"sizes": (1.0, -1.0, 1.0, 1.0)}, "sizes.1"),
        ({"sizes": (1.0, 1.0, math.nan, 1.0)}, "sizes.2"),
    ],
)
def test_a_scale_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Scale(**SCALE.model_dump() | changes)
