import codecs
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.manifest import GoldenRow, Linear, Mlp
from model_store.predictor import dump_weights
from model_store.store import open_store
from tests.conftest import only_json, serving
from tests.toys import AGE, FUEL, POWER, publish_toy, toy_description

ROW = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
TEXT = json.dumps(ROW, ensure_ascii=False)
MARKER = "s3cret-m4rker"
PATHS = ("/predict", "/predict/batch")


@pytest.fixture(scope="module")
def toy(mixed_service: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=mixed_service, timeout=20) as client:
        yield client


def refused(client: httpx.Client, path: str, body: str | bytes, status: int) -> dict[str, Any]:
    """Post `body`, check every rule that all refusals keep, and return the problem."""
    answer = client.post(path, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert len(answer.content) <= 4096
    assert MARKER not in answer.text
    assert "Traceback" not in answer.text
    problem = only_json(answer.text)
    assert isinstance(problem, dict)
    assert problem["status"] == status
    assert bool(problem.get("errors")) == (status == 422)
    if status == 422:
        document = json.loads(body, parse_int=float)
        assert 1 <= len(problem["errors"]) <= 10
        for fault in problem["errors"]:
            check_pointer(document, fault["pointer"])
    assert client.post("/predict", content=TEXT).status_code == 200, "it still answers"
    return problem


def check_pointer(document: object, pointer: str) -> None:
    """Resolve a JSON Pointer as RFC 6901 says; only its last member may be missing."""
    assert pointer == "" or pointer.startswith("/")
    *parents, last = [None, *pointer.split("/")[1:]]
    for token in parents[1:] if last is not None else []:
        assert token is not None
        document = step(document, token)
    if last is not None and isinstance(document, list):
        assert int(last) < len(document)
    elif last is not None:
        assert isinstance(document, dict)


def step(document: object, token: str) -> object:
    """The member or element that a token names."""
    if isinstance(document, list):
        return document[int(token)]
    assert isinstance(document, dict)
    return document[token.replace("~1", "/").replace("~0", "~")]


def pointers(problem: dict[str, Any]) -> list[str]:
    return [fault["pointer"] for fault in problem["errors"]]


def with_age(value: str) -> str:
    """A good row but for the JSON text of its age."""
    return TEXT.replace("4.0", value, 1)


def with_fuel(value: str) -> str:
    """A good row but for the JSON text of its category."""
    return TEXT.replace('"diesel"', value)


def with_member(member: str) -> str:
    """A good row with one more member."""
    return f"{TEXT[:-1]}, {member}}}"


def in_batch(row: str) -> str:
    """The row as the second of two instances."""
    return f'{{"instances": [{TEXT}, {row}]}}'


def in_columns(value: str) -> str:
    """A good batch of columns but for the JSON text of the second age."""
    columns = {AGE.name: [4.0, 5.0], POWER.name: [90.5, 90.5], FUEL.name: ["diesel", "diesel"]}
    return json.dumps({"columns": columns}).replace("5.0", value)


UNREADABLE = {
    "empty": "",
    "white space": " \t\r\n",
    "truncated": TEXT[:-1],
    "cut within a text": TEXT[:-3],
    "trailing garbage": f"{TEXT}x",
    "trailing NUL": f"{TEXT}\0",
    "two documents": f"{TEXT}\n{TEXT}",
    "trailing comma": f"{TEXT[:-1]},}}",
    "single quotes": "{'age': 4.0}",
    "bare names": "{age: 4.0}",
    "block comment": f"/* x */{TEXT}",
    "line comment": f"{TEXT} // x",
    "form": "age=4.0&fuel=diesel",
    "line break in a text": with_fuel('"die\nsel"'),
    "unknown escape": with_fuel(r'"die\xsel"'),
    "byte order mark": codecs.BOM_UTF8 + TEXT.encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 unmarked": TEXT.encode("utf-16-le"),
    "UTF-32": TEXT.encode("utf-32"),
    "UTF-32 unmarked": TEXT.encode("utf-32-be"),
    "lone surrogate in a name": with_member(r'"\ud800": 1'),
    "the same member twice": with_member('"age": 5.0'),
    "the same member twice alike": with_member('"age": 4.0'),
    "the same member twice, once escaped": with_member(r'"\u0061ge": 4.0'),
    "the same unknown member twice": with_member('"x": 1, "x": 2'),
    "the same member twice deep within": with_age('{"x": 1, "x": 2}'),
}
NOT_NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "nan",
    "0x10",
    "01",
    "-01",
    "+1",
    ".5",
    "1.",
    "1.e1",
    "1_000",
    "1e",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_not_json_gets_a_400(toy: httpx.Client, path: str, body: str | bytes) -> None:
    refused(toy, path, body, 400)


@pytest.mark.parametrize(
    "body", [body for body in UNREADABLE.values() if isinstance(body, str) and body.strip()]
)
def test_what_is_not_json_gets_a_400_inside_a_batch(toy: httpx.Client, body: str) -> None:
    refused(toy, "/predict/batch", in_batch(body), 400)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"instances": [{TEXT}], "instances": [{TEXT}]}}',
        f'{{"instances": [], "instances": [{TEXT}]}}',
        in_columns("5.0").replace('"age"', '"age": [1.0, 2.0], "age"'),
        in_columns("5.0").replace('"age"', r'"\u0061ge": [1.0, 2.0], "age"'),
    ],
)
def test_the_same_member_twice_gets_a_400_in_a_batch(toy: httpx.Client, body: str) -> None:
    refused(toy, "/predict/batch", body, 400)


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_numbers_that_json_does_not_know_get_a_400(toy: httpx.Client, value: str) -> None:
    refused(toy, "/predict", with_age(value), 400)
    refused(toy, "/predict", with_fuel(value), 400)
    refused(toy, "/predict", with_member(f'"unknown": {value}'), 400)
    refused(toy, "/predict/batch", in_batch(with_age(value)), 400)
    refused(toy, "/predict/batch", in_columns(value), 400)


@pytest.mark.parametrize(
    "value",
    [
        *("1e400", "-1e400", "1e99999999999999999999"),
        *(pytest.param("9" * digits, id=f"{digits} digits") for digits in (400, 5_000, 100_000)),
        *("true", "false", "null", '"1.5"', '"nan"', '"1_000"', '""', "[]", "[4.0]", "{}"),
        r'"\ud800"',
        pytest.param(f"{'[' * 500}{']' * 500}", id="500 arrays"),
    ],
)
def test_values_that_are_not_finite_numbers_get_a_422(toy: httpx.Client, value: str) -> None:
    assert pointers(refused(toy, "/predict", with_age(value), 422)) == ["/age"]
    assert pointers(refused(toy, "/predict/batch", in_batch(with_age(value)), 422)) == ["/instances/1/age"]
    assert pointers(refused(toy, "/predict/batch", in_columns(value), 422)) == ["/columns/age/1"]


@pytest.mark.parametrize(
    "value",
    ['"wood"', '""', "0", "true", "null", "[]", "1e400", r'"\udfff"', f'"{MARKER}"'],
)
def test_an_unknown_category_is_told_the_known_ones(toy: httpx.Client, value: str) -> None:
    fault = refused(toy, "/predict", with_fuel(value), 422)["errors"][0]
    assert fault == {"pointer": "/fuel type", "detail": "one of 'petrol', 'diesel', 'a,b' is expected"}


@pytest.mark.parametrize("value", ['"Diesel"', '"diesel "', '"diesl"', r'"d\u00edesel"'])
def test_a_misspelt_category_is_told_the_one_that_was_meant(toy: httpx.Client, value: str) -> None:
    detail = "one of 'petrol', 'diesel', 'a,b' is expected: did you mean 'diesel'?"
    assert refused(toy, "/predict", with_fuel(value), 422)["errors"] == [
        {"pointer": "/fuel type", "detail": detail}
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    ["[]", "null", f'"{MARKER}"', '""', r'"\ud800"', "1", "-0.0", "1e400", "true", "false", "[1, 2]", "[{}]"],
)
def test_a_document_that_is_no_object_gets_a_422(toy: httpx.Client, path: str, body: str) -> None:
    assert pointers(refused(toy, path, body, 422)) == [""]


@pytest.mark.parametrize("name", ROW)
def test_a_missing_feature_is_pointed_at(toy: httpx.Client, name: str) -> None:
    body = json.dumps({key: value for key, value in ROW.items() if key != name})
    (fault,) = refused(toy, "/predict", body, 422)["errors"]
    assert fault["pointer"] == "/" + name.replace("~", "~0").replace("/", "~1")
    assert fault["detail"].startswith("it is missing")


@pytest.mark.parametrize(
    ("given_name", "nearest"),
    [
        ("Age", "age"),
        ("age ", "age"),
        (" age", "age"),
        ("Fuel_Type", "fuel type"),
        ("fuel  type", "fuel type"),
    ],
)
def test_the_nearest_name_is_suggested_for_one_that_is_almost_right(
    toy: httpx.Client, given_name: str, nearest: str
) -> None:
    body = TEXT.replace(f'"{nearest}"', f'"{given_name}"')
    unknown, missing = refused(toy, "/predict", body, 422)["errors"]
    assert unknown == {"pointer": "", "detail": f"it has an unknown member: did you mean {nearest!r}?"}
    assert missing["pointer"] == f"/{nearest}"


def test_the_known_names_are_told_for_one_that_is_nothing_like_them(toy: httpx.Client) -> None:
    (fault,) = refused(toy, "/predict", with_member(f'"{MARKER}": 1'), 422)["errors"]
    assert all(repr(name) in fault["detail"] for name in ROW)


@pytest.mark.parametrize(
    ("path", "opening"), list(product(PATHS, ["[", '{"a":', '{"instances":', '{"age":']))
)
def test_deep_nesting_gets_a_400_at_once(toy: httpx.Client, path: str, opening: str) -> None:
    refused(toy, path, opening * 100_000, 400)


@pytest.mark.parametrize(("path", "opening"), list(product(PATHS, ["[", '{"a":'])))
def test_a_million_levels_get_a_400_at_once(toy: httpx.Client, path: str, opening: str) -> None:
    refused(toy, path, opening * 1_000_000, 400)


def test_a_million_levels_take_milliseconds(toy: httpx.Client) -> None:
    durations = []
    for _ in range(5):
        start = time.perf_counter()
        assert toy.post("/predict", content=b"[" * 1_000_000).status_code == 400
        durations.append(time.perf_counter() - start)
    assert min(durations) < 0.05, (
        "10 ms are the service's, the rest is for a megabyte's way through a busy machine"
    )


@pytest.mark.parametrize("levels", [10, 900, 1_100, 100_000])
def test_nesting_that_ends_is_refused_too(toy: httpx.Client, levels: int) -> None:
    answer = toy.post("/predict", content=with_age("[" * levels + "]" * levels))
    assert answer.status_code in {400, 422}
    assert len(answer.content) <= 4096


@pytest.mark.parametrize(
    ("path", "count", "status"), [("/predict", 400_000, 422), *product(PATHS, [1_000_000], [413])]
)
def test_hundreds_of_thousands_of_members_are_refused(
    toy: httpx.Client, path: str, count: int, status: int
) -> None:
    members = ",".join(f'"k{index}":1' for index in range(count))
    refused(toy, path, f"{{{members}}}", status)


def test_a_name_of_a_megabyte_gets_a_422(toy: httpx.Client) -> None:
    refused(toy, "/predict", with_member(f'"{MARKER * 80_000}": 1'), 422)


def test_ten_thousand_empty_rows_get_a_short_answer(toy: httpx.Client) -> None:
    refused(toy, "/predict/batch", f'{{"instances": [{",".join(["{}"] * 10_000)}]}}', 422)


ECHOES = {
    "as a member": with_member(f'"{MARKER}": 1'),
    "as a number": with_age(f'"{MARKER}"'),
    "as a category": with_fuel(f'"{MARKER}"'),
    "as the document": f'"{MARKER}"',
    "within an array": f'["{MARKER}"]',
    "beside a wrong number": with_age("null").replace("diesel", MARKER),
    "in a number's digits": with_age("9" * 400),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", ECHOES.values(), ids=ECHOES.keys())
def test_a_422_never_repeats_what_was_sent(toy: httpx.Client, path: str, body: str) -> None:
    assert "99999" not in json.dumps(refused(toy, path, body, 422))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        MARKER,
        f'{{"{MARKER}": 1, "{MARKER}": 2}}',
        f'{{"{MARKER}": NaN}}',
        f'{{"{MARKER}": "{MARKER}}}',
        f'["{MARKER}", {"[" * 100_000}',
        rf'{{"{MARKER}\ud800": 1}}',
    ],
    ids=["bare", "twice", "NaN", "unterminated", "deep", "surrogate"],
)
def test_a_400_never_repeats_what_was_sent(toy: httpx.Client, path: str, body: str) -> None:
    refused(toy, path, body, 400)


def test_a_prediction_that_overflows_gets_a_422_that_names_the_row(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.promote("toy", publish_toy(store, Mlp(hidden=(64,), activation="relu")).version)
    with serving(tmp_path / "store") as url, httpx.Client(base_url=url) as client:
        problem = refused(client, "/predict/batch", in_batch(with_age("1.7e308")), 422)
        row_1 = {"pointer": "/instances/1", "detail": "row 1's prediction overflows"}
        assert problem["errors"] == [row_1]
        (fault,) = refused(client, "/predict", with_age("-1.7e308"), 422)["errors"]
        assert fault["pointer"] == ""
        faults = refused(client, "/predict/batch", in_columns("1.7e308"), 422)["errors"]
        assert {fault["pointer"] for fault in faults} == {"/columns"}


texts = st.text() | st.sampled_from(["diesel", r"\ud800", "\ud800", MARKER])
names = st.sampled_from([*ROW, "instances", "columns"]) | texts
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
rows = st.fixed_dictionaries(
    {AGE.name: numbers | documents, POWER.name: numbers, FUEL.name: st.sampled_from(FUEL.values) | documents}
)
batches = st.fixed_dictionaries({"instances": st.lists(rows | documents, max_size=3)})
columns = st.fixed_dictionaries(
    {"columns": st.fixed_dictionaries({name: st.lists(numbers | documents, max_size=2) for name in ROW})}
)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(PATHS), document=documents | rows | batches | columns)
def test_whatever_json_comes_is_answered_or_refused_by_the_rules(
    toy: httpx.Client, path: str, document: object
) -> None:
    body = json.dumps(document)
    status = toy.post(path, content=body).status_code
    if status != 200:
        assert status == 422 or "\\ud" in body
        refused(toy, path, body, status)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc3"])
def test_bytes_that_are_not_utf_8_get_a_400(toy: httpx.Client, path: str, bad: bytes) -> None:
    for body in (TEXT, in_batch(TEXT)):
        refused(toy, path, body.encode().replace(b"diesel", b"die" + bad + b"sel"), 400)
    refused(toy, path, TEXT.encode().replace(b"age", b"a" + bad), 400)


def test_long_names_do_not_make_a_long_refusal(tmp_path: Path) -> None:
    features = tuple(
        AGE.model_copy(update={"name": f"{index:02}" + "\N{SNOWMAN}" * 198}) for index in range(12)
    )
    weights = {"layers.0.weight": np.zeros((1, 12)), "layers.0.bias": np.zeros(1)}
    golden = GoldenRow(inputs={feature.name: 5.25 for feature in features}, prediction=0.0)
    store = open_store(str(tmp_path / "store"))
    description = toy_description(Linear()).model_copy(
        update={"features": features, "golden": (golden,) * 32, "interval": None}
    )
    store.promote("toy", store.publish(description, dump_weights(weights), lambda _number: {}).version)
    with serving(tmp_path / "store") as url:
        answer = httpx.post(f"{url}/predict", content="{}")
    assert answer.status_code == 422
    assert len(answer.content) <= 4096
    assert answer.json()["errors"]


@pytest.mark.parametrize("name", ["AGE", "Age", "age ", " aGE"])
def test_a_name_in_another_case_or_with_spaces_is_recognised(toy: httpx.Client, name: str) -> None:
    problem = refused(toy, "/predict", TEXT.replace('"age"', f'"{name}"'), 422)
    assert "did you mean 'age'?" in problem["errors"][0]["detail"]
