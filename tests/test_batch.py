import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.manifest import Linear
from model_store.store import open_store
from tests.in_process import calling
from tests.toys import AGE, FUEL, POWER, expected_predictions, toy_rows, toy_weights

ROW = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
COLUMNS = {AGE.name: [4.0, 5.0], POWER.name: [90.5, 91.5], FUEL.name: ["diesel", "petrol"]}
POWER_POINTER = "power 'bhp' ~1 ñ~0"


@pytest.fixture(scope="module")
def toy(mixed_client: httpx.Client) -> httpx.Client:
    return mixed_client


def predict(client: httpx.Client, body: object) -> dict[str, Any]:
    answer = client.post("/predict/batch", content=json.dumps(body))
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    parsed: dict[str, Any] = answer.json()
    return parsed


def as_columns(rows: list[dict[str, float | str | None]]) -> dict[str, list[float | str | None]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def without(name: str, members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}


def test_instances_and_columns_get_the_same_answer(toy: httpx.Client) -> None:
    rows = toy_rows(100, seed=5)
    instances = toy.post("/predict/batch", json={"instances": rows})
    columns = toy.post("/predict/batch", json={"columns": as_columns(rows)})
    assert instances.status_code == 200
    assert instances.content == columns.content


@pytest.mark.parametrize("count", [1, 2, 1000, 2**14, 2**14 + 1, 50_000])
def test_a_batch_gives_what_numpy_gives_in_the_order_of_its_rows(toy: httpx.Client, count: int) -> None:
    rows = toy_rows(count, seed=6)
    expected = expected_predictions(Linear(), toy_weights(Linear(), 5), rows)
    answer = predict(toy, {"instances": rows})
    assert answer["predictions"] == pytest.approx(expected.tolist(), rel=1e-12, abs=1e-12)


def test_every_row_of_a_batch_gets_its_own_interval(toy: httpx.Client) -> None:
    answer = predict(toy, {"instances": toy_rows(10)})
    assert answer["interval"] == {
        "coverage": 0.9,
        "lower": [prediction - 1.5 for prediction in answer["predictions"]],
        "upper": [prediction + 2.5 for prediction in answer["predictions"]],
    }


@pytest.mark.parametrize("count", [1, 3000])
@pytest.mark.parametrize("form", ["instances", "columns"])
def test_a_row_of_a_batch_far_outside_training_has_no_bounds(
    toy: httpx.Client, form: str, count: int
) -> None:
    ages = [4.0, 1e6, -0.44, -0.46, 10.94, 10.96, -1e300]
    rows = [{**toy_rows(1)[0], AGE.name: age, POWER.name: 326.0} for age in ages] * count
    answer = predict(toy, {form: rows if form == "instances" else as_columns(rows)})
    is_far = [False, True, False, True, False, True, True] * count
    told = list(zip(answer["predictions"], is_far, strict=True))
    assert answer["interval"] == {
        "coverage": 0.9,
        "lower": [None if is_far else prediction - 1.5 for prediction, is_far in told],
        "upper": [None if is_far else prediction + 2.5 for prediction, is_far in told],
    }


def test_a_batch_names_the_model_and_the_version(toy: httpx.Client) -> None:
    answer = predict(toy, {"instances": [ROW]})
    assert (answer["model"], answer["version"]) == ("toy", "1")


def test_a_batch_says_which_rows_lie_outside_the_training_range(toy: httpx.Client) -> None:
    far = {**ROW, AGE.name: 1e6}
    answer = predict(toy, {"instances": [far, ROW, {**far, POWER.name: -1.0}, ROW]})
    assert answer["out_of_range"] == {AGE.name: [0, 2], POWER.name: [2]}


def test_a_batch_within_the_training_range_says_so(toy: httpx.Client) -> None:
    assert predict(toy, {"instances": [ROW, ROW]})["out_of_range"] == {}


def test_features_come_in_any_order_in_each_row(toy: httpx.Client) -> None:
    answer = predict(toy, {"instances": [ROW, dict(reversed(ROW.items()))]})
    assert answer["predictions"][0] == answer["predictions"][1]


def test_columns_come_in_any_order(toy: httpx.Client) -> None:
    turned = dict(reversed(COLUMNS.items()))
    assert predict(toy, {"columns": turned}) == predict(toy, {"columns": COLUMNS})


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        pytest.param({}, [""], id="neither"),
        pytest.param({"instances": [ROW], "columns": COLUMNS}, [""], id="both"),
        pytest.param({"instances": [ROW], "columns": None}, [""], id="both, one null"),
        pytest.param({"instances": [ROW], "rows": 1}, [""], id="unknown member"),
        pytest.param([ROW], [""], id="rows alone"),
        pytest.param(ROW, [""], id="one row"),
        pytest.param({"instances": []}, ["/instances"], id="no instances"),
        pytest.param({"instances": None}, ["/instances"], id="instances null"),
        pytest.param({"instances": ROW}, ["/instances"], id="instances an object"),
        pytest.param({"instances": [ROW, None]}, ["/instances/1"], id="row null"),
        pytest.param({"instances": [ROW, [4.0, 90.5, "diesel"]]}, ["/instances/1"], id="row an array"),
        pytest.param({"instances": [ROW, without(AGE.name, ROW)]}, ["/instances/1/age"], id="row lacks"),
        pytest.param({"instances": [{**ROW, "colour": 1}]}, ["/instances/0"], id="row has more"),
        pytest.param({"instances": [ROW, {**ROW, AGE.name: "4"}]}, ["/instances/1/age"], id="text"),
        pytest.param(
            {"instances": [{**ROW, POWER.name: None}]}, [f"/instances/0/{POWER_POINTER}"], id="null"
        ),
        pytest.param({"instances": [{**ROW, FUEL.name: "wood"}]}, ["/instances/0/fuel type"], id="category"),
        pytest.param({"columns": None}, ["/columns"], id="columns null"),
        pytest.param({"columns": [COLUMNS]}, ["/columns"], id="columns an array"),
        pytest.param({"columns": {**COLUMNS, "colour": [1, 2]}}, ["/columns"], id="columns have more"),
        pytest.param({"columns": {**COLUMNS, AGE.name: 4.0}}, ["/columns/age"], id="column a number"),
        pytest.param({"columns": {**COLUMNS, AGE.name: [4.0, True]}}, ["/columns/age/1"], id="true"),
        pytest.param(
            {"columns": {**COLUMNS, FUEL.name: ["wood", "petrol"]}}, ["/columns/fuel type/0"], id="categories"
        ),
        pytest.param({"columns": {**COLUMNS, AGE.name: [4.0]}}, ["/columns"], id="unequal lengths"),
        pytest.param(
            {"columns": {AGE.name: [], POWER.name: [], FUEL.name: []}},
            ["/columns/age", f"/columns/{POWER_POINTER}", "/columns/fuel type"],
            id="columns empty",
        ),
        pytest.param(
            {"columns": {}},
            ["/columns/age", f"/columns/{POWER_POINTER}", "/columns/fuel type"],
            id="no columns",
        ),
    ],
)
def test_a_batch_that_is_not_one_is_refused_with_pointers(
    toy: httpx.Client, body: object, pointers: list[str]
) -> None:
    answer = toy.post("/predict/batch", json=body)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert [fault["pointer"] for fault in answer.json()["errors"]] == pointers


def test_columns_of_unequal_length_are_told_their_lengths(toy: httpx.Client) -> None:
    answer = toy.post("/predict/batch", json={"columns": {**COLUMNS, AGE.name: [4.0] * 7}})
    assert "2 to 7 values" in answer.json()["errors"][0]["detail"]


def test_the_first_ten_faults_of_a_batch_are_told(toy: httpx.Client) -> None:
    answer = toy.post("/predict/batch", json={"instances": [{**ROW, AGE.name: None}] * 50})
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [
        f"/instances/{row}/age" for row in range(10)
    ]


def test_one_wrong_row_behind_ten_thousand_good_ones_is_found(toy: httpx.Client) -> None:
    answer = toy.post("/predict/batch", json={"instances": [ROW] * 10_000 + [{**ROW, AGE.name: None}]})
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/instances/10000/age"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 413)])
def test_a_body_of_the_limit_passes_and_a_byte_more_does_not(
    first_model: Path, excess: int, status: int, *, chunked: bool
) -> None:
    body = b'{"instances": [{"Kilometers_Driven": 57000}]}'
    content = iter([body[:20], body[20:] + b" " * excess]) if chunked else body + b" " * excess
    with calling(open_store(str(first_model)), max_body_bytes=len(body)) as client:
        assert client.post("/predict/batch", content=content).status_code == status
        assert client.post("/predict/batch", content=body).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_compressed_body_is_refused_unread(toy: httpx.Client, path: str) -> None:
    answer = toy.post(path, content=b"\x1f\x8bMARKER", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert answer.headers["Content-Type"] == "application/problem+json"
