import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from model_store.manifest import Linear, Mlp
from model_store.store import open_store
from tests.in_process import calling
from tests.toys import AGE, FUEL, POWER, expected_predictions, publish_toy, toy_rows, toy_weights

MLP = Mlp(hidden=(16, 5), activation="tanh")
ROW = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}


@pytest.fixture(scope="module")
def toy(mixed_client: httpx.Client) -> httpx.Client:
    return mixed_client


@pytest.fixture(scope="module", params=[Linear(), MLP], ids=lambda n: n.kind)
def network_client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    store = open_store(str(tmp_path_factory.mktemp("network") / "store"))
    store.promote("toy", publish_toy(store, request.param).version)
    with calling(store) as client:
        yield client


def version_of(store: Path) -> tuple[dict[str, Any], float, float]:
    """The first model's manifest, W and b, read from its files."""
    folder = store / "used-car-price" / "versions" / "1"
    weights = load_file(folder / "weights.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest, float(weights["layers.0.weight"][0, 0]), float(weights["layers.0.bias"][0])


def predict(client: httpx.Client, body: object) -> dict[str, Any]:
    """The answer to a row; `body` is JSON text or what becomes it."""
    answer = client.post("/predict", content=body if isinstance(body, str) else json.dumps(body))
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def number_texts(answer: httpx.Response) -> dict[str, Any]:
    """The answer with every number as the text it was sent in."""
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = json.loads(answer.text, parse_float=str, parse_int=str)
    return parsed


def text_with_age(age: str) -> str:
    return json.dumps(ROW).replace("4.0", age)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain; charset=latin-1"},
        {"Content-Type": "MARKER"},
    ],
    ids=lambda headers: headers.get("Content-Type", "none"),
)
def test_the_first_models_example_is_answered_whatever_the_content_type(
    first_client: httpx.Client, headers: Mapping[str, str]
) -> None:
    answer = first_client.post("/predict", content='{"Kilometers_Driven": 57000}', headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert round(answer.json()["prediction"], 4) == 9.4819


@pytest.mark.parametrize("km", [0, 171, 57000, 58738.38029573019, 6_500_000, -1e9])
def test_a_prediction_is_w_times_the_z_score_plus_b(
    first_model: Path, first_client: httpx.Client, km: float
) -> None:
    manifest, weight, bias = version_of(first_model)
    feature = manifest["features"][0]
    answer = predict(first_client, {"Kilometers_Driven": km})
    assert answer["prediction"] == bias + weight * ((km - feature["mean"]) / feature["std"])


def test_the_interval_is_the_prediction_plus_the_residual_quantiles(
    first_model: Path, first_client: httpx.Client
) -> None:
    quantiles = version_of(first_model)[0]["interval"]
    answer = predict(first_client, {"Kilometers_Driven": 57000})
    assert answer["interval"] == {
        "coverage": quantiles["coverage"],
        "lower": answer["prediction"] + quantiles["lower"],
        "upper": answer["prediction"] + quantiles["upper"],
    }


def test_an_answer_names_the_model_and_the_version_that_computed_it(first_client: httpx.Client) -> None:
    answer = predict(first_client, {"Kilometers_Driven": 57000})
    assert (answer["model"], answer["version"]) == ("used-car-price", "1")


def test_a_model_without_an_interval_answers_null(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.promote("toy", publish_toy(store, interval=None).version)
    with calling(store) as client:
        assert predict(client, ROW)["interval"] is None


@pytest.mark.parametrize("path", ["/predict", "/predict?explain=true"])
@pytest.mark.parametrize(
    ("changes", "is_far"),
    [
        ({}, False),
        ({AGE.name: 10.94, POWER.name: 14.0}, False),
        ({AGE.name: -0.44, POWER.name: 326.0}, False),
        ({AGE.name: -0.46}, True),
        ({AGE.name: 10.96}, True),
        ({AGE.name: 11, POWER.name: 14.0}, True),
        ({POWER.name: np.nextafter(326.0, 400)}, True),
        ({POWER.name: -1e300}, True),
    ],
)
def test_no_interval_is_claimed_for_inputs_far_outside_their_training_range(
    toy: httpx.Client, path: str, changes: Mapping[str, float], is_far: bool
) -> None:
    answer = toy.post(path, json={**ROW, **changes}).json()
    expected = expected_predictions(Linear(), toy_weights(Linear(), 5), [{**ROW, **changes}])[0]
    assert answer["prediction"] == pytest.approx(expected, rel=1e-12)
    assert answer["out_of_range"] == list(changes)
    interval = {"coverage": 0.9, "lower": answer["prediction"] - 1.5, "upper": answer["prediction"] + 2.5}
    assert answer["interval"] == (None if is_far else interval)


@pytest.mark.parametrize(
    ("changes", "outside"),
    [
        ({}, []),
        ({AGE.name: AGE.minimum, POWER.name: POWER.maximum}, []),
        ({AGE.name: AGE.maximum, POWER.name: POWER.minimum}, []),
        ({AGE.name: np.nextafter(AGE.minimum, -1)}, [AGE.name]),
        ({POWER.name: np.nextafter(POWER.maximum, 1000)}, [POWER.name]),
        ({POWER.name: -1e300, AGE.name: 1e300}, [AGE.name, POWER.name]),
    ],
)
def test_inputs_outside_their_training_range_are_answered_and_named(
    toy: httpx.Client, changes: Mapping[str, float], outside: list[str]
) -> None:
    assert predict(toy, {**ROW, **changes})["out_of_range"] == outside


def test_numbers_and_categories_together_give_what_numpy_gives(network_client: httpx.Client) -> None:
    network = Linear() if network_client.get("/model").json()["network"]["kind"] == "linear" else MLP
    rows = toy_rows(30, seed=7)
    answers = [predict(network_client, row)["prediction"] for row in rows]
    expected = expected_predictions(network, toy_weights(network, 5), rows)
    assert answers == pytest.approx(expected.tolist(), rel=1e-12, abs=1e-12)


def test_the_order_of_the_features_changes_no_byte_of_the_answer(toy: httpx.Client) -> None:
    answers = {
        toy.post("/predict", content=json.dumps(dict(members))).content
        for members in itertools.permutations(ROW.items())
    }
    assert len(answers) == 1


def test_a_row_gets_the_same_64_bits_alone_and_anywhere_in_a_batch(network_client: httpx.Client) -> None:
    rows = toy_rows(67, seed=11)
    alone = [number_texts(network_client.post("/predict", content=json.dumps(row))) for row in rows]
    bits = [(row["prediction"], row["interval"]["lower"], row["interval"]["upper"]) for row in alone]
    for size in (1, 2, 3, 4, 5, 8, 9, 16, 31, 66, 67):
        for start in (0, 1, len(rows) - size):
            body = json.dumps({"instances": (rows + rows)[start : start + size]})
            batch = number_texts(network_client.post("/predict/batch", content=body))
            together = zip(
                *(batch["predictions"], batch["interval"]["lower"], batch["interval"]["upper"]),
                strict=True,
            )
            assert list(together) == (bits + bits)[start : start + size]


@pytest.mark.parametrize(
    ("spelling", "plain"),
    [
        ("4", "4.0"),
        ("40e-1", "4.0"),
        ("0.4E+1", "4.0"),
        (f"4.{'0' * 400}", "4.0"),
        (f"0.{'0' * 400}4e401", "4.0"),
        ("1e-400", "0.0"),
        ("-1e-400", "0.0"),
        ("-0.0", "0.0"),
        ("-0", "0.0"),
        ("5e-324", "0.0"),
        (str(2**53 + 1), str(2.0**53)),
        (str(2**53 + 3), str(2.0**53 + 4)),
        (str(2**64 + 1), str(2.0**64)),
        ("9" * 300, "1e300"),
        ("0.1000000000000000055511151231257827021181583404541015625", "0.1"),
    ],
)
def test_a_number_is_rounded_to_the_nearest_float64_however_it_is_spelt(
    toy: httpx.Client, spelling: str, plain: str
) -> None:
    answer = toy.post("/predict", content=text_with_age(spelling))
    assert answer.status_code == 200
    assert answer.content == toy.post("/predict", content=text_with_age(plain)).content


def test_names_and_categories_may_be_spelt_with_escapes(toy: httpx.Client) -> None:
    escaped = json.dumps(ROW).replace("diesel", "di\\u0065sel").replace("age", "\\u0061g\\u0065")
    assert predict(toy, escaped) == predict(toy, ROW)


@settings(max_examples=150, deadline=None)
@given(age=st.floats(allow_nan=False, allow_infinity=False), fuel=st.sampled_from(FUEL.values))
def test_every_finite_number_gives_what_numpy_gives(toy: httpx.Client, age: float, fuel: str) -> None:
    row = {**ROW, AGE.name: age, FUEL.name: fuel}
    expected = expected_predictions(Linear(), toy_weights(Linear(), 5), [row])[0]
    assert predict(toy, row)["prediction"] == pytest.approx(expected, rel=1e-12, abs=1e-12)
