import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor

from model_store.columns import Category, Feature, encode
from model_store.errors import GoldenDiffer, TensorsInvalid
from model_store.golden import check_golden
from model_store.manifest import Description, Linear, Mlp
from model_store.predictor import ROWS_AT_ONCE, Predictor, dump_weights, load_weights
from tests.toys import (
    AGE,
    FEATURES,
    FUEL,
    POWER,
    RPM,
    expected_predictions,
    toy_description,
    toy_rows,
    toy_weights,
)

NETWORKS: Final = [
    Linear(),
    Mlp(hidden=(4,), activation="relu"),
    Mlp(hidden=(17, 3), activation="relu"),
    Mlp(hidden=(17, 3), activation="tanh"),
]
networks = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: repr(network)[:40])


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {feature.name: [row[feature.name] for row in rows] for feature in FEATURES}


def toy_predictor(network: Linear | Mlp) -> Predictor:
    return Predictor(toy_description(network), toy_weights(network, 5))


def standardised_columns(inputs: NDArray[np.float64]) -> tuple[Description, dict[str, NDArray[np.float64]]]:
    """A description of two numbers that reach the network as they are."""
    features = tuple(feature.model_copy(update={"mean": 0.0, "std": 1.0}) for feature in (AGE, POWER))
    description = toy_description().model_copy(update={"features": features})
    return description, {AGE.name: inputs[:, 0], POWER.name: inputs[:, 1]}


@networks
def test_predictions_are_those_of_the_textbook_formula(network: Linear | Mlp) -> None:
    rows = toy_rows(1000, seed=9)
    expected = expected_predictions(network, toy_weights(network, 5), rows)
    actual = toy_predictor(network).predict(columns_of(rows))
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_predictions_are_those_of_scikit_learns_linear_regression() -> None:
    columns = columns_of(toy_rows(200))
    encoded = encode(FEATURES, columns)[:, :-1]
    prices = np.random.default_rng(3).normal(size=200)
    oracle = LinearRegression().fit(encoded, prices)
    weights = {
        "layers.0.weight": np.append(oracle.coef_, 0.0)[np.newaxis],
        "layers.0.bias": np.array([oracle.intercept_]),
    }
    predictions = Predictor(toy_description(), weights).predict(columns)
    np.testing.assert_allclose(predictions, oracle.predict(encoded), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_predictions_are_those_of_scikit_learns_perceptron(activation: str) -> None:
    inputs = np.random.default_rng(4).normal(size=(300, 2))
    oracle = MLPRegressor(hidden_layer_sizes=(8, 5), activation=activation, random_state=0)
    oracle.partial_fit(inputs, inputs[:, 0] * inputs[:, 1])
    weights: dict[str, NDArray[np.float64]] = {}
    for layer, (weight, bias) in enumerate(zip(oracle.coefs_, oracle.intercepts_, strict=True)):
        weights |= {f"layers.{layer}.weight": weight.T, f"layers.{layer}.bias": bias}
    description, columns = standardised_columns(inputs)
    network = Mlp.model_validate({"hidden": (8, 5), "activation": activation})
    predictions = Predictor(description.model_copy(update={"network": network}), weights).predict(columns)
    np.testing.assert_allclose(predictions, oracle.predict(inputs), rtol=1e-12, atol=1e-12)


@networks
def test_a_row_gives_the_same_bits_alone_and_anywhere_in_a_batch_of_any_size(network: Linear | Mlp) -> None:
    predictor, rows = toy_predictor(network), toy_rows(1000, seed=5)
    alone = np.concatenate([predictor.predict(columns_of([row])) for row in rows])
    rng = np.random.default_rng(6)
    for size in range(1, 1001):
        chosen = rng.integers(0, 1000, size)
        batch = predictor.predict(columns_of([rows[index] for index in chosen]))
        assert batch.tobytes() == alone[chosen].tobytes(), f"a batch of {size}"


def numbers_predictor(inputs: int, hidden: Sequence[int], activation: str, seed: int) -> Predictor:
    """A model of so many numbers with random weights of all sizes."""
    features: tuple[Feature, ...] = tuple(AGE.model_copy(update={"name": f"x{k}"}) for k in range(inputs))
    network = Mlp.model_validate({"hidden": tuple(hidden), "activation": activation}) if hidden else Linear()
    rng = np.random.default_rng(seed)
    weights = {
        name: tensor * 10.0 ** rng.integers(-3, 4, tensor.shape)
        for name, tensor in toy_weights(network, inputs, seed).items()
    }
    description = toy_description().model_copy(update={"features": features, "network": network})
    return Predictor(description, weights)


def sums_in_order(predictor: Predictor, row: Sequence[float]) -> float:
    """The oracle: Python's floats, bias first, one product after the other; relu between the layers."""
    values, layers = [(x - AGE.mean) / AGE.std for x in row], len(predictor.description.network.layers)
    for layer in range(layers):
        weight, bias = (predictor.weights[f"layers.{layer}.{name}"].tolist() for name in ("weight", "bias"))
        for unit, weights in enumerate(weight):
            for w, x in zip(weights, values, strict=True):
                bias[unit] += w * x
        values = [max(total, 0.0) for total in bias] if layer < layers - 1 else bias
    return float(values[0])


SIZES = st.integers(1, 40) | st.sampled_from([64, 127, 128, 129, 200])


@settings(max_examples=60, deadline=None)
@given(inputs=SIZES, hidden=st.lists(SIZES, max_size=3), seed=st.integers(0, 10**6), count=st.integers(1, 9))
def test_a_network_of_any_shape_adds_up_in_order_for_a_row_and_for_a_batch(
    inputs: int, hidden: list[int], seed: int, count: int
) -> None:
    predictor = numbers_predictor(inputs, hidden, "relu", seed)
    rows = np.random.default_rng(seed).uniform(0, 10, (count, inputs))
    expected = [sums_in_order(predictor, row) for row in rows.tolist()]
    assert [predictor.row_output(row) for row in rows.tolist()] == expected
    assert predictor.outputs({f"x{k}": rows[:, k] for k in range(inputs)}).tolist() == expected


@pytest.mark.parametrize(("inputs", "hidden"), [(2000, ()), (1, (8193, 1)), (3000, (2,)), (300, (700, 3))])
def test_a_very_wide_network_adds_up_in_order(inputs: int, hidden: tuple[int, ...]) -> None:
    predictor = numbers_predictor(inputs, hidden, "relu", 1)
    row = np.random.default_rng(1).uniform(0, 10, inputs).tolist()
    expected = sums_in_order(predictor, row)
    assert predictor.row_output(row) == expected
    assert predictor.outputs({f"x{k}": [x] * 2 for k, x in enumerate(row)}).tolist() == [expected] * 2


@settings(max_examples=30, deadline=None)
@given(inputs=SIZES, hidden=st.lists(SIZES, min_size=1, max_size=3), seed=st.integers(0, 10**6))
def test_a_tanh_network_of_any_shape_gives_a_row_the_bits_of_a_batch(
    inputs: int, hidden: list[int], seed: int
) -> None:
    predictor = numbers_predictor(inputs, hidden, "tanh", seed)
    rows = np.random.default_rng(seed).uniform(0, 10, (20, inputs))
    batch = predictor.outputs({f"x{k}": rows[:, k] for k in range(inputs)})
    assert [predictor.row_output(row) for row in rows.tolist()] == batch.tolist()


def sparse_predictor(network: Linear | Mlp, seed: int) -> Predictor:
    """A model of hats and categories, so that most inputs are 0, and weights and biases of 0.0 and -0.0."""
    colours = tuple(Category(value=f"{k}", rows=1 + k) for k in range(8))
    features: list[Feature] = [AGE]
    for index in range(3):
        features.append(RPM.model_copy(update={"name": f"rpm {index}"}))
        features.append(FUEL.model_copy(update={"name": f"colour {index}", "categories": colours}))
    rng = np.random.default_rng(seed)
    weights = toy_weights(network, sum(feature.width for feature in features), seed)
    for tensor in weights.values():
        tensor[rng.random(tensor.shape) < 0.3] = rng.choice([0.0, -0.0])
    description = toy_description().model_copy(update={"features": tuple(features), "network": network})
    return Predictor(description, weights)


@networks
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_inputs_of_0_that_are_left_out_of_a_row_change_no_bit_of_it(
    network: Linear | Mlp, data: st.DataObject, seed: int
) -> None:
    predictor = sparse_predictor(network, seed)
    numbers = st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 8000)
    colours = st.sampled_from([f"{k}" for k in range(8)])
    values = [numbers, *[numbers | st.none(), colours] * 3]
    rows = data.draw(st.lists(st.tuples(*values), min_size=1, max_size=6))
    features = predictor.description.features
    columns = {feature.name: [row[index] for row in rows] for index, feature in enumerate(features)}
    alone = [repr(predictor.row_output(row)) for row in rows]
    assert alone == list(map(repr, predictor.outputs(columns).tolist()))


@networks
def test_a_sum_of_negative_zeros_and_what_is_left_out_is_0_alone_and_in_a_batch(
    network: Linear | Mlp,
) -> None:
    predictor = sparse_predictor(network, 1)
    row: list[float | str | None] = [6.0, *(3200.0, "1") * 3]
    features = predictor.description.features
    columns = {feature.name: [x] for feature, x in zip(features, row, strict=True)}
    weights = {name: np.full_like(tensor, -0.0) for name, tensor in predictor.weights.items()}
    weights["layers.0.weight"][:, encode(features, columns)[0] == 0] = 0.0
    zeros = Predictor(predictor.description, weights)
    assert str(zeros.row_output(row)) == str(zeros.outputs(columns)[0]) == "0.0"


@pytest.mark.parametrize("count", [0, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 2 * ROWS_AT_ONCE + 1])
def test_a_large_batch_has_the_bits_of_its_rows(count: int) -> None:
    predictor = numbers_predictor(3, (17, 3), "tanh", 1)
    rows = np.random.default_rng(1).uniform(0, 10, (count, 3))
    batch = predictor.outputs({f"x{k}": rows[:, k] for k in range(3)})
    assert batch.tolist() == [predictor.row_output(row) for row in rows.tolist()]


def test_numpys_settings_are_as_before_when_a_batch_is_answered() -> None:
    before = np.getbufsize(), np.geterr()
    toy_predictor(Mlp(hidden=(4,))).predict(columns_of(toy_rows(3)))
    assert (np.getbufsize(), np.geterr()) == before


PRINT_OUTPUTS: Final = """
import numpy as np
from model_store.manifest import Mlp
from model_store.predictor import Predictor
from tests.toys import FEATURES, toy_description, toy_rows, toy_weights
rows, network = toy_rows(100), Mlp(hidden=(33, 8))
predictor = Predictor(toy_description(network), toy_weights(network, 5))
print([predictor.row_output(list(row.values())) for row in rows])
print(predictor.outputs({feature.name: [row[feature.name] for row in rows] for feature in FEATURES}).tolist())
"""


def test_a_processor_with_other_vectors_gives_the_same_bits() -> None:
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    printed = {
        subprocess.run(
            [sys.executable, "-c", PRINT_OUTPUTS],
            env=os.environ | {"NPY_DISABLE_CPU_FEATURES": features},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for features in ("", " ".join(found))
    }
    assert len(printed) == 1


@networks
def test_lists_and_arrays_of_any_stride_give_the_same_bits(network: Linear | Mlp) -> None:
    predictor, columns = toy_predictor(network), columns_of(toy_rows(101))
    strided = {name: np.repeat(np.array(values), 3)[::3] for name, values in columns.items()}
    assert predictor.predict(strided).tobytes() == predictor.predict(columns).tobytes()


def test_no_rows_give_no_predictions() -> None:
    assert toy_predictor(Linear()).predict(columns_of([])).shape == (0,)


@networks
def test_an_input_beyond_all_measure_overflows_without_a_warning(network: Linear | Mlp) -> None:
    columns = columns_of(toy_rows(3)) | {AGE.name: [1.7e308, -1.7e308, 1.0], POWER.name: [-1.7e308] * 3}
    assert toy_predictor(network).predict(columns).shape == (3,)


@networks
def test_weights_survive_the_round_trip_to_the_bit(network: Linear | Mlp) -> None:
    weights = toy_weights(network, 5)
    loaded = load_weights(toy_description(network), dump_weights(weights), "here")
    assert {name: tensor.tobytes() for name, tensor in loaded.items()} == {
        name: tensor.tobytes() for name, tensor in weights.items()
    }


def test_a_transposed_view_is_dumped_by_value() -> None:
    network = Mlp(hidden=(5,))
    weights = toy_weights(network, 5)
    weights["layers.0.weight"] = weights["layers.0.weight"].T
    loaded = load_weights(toy_description(network), dump_weights(weights), "here")
    np.testing.assert_array_equal(loaded["layers.0.weight"], weights["layers.0.weight"])


def tensors(**changes: NDArray[Any] | None) -> bytes:
    """A linear toy's weights, `weight` or `bias` exchanged or left out, or another tensor added."""
    found: dict[str, NDArray[Any] | None] = {"weight": np.ones((1, 5)), "bias": np.ones(1), **changes}
    return save({f"layers.0.{name}": tensor for name, tensor in found.items() if tensor is not None})


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (tensors(bias=None), r"\['layers.0.weight'\]"),
        (tensors(scale=np.ones(1)), r"layers\.0\.scale"),
        (tensors(weight=np.ones((5, 1))), r"layers\.0\.weight is float64 \(5, 1\)"),
        (tensors(weight=np.ones(5)), r"layers\.0\.weight is float64 \(5,\)"),
        (tensors(weight=np.ones((1, 6))), r"layers\.0\.weight is float64 \(1, 6\)"),
        (tensors(bias=np.ones(())), r"layers\.0\.bias is float64 \(\)"),
        (tensors(weight=np.ones((1, 5), np.float32)), r"layers\.0\.weight is float32"),
        (tensors(bias=np.ones(1, np.float16)), r"layers\.0\.bias is float16"),
        (tensors(bias=np.ones(1, np.int64)), r"layers\.0\.bias is int64"),
        (tensors(bias=np.ones(1, np.complex64)), r"layers\.0\.bias is complex64"),
        (tensors(weight=np.array([[1, 2, 3, 4, np.nan]])), r"layers\.0\.weight is not finite"),
        (tensors(weight=np.array([[1, 2, np.inf, 4, 5]])), r"layers\.0\.weight is not finite"),
        (tensors(bias=np.array([-np.inf])), r"layers\.0\.bias is not finite"),
        (save({}), r"it holds \[\]"),
        (b"", "not a safetensors file"),
        (b"\x80\x04.", "not a safetensors file"),
        (b"\xff" * 8 + b"{}", "not a safetensors file"),
        (tensors() + b"\x00", "not a safetensors file"),
    ],
)
def test_wrong_tensors_are_refused_with_what_is_wrong(content: bytes, what: str) -> None:
    with pytest.raises(TensorsInvalid, match=f"^here is refused: .*{what}"):
        load_weights(toy_description(), content, "here")


def test_weights_cut_at_any_byte_are_refused() -> None:
    description, content = toy_description(), tensors()
    for length in range(len(content)):
        with pytest.raises(TensorsInvalid):
            load_weights(description, content[:length], "here")


def test_a_perceptrons_weights_are_not_a_linear_models() -> None:
    with pytest.raises(TensorsInvalid, match=r"layers\.1\.bias"):
        load_weights(toy_description(), dump_weights(toy_weights(Mlp(hidden=(1,)), 5)), "here")


@networks
def test_the_golden_rows_of_an_intact_model_agree(network: Linear | Mlp) -> None:
    check_golden(toy_predictor(network), "here")


SWAPPED: Final = (
    AGE.model_copy(update={"name": POWER.name}),
    POWER.model_copy(update={"name": AGE.name}),
    FUEL,
)
WRONG: Final[dict[str, dict[str, Any]]] = {
    "the names of two features are swapped": {"features": SWAPPED},
    "a mean is another run's": {"features": (AGE.model_copy(update={"mean": 5.2500001}), POWER, FUEL)},
    "a std is another run's": {"features": (AGE, POWER.model_copy(update={"std": 33.3000001}), FUEL)},
    "the categories are in another order": {
        "features": (AGE, POWER, FUEL.model_copy(update={"categories": FUEL.categories[::-1]}))
    },
    "a category is renamed": {
        "features": (
            AGE,
            POWER,
            FUEL.model_copy(
                update={
                    "categories": (
                        FUEL.categories[0].model_copy(update={"value": "LPG"}),
                        *FUEL.categories[1:],
                    )
                }
            ),
        )
    },
    "the last golden row was made by another model": {
        "golden": (*toy_description().golden[:-1], toy_description(seed=2).golden[-1])
    },
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_golden_rows_differ_when(wrong: str) -> None:
    description = toy_description().model_copy(update=WRONG[wrong])
    with pytest.raises(GoldenDiffer, match=r"^here is refused: (a )?golden row"):
        check_golden(Predictor(description, toy_weights(Linear(), 5)), "here")


def test_the_golden_rows_differ_when_a_square_weight_is_transposed() -> None:
    predictor = toy_predictor(Mlp(hidden=(5,), activation="tanh"))
    predictor.weights["layers.0.weight"] = predictor.weights["layers.0.weight"].T
    with pytest.raises(GoldenDiffer):
        check_golden(predictor, "here")


def test_the_golden_rows_differ_when_the_activation_is_another() -> None:
    relu, tanh = (Mlp.model_validate({"hidden": (5,), "activation": word}) for word in ("relu", "tanh"))
    description = toy_description(relu).model_copy(update={"network": tanh})
    with pytest.raises(GoldenDiffer):
        check_golden(Predictor(description, toy_weights(relu, 5)), "here")


def test_the_golden_rows_differ_when_every_prediction_is_not_a_number() -> None:
    predictor = toy_predictor(Mlp(hidden=(2,)))
    predictor.weights["layers.0.bias"] = np.array([1.7e308, 1.7e308])
    predictor.weights["layers.1.weight"] = np.array([[2.0, -2.0]])
    with pytest.raises(GoldenDiffer, match=r"32 of 32 rows"):
        check_golden(predictor, "here")


@pytest.mark.parametrize(
    ("change", "agrees"), [(2e-16, True), (-2e-16, True), (1e-13, False), (-1e-13, False)]
)
def test_golden_rows_may_differ_in_the_last_bits_only(change: float, agrees: bool) -> None:
    description = toy_description()
    row = description.golden[-1]
    moved = row.model_copy(update={"prediction": row.prediction * (1 + change)})
    predictor = Predictor(
        description.model_copy(update={"golden": (*description.golden[:-1], moved)}), toy_weights(Linear(), 5)
    )
    if agrees:
        check_golden(predictor, "here")
    else:
        with pytest.raises(GoldenDiffer, match=r"golden row 31 .*1 of 32 rows differ"):
            check_golden(predictor, "here")
