from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_store.explanation import average_row, explain, gradients
from model_store.manifest import Linear, Mlp, Target
from model_store.predictor import Predictor
from model_store.store import open_store
from tests.in_process import calling
from tests.toys import AGE, FEATURES, FUEL, POWER, TARGET, publish_toy, toy_description, toy_rows, toy_weights

Vector = NDArray[np.float64]
RELU = Mlp(hidden=(16, 5), activation="relu")
TANH = Mlp(hidden=(16, 5), activation="tanh")
NETWORKS = pytest.mark.parametrize("network", [Linear(), RELU, TANH], ids=["linear", "relu", "tanh"])
LOG = Target(**TARGET.model_dump() | {"transform": "log"})
SHARES = np.array([7, 5, 1]) / 13
AVERAGE = np.array([0.0, 0.0, *SHARES])
ROW: dict[str, float | str | None] = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
NULLED = AGE.model_copy(update={"fill": 3.25})
PLAIN_MEMBERS = ("prediction", "interval", "out_of_range", "model", "version")


def predictor(network: Linear | Mlp, seed: int = 1, **changes: Any) -> Predictor:
    return Predictor(toy_description(network, seed, **changes), toy_weights(network, 5, seed))


def encoded(row: dict[str, Any]) -> Vector:
    """The oracle's own encoding of a toy's row."""
    numbers = [(row[AGE.name] - AGE.mean) / AGE.std, (row[POWER.name] - POWER.mean) / POWER.std]
    return np.array(numbers + [float(row[FUEL.name] == value) for value in FUEL.values])


def forward(network: Linear | Mlp, weights: dict[str, Vector], z: Vector) -> Vector:
    """The oracle: matrix products for encoded rows, (n, 5)."""
    for index in range(len(network.layers)):
        if index and isinstance(network, Mlp):
            z = np.maximum(z, 0) if network.activation == "relu" else np.tanh(z)
        z = z @ weights[f"layers.{index}.weight"].T + weights[f"layers.{index}.bias"]
    outputs: Vector = z[:, 0]
    return outputs


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


def fine_quadrature(network: Mlp, weights: dict[str, Vector], row: Vector) -> Vector:
    """Integrated gradients with differences for gradients and very many steps."""
    fractions = (np.arange(100_000) + 0.5)[:, np.newaxis] / 100_000
    path = AVERAGE + fractions * (row - AVERAGE)
    slopes = central_differences(lambda z: forward(network, weights, z), path, 1e-6)
    parts: Vector = slopes.mean(axis=0) * (row - AVERAGE)
    return parts


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
    assert explanation.contributions == pytest.approx(per_input(expected), rel=1e-5)


@NETWORKS
@pytest.mark.parametrize("target", [TARGET, LOG], ids=["none", "log"])
def test_baseline_and_contributions_add_up_to_the_prediction(network: Linear | Mlp, target: Target) -> None:
    model = predictor(network, target=target)
    for row in toy_rows(20, seed=6):
        explanation = explain(model, columns(row))
        total = explanation.baseline + sum(explanation.contributions.values())
        assert total == pytest.approx(float(model.predict(columns(row))[0]), rel=1e-9, abs=1e-12)


def test_where_no_step_sees_a_slope_the_inputs_that_moved_have_the_whole() -> None:
    far = {**toy_rows(1)[0], AGE.name: AGE.mean, POWER.name: 1e200, FUEL.name: FUEL.values[0]}
    explanation = explain(predictor(TANH), columns(far))
    moved = explanation.contributions[POWER.name]
    assert abs(moved) > 1e-3
    assert explanation.contributions == pytest.approx(
        {AGE.name: 0.0, POWER.name: moved, FUEL.name: 0.0}, abs=1e-9
    )


@NETWORKS
@pytest.mark.parametrize("target", [TARGET, LOG], ids=["none", "log"])
def test_gradients_are_what_finite_differences_give(network: Linear | Mlp, target: Target) -> None:
    points = np.random.default_rng(3).normal(size=(50, 5))
    model, weights = predictor(network, target=target), toy_weights(network, 5)

    def output(z: Vector) -> Vector:
        outputs = forward(network, weights, z)
        return np.exp(outputs) if target is LOG else outputs

    expected = central_differences(output, points, 1e-6)
    assert gradients(model, points) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("network", "tolerance"), [(TANH, 1e-4), (RELU, 1e-2)], ids=["tanh", "relu"])
def test_the_contributions_of_an_mlp_are_what_a_fine_quadrature_gives(network: Mlp, tolerance: float) -> None:
    for row in toy_rows(3, seed=7):
        expected = per_input(fine_quadrature(network, toy_weights(network, 5), encoded(row)))
        found = explain(predictor(network), columns(row)).contributions
        size = sum(map(abs, expected.values()))
        assert found == pytest.approx(expected, rel=0, abs=tolerance * size)


@NETWORKS
def test_inputs_at_their_means_add_nothing(network: Linear | Mlp) -> None:
    explanation = explain(
        predictor(network), columns({AGE.name: AGE.mean, POWER.name: POWER.mean, FUEL.name: "diesel"})
    )
    assert explanation.contributions[AGE.name] == 0
    assert explanation.contributions[POWER.name] == 0
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
