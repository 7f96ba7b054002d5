from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_store.explanation import average_row, explain
from model_store.manifest import GoldenRow, Linear, Mlp, Target
from model_store.predictor import Predictor, dump_weights
from model_store.store import open_store
from tests.in_process import calling
from tests.toys import AGE, FEATURES, FUEL, POWER, TARGET, publish_toy, toy_description, toy_rows, toy_weights

Vector = NDArray[np.float64]
Weights = dict[str, Vector]
RELU = Mlp(hidden=(16, 5), activation="relu")
TANH = Mlp(hidden=(16, 5), activation="tanh")
NETWORKS = pytest.mark.parametrize("network", [Linear(), RELU, TANH], ids=["linear", "relu", "tanh"])
LOG = Target(**TARGET.model_dump() | {"transform": "log"})
SHARES = np.array([7, 5, 1]) / 13
AVERAGE = np.array([0.0, 0.0, *SHARES])
ROW: dict[str, float | str | None] = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
X, Y, *OTHERS = (AGE.model_copy(update={"name": name, "mean": 0.0, "std": 1.0}) for name in "xyabc")
NULLED = AGE.model_copy(update={"fill": 3.25})
PLAIN_MEMBERS = ("prediction", "interval", "out_of_range", "model", "version")


def predictor(network: Linear | Mlp, seed: int = 1, **changes: Any) -> Predictor:
    return Predictor(toy_description(network, seed, **changes), toy_weights(network, 5, seed))


def encoded(row: dict[str, Any]) -> Vector:
    """The oracle's own encoding of a toy's row."""
    numbers = [(row[AGE.name] - AGE.mean) / AGE.std, (row[POWER.name] - POWER.mean) / POWER.std]
    return np.array(numbers + [float(row[FUEL.name] == value) for value in FUEL.values])


def forward(network: Linear | Mlp, weights: Weights, z: Vector) -> Vector:
    """The oracle: matrix products for encoded rows, (n, 5)."""
    for index in range(len(network.layers)):
        if index and isinstance(network, Mlp):
            z = np.maximum(z, 0) if network.activation == "relu" else np.tanh(z)
        z = z @ weights[f"layers.{index}.weight"].T + weights[f"layers.{index}.bias"]
    outputs: Vector = z[:, 0]
    return outputs


def oracle(model: Predictor) -> Callable[[Vector], Vector]:
    """The oracle of the predictions for encoded rows, (n, 5)."""

    def predictions(z: Vector) -> Vector:
        outputs = forward(model.description.network, model.weights, z)
        return outputs if model.description.target.transform == "none" else np.exp(outputs)

    return predictions


def columns(row: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [value] for name, value in row.items()}


def per_input(parts: Vector) -> dict[str, float]:
    return {AGE.name: parts[0], POWER.name: parts[1], FUEL.name: parts[2:].sum()}


def central_differences(function: Callable[[Vector], Vector], points: Vector, step: float) -> Vector:
    slopes = []
    for index in range(points.shape[1]):
        shift = step * np.eye(points.shape[1])[index]
        slopes.append((function(points + shift) - function(points - shift)) / (2 * step))
    return np.array(slopes).T


def fine_quadrature(function: Callable[[Vector], Vector], row: Vector) -> Vector:
    """Integrated gradients with differences for gradients and very many steps."""
    fractions = (np.arange(100_000) + 0.5)[:, np.newaxis] / 100_000
    path = AVERAGE + fractions * (row - AVERAGE)
    parts: Vector = central_differences(function, path, 1e-6).mean(axis=0) * (row - AVERAGE)
    return parts


class Piece(NamedTuple):
    """A part of the line from the average row to a row: its share, the output at its start and its slopes."""

    share: Fraction
    output: Fraction
    gradient: list[Fraction]
    rate: Fraction


def dot(left: Sequence[Fraction], right: Sequence[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


def rational(values: Vector) -> list[Fraction]:
    return [Fraction(value) for value in values.tolist()]


def exact_pieces(weights: Weights, average: Vector, row: Vector) -> Iterator[Piece]:
    """Follow the line in rational numbers from one kink of a ReLU network to the next one of any unit."""
    start, way = rational(average), rational(row - average)
    share = Fraction(0)
    while share < 1:
        values = [place + share * step for place, step in zip(start, way, strict=True)]
        slopes = [[Fraction(i == j) for j in range(len(way))] for i in range(len(way))]
        following = 1 - share
        for index in range(len(weights) // 2):
            if index:
                rates = [dot(slope, way) for slope in slopes]
                pairs = list(zip(values, rates, strict=True))
                following = min([following, *(-v / r for v, r in pairs if v * r < 0)])
                active = [v > 0 or (v == 0 and r > 0) for v, r in pairs]
                values = [v * on for v, on in zip(values, active, strict=True)]
                slopes = [[s * on for s in slope] for slope, on in zip(slopes, active, strict=True)]
            rows = [rational(unit) for unit in weights[f"layers.{index}.weight"]]
            biases = rational(weights[f"layers.{index}.bias"])
            values = [dot(unit, values) + bias for unit, bias in zip(rows, biases, strict=True)]
            by_input = list(zip(*slopes, strict=True))
            slopes = [[dot(unit, column) for column in by_input] for unit in rows]
        yield Piece(following, values[0], slopes[0], dot(slopes[0], way))
        share += following


def exact_parts(weights: Weights, row: Vector, target: Target, average: Vector = AVERAGE) -> Vector:
    """Integrated gradients of a ReLU network in rational numbers; exponentials have sixty digits."""
    parts = [Fraction(0)] * row.size
    for piece in exact_pieces(weights, average, row):
        weight = piece.share if target is TARGET else exponential_integral(piece)
        parts = [part + weight * slope for part, slope in zip(parts, piece.gradient, strict=True)]
    return np.array([float(part) for part in parts]) * (row - average)


def exponential_integral(piece: Piece) -> Fraction:
    """The integral of exp(output) over a piece."""
    with localcontext(prec=60):
        first, last = (
            (Decimal(output.numerator) / output.denominator).exp()
            for output in (piece.output, piece.output + piece.share * piece.rate)
        )
        return Fraction(last - first) / piece.rate if piece.rate else Fraction(first) * piece.share


def of_two(
    activation: Literal["relu", "tanh"], *layers: tuple[Any, Any], target: Target = TARGET
) -> Predictor:
    """A network of the inputs x and y, encoded as they are, with the given weights and biases."""
    weights = {}
    for index, (weight, bias) in enumerate(layers):
        weights[f"layers.{index}.weight"] = np.array(weight, dtype=float)
        weights[f"layers.{index}.bias"] = np.array(bias, dtype=float)
    network = Mlp(hidden=tuple(len(bias) for _, bias in layers[:-1]), activation=activation)
    output = forward(network, weights, np.zeros((1, 2)))[0]
    golden = GoldenRow(
        inputs={"x": 0.0, "y": 0.0}, prediction=float(np.exp(output) if target is LOG else output)
    )
    return Predictor(toy_description(network, features=(X, Y), target=target, golden=(golden,) * 32), weights)


@pytest.fixture(scope="module", params=[Linear(), TANH], ids=["linear", "mlp"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    store = open_store(str(tmp_path_factory.mktemp("explained") / "store"))
    store.promote("toy", publish_toy(store, request.param, features=(NULLED, POWER, FUEL)).version)
    with calling(store) as connected:
        yield connected


@pytest.mark.parametrize("row", toy_rows(10, seed=4), ids=range(10))
def test_each_input_of_a_linear_model_adds_weight_times_distance_from_its_mean(row: dict[str, Any]) -> None:
    weights = toy_weights(Linear(), 5)
    expected = weights["layers.0.weight"][0] * (encoded(row) - AVERAGE)
    explanation = explain(predictor(Linear()), columns(row))
    assert explanation.contributions == pytest.approx(per_input(expected), rel=1e-12, abs=1e-12)


@NETWORKS
def test_the_baseline_is_the_prediction_at_the_training_means(network: Linear | Mlp) -> None:
    expected = forward(network, toy_weights(network, 5), AVERAGE[np.newaxis])[0]
    assert explain(predictor(network), columns(ROW)).baseline == pytest.approx(expected, rel=1e-12)


def test_the_average_row_has_categories_at_their_shares_of_the_rows() -> None:
    assert average_row(predictor(Linear())).tolist() == AVERAGE.tolist()


@pytest.mark.parametrize("row", toy_rows(10, seed=5), ids=range(10))
def test_the_inputs_of_a_linear_model_of_a_logarithm_add_by_the_closed_form(row: dict[str, Any]) -> None:
    weights = toy_weights(Linear(), 5)
    first, last = forward(Linear(), weights, np.stack([AVERAGE, encoded(row)]))
    chord = (np.exp(last) - np.exp(first)) / (last - first)
    expected = weights["layers.0.weight"][0] * (encoded(row) - AVERAGE) * chord
    explanation = explain(predictor(Linear(), target=LOG), columns(row))
    assert explanation.baseline == pytest.approx(np.exp(first), rel=1e-12)
    assert explanation.contributions == pytest.approx(per_input(expected), rel=1e-12)


@NETWORKS
@pytest.mark.parametrize("target", [TARGET, LOG], ids=["none", "log"])
def test_baseline_and_contributions_add_up_to_the_prediction(network: Linear | Mlp, target: Target) -> None:
    model = predictor(network, target=target)
    for row in toy_rows(20, seed=6):
        explanation = explain(model, columns(row))
        total = explanation.baseline + sum(explanation.contributions.values())
        assert total == pytest.approx(float(model.predict(columns(row))[0]), rel=1e-9, abs=1e-12)


def test_far_out_where_no_slope_is_left_the_inputs_that_moved_have_the_whole() -> None:
    far = {**toy_rows(1)[0], AGE.name: AGE.mean, POWER.name: 1e200, FUEL.name: FUEL.values[0]}
    explanation = explain(predictor(TANH), columns(far))
    moved = explanation.contributions[POWER.name]
    assert abs(moved) > 1e-3
    assert explanation.contributions == pytest.approx(
        {AGE.name: 0.0, POWER.name: moved, FUEL.name: 0.0}, abs=1e-9
    )


@NETWORKS
@pytest.mark.parametrize("target", [TARGET, LOG], ids=["none", "log"])
@pytest.mark.parametrize("seed", range(10))
def test_inputs_moved_a_little_add_what_finite_differences_give(
    network: Linear | Mlp, target: Target, seed: int
) -> None:
    model = predictor(network, seed, target=target)
    slopes = central_differences(oracle(model), np.zeros((1, 5)), 1e-6)[0]
    steps = 1e-7 * np.random.default_rng(seed).normal(size=5)
    description = model.description.model_copy(update={"features": (X, Y, *OTHERS)})
    moved = dict(zip("xyabc", steps.tolist(), strict=True))
    found = explain(Predictor(description, model.weights), columns(moved)).contributions
    assert list(found.values()) == pytest.approx(list(slopes * steps), rel=1e-5, abs=1e-13)


@NETWORKS
@pytest.mark.parametrize("target", [TARGET, LOG], ids=["none", "log"])
def test_contributions_are_what_a_fine_quadrature_gives(network: Linear | Mlp, target: Target) -> None:
    model = predictor(network, target=target)
    row = toy_rows(1, seed=7)[0]
    expected = per_input(fine_quadrature(oracle(model), encoded(row)))
    size = sum(map(abs, expected.values()))
    tolerance = 1e-5 if network is RELU else 1e-8
    found = explain(model, columns(row)).contributions
    assert found == pytest.approx(expected, rel=0, abs=tolerance * size)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.integers(0, 10_000),
    st.sampled_from([TARGET, LOG]),
    st.sampled_from([1.0, 1e3, 1e6]),
)
def test_a_relu_network_is_explained_as_in_rational_numbers(
    hidden: list[int], seed: int, target: Target, distance: float
) -> None:
    network = Mlp(hidden=tuple(hidden), activation="relu")
    model = predictor(network, seed, target=target)
    row = toy_rows(1, seed)[0] | ({AGE.name: distance} if target is TARGET else {})
    expected = exact_parts(model.weights, encoded(row), target)
    found = explain(model, columns(row)).contributions
    # The sums that a kink is found from are rounded, however little of the way is behind it.
    tolerance = 1e-12 * np.abs(expected).sum() + 1e-15
    assert found == pytest.approx(per_input(expected), rel=0, abs=tolerance)


@pytest.mark.parametrize(
    ("weight", "bias", "last", "x", "y", "expected"),
    [
        pytest.param([[1, 0], [1, 0]], [0, -1], [1, 1], 1, 0, (1, 0), id="kinks at both ends"),
        pytest.param([[1, 0], [1, 0]], [0, -1], [1, 1], -1, 0, (0, 0), id="a kink at the start"),
        pytest.param(
            [[1, 0], [2, 0], [0, 1]], [-1, -2, -1], [3, 1, 5], 3, 3, (10, 10), id="three at one place"
        ),
        pytest.param([[1, 1], [1, -1]], [-1, 0], [1, 7], 2, 2, (1.5, 1.5), id="a sum that stays 0"),
        pytest.param([[1, 1], [1, 2]], [-10, -9], [1, 7], 2, 2, (0, 0), id="dead units"),
        pytest.param([[1, 1], [0, 0]], [0, 5], [1, 7], 2, 1, (2, 1), id="a unit without inputs"),
        pytest.param([[1, 2]], [-2], [3], 2, 2, (4, 8), id="a kink in the middle"),
        pytest.param([[1, 2], [-1, 2]], [-2, 1], [3, 1], 0, 0, (0, 0), id="no way"),
        pytest.param([[-1, 0]], [1], [1], 1e300, 0, (-1, 0), id="a kink at 1 of 1e300"),
    ],
)
def test_kinks_wherever_they_are_are_walked(
    weight: list[list[int]], bias: list[int], last: list[int], x: float, y: float, expected: Sequence[float]
) -> None:
    model = of_two("relu", (weight, bias), ([last], [0.25]))
    found = explain(model, {"x": [x], "y": [y]}).contributions
    assert list(found.values()) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_an_output_that_stays_level_between_kinks_has_its_exponential_integrated_there_too() -> None:
    layers = ([[1, 0], [1, 0], [1, 1]], [0, -1, -3]), ([[1, -1, 1]], [0])
    model = of_two("relu", *layers, target=LOG)
    expected = exact_parts(model.weights, np.array([4.0, 2.0]), LOG, np.zeros(2))
    found = explain(model, {"x": [4.0], "y": [2.0]}).contributions
    assert list(found.values()) == pytest.approx(list(expected), rel=1e-12)


@pytest.mark.parametrize("steepness", [1.0, 1e2, 1e4, 1e6])
def test_a_step_of_a_tanh_network_however_steep_is_not_missed(steepness: float) -> None:
    model = of_two("tanh", ([[1, 0], [0, 1]], [-3, 0]), ([[steepness, 0]], [steepness / 3]), ([[5]], [1]))
    explanation = explain(model, {"x": [300.0], "y": [300.0]})
    first, last = np.tanh(steepness * (np.tanh([-3, 297]) + 1 / 3))
    assert list(explanation.contributions.values()) == pytest.approx([5 * (last - first), 0], rel=1e-9)


def test_a_tanh_network_too_steep_for_the_digits_of_a_float_is_not_explained_wrongly() -> None:
    model = predictor(TANH)
    steep = {name: 1e12 * tensor if tensor.ndim == 2 else tensor for name, tensor in model.weights.items()}
    assert not explain(Predictor(model.description, steep), columns(ROW)).is_finite


@pytest.mark.parametrize("network", [RELU, TANH], ids=["relu", "tanh"])
def test_a_row_that_overflows_when_encoded_is_not_explained_wrongly(network: Mlp) -> None:
    narrow = AGE.model_copy(update={"std": 1e-3})
    model = predictor(network)
    description = model.description.model_copy(update={"features": (narrow, POWER, FUEL)})
    far = columns(ROW | {AGE.name: 1e308})
    assert not explain(Predictor(description, model.weights), far).is_finite


@pytest.mark.parametrize("x", [1.0, 1e6, 1e300])
def test_inputs_that_undo_each_other_have_their_full_parts(x: float) -> None:
    model = of_two("tanh", ([[4, 0], [0, 4]], [0, 0]), ([[5, -5]], [1]))
    explanation = explain(model, {"x": [x], "y": [x]})
    part = 5 * np.tanh(4 * x)
    assert list(explanation.contributions.values()) == pytest.approx([part, -part], rel=1e-9)


@NETWORKS
def test_inputs_at_their_means_add_nothing(network: Linear | Mlp) -> None:
    explanation = explain(
        predictor(network), columns({AGE.name: AGE.mean, POWER.name: POWER.mean, FUEL.name: "diesel"})
    )
    assert repr(explanation.contributions[AGE.name]) == "0.0"
    assert repr(explanation.contributions[POWER.name]) == "0.0"
    assert explanation.contributions[FUEL.name] != 0


@NETWORKS
def test_the_average_row_itself_is_the_baseline_and_every_input_adds_0(network: Linear | Mlp) -> None:
    description = toy_description(network).model_copy(update={"features": (AGE, POWER)})
    model = Predictor(description, toy_weights(network, 2))
    explanation = explain(model, {AGE.name: [AGE.mean], POWER.name: [POWER.mean]})
    assert explanation.contributions == {AGE.name: 0, POWER.name: 0}
    assert explanation.baseline == model.predict({AGE.name: [AGE.mean], POWER.name: [POWER.mean]})[0]


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.just(Linear()),
        st.builds(
            Mlp,
            hidden=st.lists(st.integers(1, 8), min_size=1, max_size=3).map(tuple),
            activation=st.sampled_from(["relu", "tanh"]),
        ),
    ),
    st.integers(0, 10_000),
    st.fixed_dictionaries(
        {
            AGE.name: st.floats(-1e3, 1e3),
            POWER.name: st.floats(-1e4, 1e4),
            FUEL.name: st.sampled_from(FUEL.values),
        }
    ),
)
def test_any_row_of_any_model_is_taken_apart_without_a_rest(
    network: Linear | Mlp, seed: int, row: dict[str, Any]
) -> None:
    model = predictor(network, seed)
    explanation = explain(model, columns(row))
    parts = [explanation.baseline, *explanation.contributions.values()]
    prediction = float(model.predict(columns(row))[0])
    assert list(explanation.contributions) == [feature.name for feature in FEATURES]
    assert sum(parts) == pytest.approx(prediction, rel=1e-9, abs=1e-12 * sum(map(abs, parts)))


@pytest.mark.parametrize("row", [*toy_rows(5, seed=8), {**ROW, AGE.name: 1e6}, {**ROW, AGE.name: None}])
def test_an_explained_answer_is_the_plain_one_with_more_members(
    client: httpx.Client, row: dict[str, Any]
) -> None:
    plain = client.post("/predict", json=row).json()
    answer = client.post("/predict?explain=true", json=row)
    assert answer.status_code == 200, answer.text
    explained = answer.json()
    assert list(plain) == list(PLAIN_MEMBERS)
    assert {name: explained[name] for name in PLAIN_MEMBERS} == plain
    assert list(explained) == [*PLAIN_MEMBERS, "baseline", "contributions"]
    assert list(explained["contributions"]) == [AGE.name, POWER.name, FUEL.name]
    total = explained["baseline"] + sum(explained["contributions"].values())
    assert total == pytest.approx(explained["prediction"], rel=1e-9)


def test_a_missing_value_is_explained_as_what_fills_it(client: httpx.Client) -> None:
    answers = [
        client.post("/predict?explain=true", json={**ROW, AGE.name: age}).json() for age in (None, 3.25)
    ]
    assert answers[0] == answers[1]
    assert answers[0]["contributions"][AGE.name] != 0


def test_explain_false_is_the_plain_answer(client: httpx.Client) -> None:
    plain = client.post("/predict", json=ROW)
    assert client.post("/predict?explain=false", json=ROW).content == plain.content


@pytest.mark.parametrize("value", ["", "1", "True", "yes", "MARKER"])
def test_another_value_of_explain_is_refused(client: httpx.Client, value: str) -> None:
    answer = client.post("/predict", params={"explain": value}, json=ROW)
    assert answer.status_code == 422
    assert "MARKER" not in answer.text


@pytest.mark.parametrize(
    ("body", "status"), [("{", 400), ("{}", 422), ('{"age": 1e400}', 422)], ids=["cut", "empty", "huge"]
)
def test_a_row_that_cannot_be_answered_is_refused_explained_or_not(
    client: httpx.Client, body: str, status: int
) -> None:
    answers = [client.post(f"/predict{query}", content=body) for query in ("", "?explain=true")]
    assert [answer.status_code for answer in answers] == [status, status]
    plain, explained = (answer.json() for answer in answers)
    assert plain | {"request_id": 0} == explained | {"request_id": 0}


@pytest.mark.parametrize("age", [1.7e308, -1.7e308])
def test_an_explanation_of_numbers_near_the_largest_is_whole_or_refused(
    client: httpx.Client, age: float
) -> None:
    answer = client.post("/predict?explain=true", json={**ROW, AGE.name: age})
    assert answer.status_code in {200, 422}
    if answer.status_code == 200:
        explained = answer.json()
        parts = [explained["baseline"], *explained["contributions"].values()]
        assert all(isinstance(part, float) for part in parts)
        assert sum(parts) == pytest.approx(explained["prediction"], rel=1e-9)


def test_an_explanation_that_overflows_on_the_way_is_refused_and_the_row_is_answered(tmp_path: Path) -> None:
    hill = of_two("relu", ([[1, 0], [1, 0]], [0, -1]), ([[1000, -2000]], [0]), target=LOG)
    store = open_store(str(tmp_path / "store"))
    store.publish(hill.description, dump_weights(hill.weights), lambda _number: {})
    store.promote("toy", 1)
    with calling(store) as connected:
        plain = connected.post("/predict", json={"x": 2.0, "y": 1.0})
        assert (plain.status_code, plain.json()["prediction"]) == (200, 1.0)
        answer = connected.post("/predict?explain=true", json={"x": 2.0, "y": 1.0})
        assert answer.status_code == 422
        assert "cannot hold its explanation" in answer.json()["detail"]
