"""A service of a model with every kind of input, with values that are missing, new, misspelt and wrong."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser

from model_store._difference import differences
from model_store.manifest import Linear, Mlp
from model_store.store import open_store
from model_store.tables import version_text
from tests.browser import visiting
from tests.conftest import serving
from tests.toys import (
    ALL_KINDS,
    COLOUR,
    PORT,
    encoded_row,
    expected_for_all_kinds,
    publish_all_kinds,
    rows_of_all_kinds,
    toy_weights,
)

NETWORKS: Final[dict[str, Linear | Mlp]] = {
    "linear": Linear(),
    "mlp": Mlp(hidden=(7, 3), activation="tanh"),
}
ROWS: Final = rows_of_all_kinds(150, seed=3)
ROW: Final = {
    "km": 4,
    "port": "Kai",
    "colour": "red",
    "grade": "a,{b}",
    "sold": "2018-05-13T10:30",
    "built": "2000-02-29",
    "hybrid": True,
    "turbo": False,
    "rpm": 2500,
}
MOMENT = "a date and time (ISO 8601, in training 2017-12-01 to 2018-11-30T21:00) is expected"
DAY = "a date (ISO 8601 or %d/%m/%Y, in training 1980-01-01 to 2016-07-18) is expected"
GRADE = "one of 'a,{b}' or null is expected: did you mean 'a,{b}'?"
PORTS = "a text or null (in training one of 'Hafen', 'NA', 'Kai') is expected"


@pytest.fixture(scope="module", params=NETWORKS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("kinds") / "store"
    store = open_store(str(folder))
    store.promote("toy", publish_all_kinds(store, NETWORKS[request.param]).version)
    with serving(folder) as url:
        yield url


@pytest.fixture(scope="module")
def client(service: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service, timeout=20) as client:
        yield client


def network_of(client: httpx.Client) -> Linear | Mlp:
    return NETWORKS[client.get("/model").json()["network"]["kind"]]


def answered(answer: httpx.Response) -> dict[str, Any]:
    """The answer with every number as the text it was sent in."""
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = json.loads(answer.text, parse_float=str)
    return parsed


def in_columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"columns": {name: [row[name] for row in rows] for name in ROW}}


def as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROW), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def faults(client: httpx.Client, path: str, body: object) -> list[tuple[str, str]]:
    answer = client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    return [(fault["pointer"], fault["detail"]) for fault in answer.json()["errors"]]


def test_predictions_are_those_of_the_formula(client: httpx.Client) -> None:
    network = network_of(client)
    weights = toy_weights(network, len(encoded_row(ROW)))
    answer = client.post("/predict/batch", json={"instances": ROWS}).json()
    expected = expected_for_all_kinds(network, weights, ROWS).tolist()
    assert answer["predictions"] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_a_row_gets_the_same_bits_alone_in_instances_in_columns_and_in_a_csv(client: httpx.Client) -> None:
    alone = [answered(client.post("/predict", json=row)) for row in ROWS]
    predictions = [answer["prediction"] for answer in alone]
    outside = {
        feature.name: [k for k, answer in enumerate(alone) if feature.name in answer["out_of_range"]]
        for feature in ALL_KINDS
    }
    for body in ({"instances": ROWS}, in_columns(ROWS)):
        together = answered(client.post("/predict/batch", json=body))
        assert together["predictions"] == predictions
        assert together["out_of_range"] == {name: rows for name, rows in outside.items() if rows}
    table = client.post("/predict/batch", content=as_csv(ROWS), headers={"Content-Type": "text/csv"}).text
    assert [row["prediction"] for row in csv.DictReader(io.StringIO(table))] == predictions


@pytest.mark.parametrize(
    ("changes", "outside"),
    [
        ({}, []),
        ({"km": None, "port": None, "grade": None, "hybrid": None}, []),
        ({"km": 10.5}, ["km"]),
        ({"port": "Werft", "colour": "mauve"}, ["port", "colour"]),
        ({"colour": None}, ["colour"]),
        ({"port": "NA", "colour": "None"}, []),
        ({"sold": "2017-12-01", "built": "1980-01-01"}, []),
        ({"sold": "2017-11-30T22:59:59", "built": "31/12/1979"}, ["sold", "built"]),
        ({"sold": "2018-11-30T22:00+01:00"}, []),
        ({"sold": "2018-11-30T21:00:00.001"}, ["sold"]),
        ({"sold": "2018-04-10T10:30"}, ["sold"]),
        ({"sold": "2018-05-13T11:30"}, ["sold"]),
    ],
)
def test_what_training_did_not_have_is_answered_and_named(
    client: httpx.Client, changes: dict[str, Any], outside: list[str]
) -> None:
    answer = client.post("/predict", json=ROW | changes)
    assert answer.status_code == 200, answer.text
    assert answer.json()["out_of_range"] == outside


def test_a_row_far_outside_training_has_no_interval_in_any_form(client: httpx.Client) -> None:
    near = [
        ("km", 4),
        ("km", None),
        ("km", 10.9),
        ("colour", None),
        ("sold", "2018-04-10"),
        ("built", "2020-03-13"),
    ]
    far = [("km", 11), ("km", -0.5), ("sold", "2019-01-07"), ("sold", "2017-10-25"), ("built", "14/03/2020")]
    rows = [ROW | {name: value} for name, value in (*near, *far)]
    unclaimed = [False] * len(near) + [True] * len(far)
    alone = [client.post("/predict", json=row).json() for row in rows]
    assert [answer["interval"] is None for answer in alone] == unclaimed
    lower, upper = ([(a["interval"] or {}).get(bound) for a in alone] for bound in ("lower", "upper"))
    for body in ({"instances": rows}, in_columns(rows)):
        together = client.post("/predict/batch", json=body).json()
        assert together["interval"] == {"coverage": 0.9, "lower": lower, "upper": upper}
    table = client.post("/predict/batch", content=as_csv(rows), headers={"Content-Type": "text/csv"}).text
    answers = list(csv.DictReader(io.StringIO(table)))
    assert [row["lower"] and float(row["lower"]) for row in answers] == [bound or "" for bound in lower]
    assert [row["upper"] and float(row["upper"]) for row in answers] == [bound or "" for bound in upper]


def test_inputs_out_of_range_are_counted_in_a_csv_as_alone(client: httpx.Client) -> None:
    def counted() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("plumbline_out_of_range_total{") and 'feature="port"' in line
        )

    before = counted()
    client.post("/predict", json=ROW | {"port": "Werft"})
    content = as_csv([ROW | {"port": "Werft"}, ROW])
    client.post("/predict/batch", content=content, headers={"Content-Type": "text/csv"})
    assert counted() == before + 2


@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("sold", "2018-02-30", MOMENT),
        ("sold", "13/05/2018", MOMENT),
        ("sold", 17664, MOMENT),
        ("sold", None, MOMENT),
        ("built", "05/13/2018", DAY),
        ("turbo", None, "true or false is expected"),
        ("turbo", "true", "true or false is expected"),
        ("hybrid", 1, "true, false or null is expected"),
        ("grade", "A,{b}", GRADE),
        ("port", "", PORTS),
        ("port", 3, PORTS),
    ],
)
def test_a_wrong_value_is_refused_by_its_place_in_every_form(
    client: httpx.Client, name: str, value: object, detail: str
) -> None:
    rows = [ROW, ROW | {name: value}]
    assert faults(client, "/predict", rows[1]) == [(f"/{name}", detail)]
    assert faults(client, "/predict/batch", {"instances": rows}) == [(f"/instances/1/{name}", detail)]
    assert faults(client, "/predict/batch", in_columns(rows)) == [(f"/columns/{name}/1", detail)]


@pytest.mark.parametrize("form", ["instances", "columns"])
def test_the_one_wrong_date_of_a_large_batch_is_found(client: httpx.Client, form: str) -> None:
    rows = [dict(row) for row in (ROWS * 40)[:5000]]
    rows[4321]["sold"] = "2018-02-30"
    body = {"instances": rows} if form == "instances" else in_columns(rows)
    (found,) = faults(client, "/predict/batch", body)
    assert found[0] == ("/instances/4321/sold" if form == "instances" else "/columns/sold/4321")


@pytest.mark.parametrize("missing", [True, False])
def test_a_member_that_comes_twice_is_refused_where_texts_may_be_missing(
    client: httpx.Client, *, missing: bool
) -> None:
    row = json.dumps(ROW | {"port": None, "grade": None} if missing else ROW)
    for twice in ('"port": null', '"port": "Kai"', '"grade": null', '"km": 4'):
        body = f"{row[:-1]}, {twice}}}"
        assert client.post("/predict", content=body).status_code == 400
        assert client.post("/predict/batch", content=f'{{"instances": [{row}, {body}]}}').status_code == 400


def test_texts_that_may_be_anything_may_have_commas_braces_and_quotes(client: httpx.Client) -> None:
    odd = ['{"port": "Kai"}, ' * 20, '"', "\\", "é🚗", "a\nb", " "]
    rows = [ROW | {"port": text} for text in odd]
    answer = client.post("/predict/batch", json={"instances": rows}).json()
    assert answer["out_of_range"] == {"port": list(range(len(odd)))}
    table = client.post("/predict/batch", content=as_csv(rows), headers={"Content-Type": "text/csv"}).text
    found = [float(row["prediction"]) for row in csv.DictReader(io.StringIO(table, newline=""))]
    assert found == answer["predictions"]


def test_a_wrong_cell_of_a_csv_spoils_its_row_alone(client: httpx.Client) -> None:
    wrong = [{"sold": "soon"}, {"turbo": "maybe"}, {"grade": "a{b}"}, {"turbo": ""}]
    rows = [ROW, *(ROW | change for change in wrong), ROW]
    table = client.post("/predict/batch", content=as_csv(rows), headers={"Content-Type": "text/csv"}).text
    found = list(csv.DictReader(io.StringIO(table)))
    assert [bool(row["prediction"]) for row in found] == [True, False, False, False, False, True]
    assert [row["error"] for row in found] == [
        "",
        f"sold: {MOMENT}",
        "turbo: true or false is expected",
        f"grade: {GRADE}",
        "turbo: true or false is expected",
        "",
    ]


def test_an_explanation_is_complete(client: httpx.Client) -> None:
    for row in [ROW, *ROWS[:20]]:
        answer = client.post("/predict?explain=true", json=row).json()
        parts = [answer["baseline"], *answer["contributions"].values()]
        assert list(answer["contributions"]) == list(ROW)
        assert sum(parts) == pytest.approx(answer["prediction"], rel=1e-9, abs=1e-9 * sum(map(abs, parts)))


def test_a_category_answered_as_the_average_adds_nothing(client: httpx.Client) -> None:
    for colour in (None, "mauve"):
        answer = client.post("/predict?explain=true", json=ROW | {"colour": colour}).json()
        assert answer["contributions"][COLOUR.name] == pytest.approx(0, abs=1e-12)


def test_the_document_describes_every_input_with_an_example_that_is_answered(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    (batch,) = schemas["Batch"]["examples"]
    assert batch == {"instances": [ROW]}
    assert client.post("/predict/batch", json=batch).status_code == 200
    members = schemas["Row"]["properties"]
    assert {name: member["examples"][0] for name, member in members.items()} == ROW
    assert (members["sold"]["type"], members["sold"]["format"]) == ("string", "date-time")
    assert members["sold"]["description"].startswith("In training 2017-12-01 to 2018-11-30T21:00. ")
    assert members["built"]["format"] == "date"
    assert members["turbo"]["type"] == "boolean"
    assert {"type": "null"} in members["hybrid"]["anyOf"]
    assert {"type": "null"} in members["grade"]["anyOf"]
    items = schemas["Columns"]["properties"]["grade"]["items"]
    assert {"type": "null"} in items["anyOf"]


def test_the_form_asks_for_every_input_and_sends_it_as_json_has_it(browser: Browser, service: str) -> None:
    with visiting(browser, service, "/") as visit:

        def sent_and_answered() -> Any:
            with visit.page.expect_response("**/predict") as found:
                visit.page.get_by_role("button", name="Predict").click()
            assert found.value.status == 200, found.value.text()
            return json.loads(visit.posted[-1].post_data or "")

        assert sent_and_answered() == ROW
        for name, value in {"port": "Werft", "sold": "2018-06-01T09:15", "built": "1999-12-31"}.items():
            visit.page.get_by_label(name).fill(value)
        visit.page.get_by_label("turbo").select_option("true")
        visit.page.get_by_label("hybrid").select_option("false")
        changed = {"port": "Werft", "sold": "2018-06-01T09:15", "built": "1999-12-31"}
        assert sent_and_answered() == ROW | changed | {"turbo": True, "hybrid": False}
        visit.page.get_by_text("outside the training range: port").wait_for()
        for name in ("km", "port", "colour"):
            visit.page.get_by_label(name).fill("")
        for name in ("grade", "hybrid"):
            visit.page.get_by_label(name).select_option("")
        missing = dict.fromkeys(("km", "port", "colour", "grade", "hybrid"))
        assert sent_and_answered() == ROW | changed | {"turbo": True} | missing
        assert visit.page.locator("datalist").first.locator("option").evaluate_all(
            "options => options.map(option => option.value)"
        ) == list(PORT.values)
        cells = visit.page.locator("table").first.locator("tbody tr").all()
        shown = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in cells}
        assert shown["sold"] == ["2017-12-01", "2018-11-30T21:00", "2018-05-15T06:00", "105.5 days"]
        assert shown["port"] == ["Hafen 35.0%, NA 10.0%, Kai 20.0%, (missing) 25.0%, (other) 10.0%"]
        assert shown["hybrid"] == ["true 25.0%, false 55.0%, (missing) 20.0%"]
        assert visit.complaints == []


def test_the_terminal_shows_every_input_in_a_line(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    shown = version_text(store.load("toy", publish_all_kinds(store).version))
    assert [line.removeprefix("from      ") for line in shown.splitlines() if line.startswith("from")] == [
        "km: 0.5 to 10, mean 5.25, std 2.5, 25.0% missing",
        "port: Hafen, NA, Kai, (missing), (other)",
        "colour: red, None, (missing), (other)",
        "grade: a,{b}, (missing)",
        "sold: 2017-12-01 to 2018-11-30T21:00, mean 2018-05-15T06:00, by month, weekday, hour",
        "built: 1980-01-01 to 2016-07-18, mean 2000-01-01",
        "hybrid: true 25.0%, false 55.0%, (missing) 20.0%",
        "turbo: true 10.0%, false 90.0%",
        "rpm (1/min): 800 to 7000, mean 3000.0, std 1250.0, 12.5% missing, clipped, hats at 5 knots",
    ]


def test_versions_of_every_kind_differ_by_the_names_of_their_columns(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    first, second = (store.load("toy", publish_all_kinds(store, seed=seed).version) for seed in (1, 2))
    found = {difference.what for difference in differences(second, first)}
    assert {f"weight of {label}" for feature in ALL_KINDS for label in feature.labels} <= found
    assert "weight of port = (missing)" in found
    assert "weight of sold weekday = Monday" in found
    assert "weight of sold month = 4" not in found
