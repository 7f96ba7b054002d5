"""The hot path answers with the bytes of the route behind it, which a query keeps for itself."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.live import Live
from app.main import create_app
from app.schemas import Prediction
from app.serving import Served
from app.settings import Settings
from app.telemetry import Telemetry
from model_store.manifest import Linear, Mlp
from model_store.store import Store, open_store
from tests.in_process import InProcess, calling
from tests.toys import AGE, FUEL, POWER, TARGET, publish_toy, toy_description

ROUTE = "/predict?explain=false"
TEXT = json.dumps({AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"})
EXPONENTIAL = tuple(
    row.model_copy(update={"prediction": math.exp(row.prediction)}) for row in toy_description().golden
)
MODELS: dict[str, dict[str, Any]] = {
    "linear": {"network": Linear()},
    "mlp": {"network": Mlp(hidden=(7, 3), activation="tanh")},
    "logarithm": {"target": TARGET.model_copy(update={"transform": "log"}), "golden": EXPONENTIAL},
    "no interval": {"network": Mlp(hidden=(4,), activation="relu"), "interval": None},
    "filled": {"features": (AGE.model_copy(update={"fill": 3.0}), POWER, FUEL)},
}


@pytest.fixture(scope="module", params=list(MODELS.values()), ids=list(MODELS))
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    store = open_store(str(tmp_path_factory.mktemp("lane") / "store"))
    store.promote("toy", publish_toy(store, **request.param).version)
    with calling(store) as client:
        yield client


def without_id(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    """Status, headers and body, but for what no two answers share."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
    body = re.sub(r'"request_id":"[^"]*"', "", answer.text)
    headers["content-length"] = str(len(body))
    return answer.status_code, headers, body


def same(client: httpx.Client, body: str | bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    """Both ways give the same answer; returns it."""
    fast, slow = (client.post(path, content=body, headers=headers) for path in ("/predict", ROUTE))
    assert without_id(fast) == without_id(slow)
    return fast


# About the borders of both ranges and of what is far outside them.
BORDERS = [0.5, 10.0, -0.45, 10.95, 40.0, 300.0, 14.0, 326.0]
numbers = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**9), 10**9)
    | st.sampled_from(
        [near for x in BORDERS for near in (math.nextafter(x, -1e9), x, math.nextafter(x, 1e9))]
    )
)
rows = st.fixed_dictionaries(
    {AGE.name: numbers | st.none(), POWER.name: numbers, FUEL.name: st.sampled_from([*FUEL.values, "wood"])}
)


@settings(max_examples=150, deadline=None)
@given(row=rows)
def test_any_row_gets_the_same_bytes(toy: httpx.Client, row: dict[str, object]) -> None:
    assert same(toy, json.dumps(row)).status_code in {200, 422}


@settings(max_examples=50, deadline=None)
@given(row=rows)
def test_a_row_gets_the_same_bits_alone_and_in_a_batch(toy: httpx.Client, row: dict[str, object]) -> None:
    alone = toy.post("/predict", content=json.dumps(row))
    batch = toy.post("/predict/batch", content=json.dumps({"instances": [row] * 3}))
    assert alone.status_code == batch.status_code
    if alone.status_code == 200:
        assert batch.json()["predictions"] == [alone.json()["prediction"]] * 3
        interval = alone.json()["interval"] or {"lower": None, "upper": None}
        bounds = batch.json()["interval"] or {"lower": [None] * 3, "upper": [None] * 3}
        assert bounds["lower"] == [interval["lower"]] * 3
        assert bounds["upper"] == [interval["upper"]] * 3
        assert list(batch.json()["out_of_range"]) == alone.json()["out_of_range"]


BAD = ["", "{", "[]", "null", TEXT[:-1], TEXT + "x", TEXT[:-1] + ', "x": 1}', "\ufeff" + TEXT]
ROW = json.loads(TEXT)
NO_NUMBERS: list[object] = ["4", True, [4], {}, math.nan, math.inf, 1e308, None]
NO_TEXTS: list[object] = ["wood", 1, None, "", "\udcff"]
BAD_ROWS = [
    "{}",
    TEXT[:-1] + f', "{AGE.name}": 5}}',
    *(json.dumps(ROW | {AGE.name: value}) for value in NO_NUMBERS),
    *(json.dumps(ROW | {FUEL.name: value}) for value in NO_TEXTS),
    json.dumps({name: value for name, value in ROW.items() if name != POWER.name}),
    json.dumps({f"{name} ": value for name, value in ROW.items()}),
    json.dumps({f"member {number}": number for number in range(1500)}),
    "[" * 5000,
]


@pytest.mark.parametrize("body", [TEXT, f" {TEXT}\n", " " * 40_000 + TEXT, *BAD])
def test_any_body_gets_the_same_bytes(toy: httpx.Client, body: str) -> None:
    same(toy, body)


@pytest.mark.parametrize(
    "headers",
    [
        *({"Content-Encoding": value} for value in ("gzip", "identity", "")),
        *({"Content-Type": value} for value in ("text/plain", "application/x-www-form-urlencoded")),
        {"X-Request-ID": "abc"},
        {"X-Request-ID": "not sane"},
        {"Authorization": "Bearer nobody asked"},
    ],
)
def test_any_header_gets_the_same_answer(toy: httpx.Client, headers: dict[str, str]) -> None:
    same(toy, TEXT, headers)


@pytest.mark.parametrize("path", ["/predict", ROUTE])
def test_a_sane_id_comes_back_either_way(toy: httpx.Client, path: str) -> None:
    answer = toy.post(path, content=TEXT, headers={"X-Request-ID": "abc"})
    assert answer.headers["X-Request-ID"] == "abc"


def test_a_body_in_several_pieces_is_answered(toy: httpx.Client) -> None:
    pieces = (piece.encode() for piece in (TEXT[:5], TEXT[5:]))
    assert toy.post("/predict", content=pieces).json() == toy.post(ROUTE, content=TEXT).json()


def test_both_ways_are_counted_together(store: Store) -> None:
    store.promote("toy", publish_toy(store).version)
    with calling(store) as client:
        for path in ("/predict", ROUTE, "/predict"):
            assert client.post(path, content=TEXT).status_code == 200
        assert client.post("/predict", content="{}").status_code == 422
        assert client.get("/nowhere/at/all").status_code == 404
        text = client.get("/metrics").text
    counts = dict(
        re.findall(r'plumbline_request_duration_seconds_count\{(route="[^"]*",status="\d+")\} (\S+)', text)
    )
    assert counts['route="/predict",status="200"'] == "3.0"
    assert counts['route="/predict",status="422"'] == "1.0"
    assert counts['route="other",status="404"'] == "1.0"
    assert not any("nowhere" in series for series in counts)


@pytest.mark.parametrize("body", BAD_ROWS)
def test_a_bad_row_gets_the_same_bytes(toy: httpx.Client, body: str) -> None:
    same(toy, body)


@pytest.mark.parametrize("path", ["/predict", ROUTE])
def test_a_bad_row_is_refused_with_its_callers_id(toy: httpx.Client, path: str) -> None:
    answer = toy.post(path, content="{}", headers={"X-Request-ID": "abc"})
    assert (answer.status_code, answer.headers["X-Request-ID"], answer.json()["request_id"]) == (
        *(422, "abc", "abc"),
    )


@pytest.mark.parametrize("path", ["/predict", ROUTE])
@pytest.mark.parametrize(("body", "status"), [("{", 400), ("{}", 422)])
def test_a_bad_row_is_diagnosed_and_counted_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, path: str, body: str, status: int
) -> None:
    store.promote("toy", publish_toy(store).version)
    chosen = Settings(store=store.url)
    live = Live(store, Telemetry(), chosen)
    live.look()
    served, asked = live.current(), list[bytes]()

    def predict(body: bytes) -> Prediction:
        asked.append(body)
        return Served.predict(served, body)

    monkeypatch.setattr(served, "predict", predict)
    with httpx.Client(transport=InProcess(create_app(live, chosen)), base_url="http://test") as client:
        assert client.post(path, content=body).status_code == status
        counted = re.findall(
            r'duration_seconds_count\{route="/predict",status="(\d+)"\} (\S+)', client.get("/metrics").text
        )
    assert asked == [body.encode()]
    assert [(status, times) for status, times in counted if times != "0.0"] == [(str(status), "1.0")]


@pytest.mark.parametrize("body", [TEXT, "{}"])
def test_a_body_beyond_the_limit_is_refused_either_way(store: Store, body: str) -> None:
    store.promote("toy", publish_toy(store).version)
    with calling(store, max_body_bytes=200) as client:
        assert same(client, body.ljust(201)).status_code == 413
        assert same(client, body.ljust(200)).status_code != 413
