from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from model_store.answers import Answer, Answerer
from model_store.columns import read_columns
from model_store.manifest import Linear, Mlp, ResidualQuantiles, Target
from model_store.predictor import Predictor
from model_store.scale import Scale
from tests.toys import (
    AGE,
    FEATURES,
    POWER,
    TARGET,
    expected_predictions,
    toy_description,
    toy_rows,
    toy_weights,
)

LOG: Target = TARGET.model_copy(update={"transform": "log"})
INTERVAL = ResidualQuantiles(coverage=0.9, lower=-1.5, upper=2.5)
SCALED = INTERVAL.model_copy(
    update={"scale": Scale(outputs=(-2.0, -0.5, 1.0, 3.0), sizes=(1.0, 0.25, 0.5, 2.0))}
)
MODELS = [
    (Linear(), TARGET, INTERVAL),
    (Linear(), TARGET, None),
    (Linear(), LOG, INTERVAL),
    (Mlp(hidden=(7, 3)), TARGET, INTERVAL),
    (Mlp(hidden=(5,), activation="tanh"), LOG, INTERVAL),
    (Linear(), TARGET, SCALED),
    (Mlp(hidden=(5,), activation="tanh"), LOG, SCALED),
]
models = pytest.mark.parametrize(("network", "target", "interval"), MODELS)


def answerer(network: Linear | Mlp, target: Target, interval: ResidualQuantiles | None) -> Answerer:
    description = toy_description(network).model_copy(update={"target": target, "interval": interval})
    return Answerer(Predictor(description, toy_weights(network, 5)))


def columns_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return read_columns(FEATURES, {f.name: [row[f.name] for row in rows] for f in FEATURES})


@models
def test_answers_are_those_of_the_textbook_formula(
    network: Linear | Mlp, target: Target, interval: ResidualQuantiles | None
) -> None:
    rows = toy_rows(200, seed=4)
    answers = answerer(network, target, interval).answer(columns_of(rows))
    outputs = expected_predictions(network, toy_weights(network, 5), rows)
    in_unit = np.exp if target is LOG else np.array
    np.testing.assert_allclose(answers.values, in_unit(outputs), rtol=1e-12, atol=1e-12)
    assert (answers.lower is None) == (answers.upper is None) == (interval is None)
    if answers.lower is not None and answers.upper is not None:
        scale = interval and interval.scale
        size = np.interp(outputs, scale.outputs, scale.sizes) if scale else 1.0
        np.testing.assert_allclose(answers.lower, in_unit(outputs - 1.5 * size), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(answers.upper, in_unit(outputs + 2.5 * size), rtol=1e-12, atol=1e-12)


@models
def test_a_row_is_answered_with_the_bits_of_a_batch(
    network: Linear | Mlp, target: Target, interval: ResidualQuantiles | None
) -> None:
    rows = [*toy_rows(50, seed=5), {**toy_rows(1)[0], AGE.name: 1e6}, {**toy_rows(1)[0], POWER.name: -1e308}]
    answering = answerer(network, target, interval)
    batch = answering.answer(columns_of(rows))
    for k, row in enumerate(rows):
        answer = answering.answer_row([row[feature.name] for feature in FEATURES])
        together = [
            np.nan if bound is None else bound[k] for bound in (batch.values, batch.lower, batch.upper)
        ]
        alone = [np.nan if bound is None else bound for bound in (answer.value, answer.lower, answer.upper)]
        assert np.array(alone).tobytes() == np.array(together).tobytes()
        assert answer.out_of_range == [name for name, outside in batch.out_of_range.items() if k in outside]
        assert answer.is_finite == batch.finite[k]


@pytest.mark.parametrize(
    ("numbers", "finite"),
    [
        ((1.0, 0.0, 2.0), True),
        ((1.7e308, 1.6e308, 1.79e308), True),
        ((float("inf"), 0.0, 1.0), False),
        ((1.0, float("-inf"), float("inf")), False),
        ((float("nan"), 0.0, 1.0), False),
        ((1.0, None, None), True),
        ((float("-inf"), None, None), False),
    ],
)
def test_an_answer_is_finite_if_all_of_its_numbers_are(
    numbers: tuple[float, float | None, float | None], finite: bool
) -> None:
    assert Answer(*numbers, []).is_finite == finite


@models
def test_no_interval_is_claimed_where_an_input_is_far_outside_training(
    network: Linear | Mlp, target: Target, interval: ResidualQuantiles | None
) -> None:
    near, far = (
        {**toy_rows(1)[0], POWER.name: 326.0},
        {**toy_rows(1)[0], POWER.name: np.nextafter(326.0, 400)},
    )
    rows = [near, far, *toy_rows(3), {**near, AGE.name: -1e300}]
    answering = answerer(network, target, interval)
    batch = answering.answer(columns_of(rows))
    assert batch.out_of_range == {AGE.name: [5], POWER.name: [0, 1, 5]}
    for bound in (batch.lower, batch.upper):
        assert bound is None or np.isnan(bound).tolist() == [False, True, False, False, False, True]
    answer = answering.answer_row([far[feature.name] for feature in FEATURES])
    assert (answer.value, answer.lower, answer.upper) == (batch.values[1], None, None)
    assert answer.out_of_range == [POWER.name]


def test_bounds_that_overflow_are_no_reason_to_refuse_a_row_that_has_none() -> None:
    weights = toy_weights(Linear(), 5)
    weights["layers.0.weight"][:], weights["layers.0.bias"][:] = 0.0, 708.5
    description = toy_description().model_copy(update={"target": LOG})
    answering = Answerer(Predictor(description, weights))
    rows = [{**toy_rows(1)[0], AGE.name: age} for age in (AGE.example, 1e6)]
    batch = answering.answer(columns_of(rows))
    assert batch.values.tolist() == [np.exp(708.5)] * 2
    assert batch.finite.tolist() == [False, True]
    for k, row in enumerate(rows):
        assert answering.answer_row([row[feature.name] for feature in FEATURES]).is_finite == batch.finite[k]


def test_a_tally_counts_each_tenth_of_what_float64_holds_and_each_input_out_of_range() -> None:
    rows = [*toy_rows(300, seed=6), {**toy_rows(1)[0], POWER.name: 1e308, AGE.name: -1e308}]
    weights = toy_weights(Linear(), 5)
    weights["layers.0.weight"][0, :2] = 1e200
    answering = Answerer(Predictor(toy_description(), weights))
    answers = answering.answer(columns_of(rows))
    tally = answering.tally(answers, refused=2)
    values = answers.values[:300]
    assert not answers.finite[300]
    # A border belongs to the tenth below it.
    expected = np.bincount(np.searchsorted(TARGET.deciles, values, side="left"), minlength=10)
    assert list(tally.tenths) == expected.tolist()
    assert (
        list(tally.tenths) == np.bincount([answering.tenth(value) for value in values], minlength=10).tolist()
    )
    assert tally.out_of_range == {AGE.name: 1, POWER.name: 1}
    assert tally.refused == 2
