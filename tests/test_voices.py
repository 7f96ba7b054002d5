"""Every error below a prefix is said by that prefix's voice, whoever found it; all others are problems."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import httpx
import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.live import Live
from app.main import create_app
from app.problems import MEDIA_TYPE, problem
from app.refusals import Refused
from app.settings import Settings
from app.telemetry import Telemetry
from app.voices import VOICES, voice_of
from model_store.store import Store
from tests.in_process import InProcess
from tests.toys import publish_toy

LOUD = "text/loud"
KEYS: dict[str, Any] = {"api_keys": hashlib.sha256(b"key").hexdigest()}


def loud(refused: Refused, request_id: str) -> Response:
    """A voice that only these tests have."""
    faults = "; ".join(fault.detail for fault in refused.faults)
    content = f"{refused.detail} {faults} {request_id}".upper()
    return Response(content, refused.status, refused.headers, LOUD)


def patient(application: ASGIApp) -> ASGIApp:
    """The application as its server calls it, which goes on after a defect."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(RuntimeError):
            await application(scope, receive, send)

    return call


@contextmanager
def client_of(live: Live, settings: Settings) -> Iterator[httpx.Client]:
    application = patient(create_app(live, settings))
    with httpx.Client(transport=InProcess(application), base_url="http://test") as client:
        yield client


def live_of(store: Store, settings: Settings) -> Live:
    live = Live(store, Telemetry(), settings)
    live.look()
    return live


@pytest.fixture
def toy(store: Store) -> Store:
    store.promote("toy", publish_toy(store).version)
    return store


REFUSED: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "no such path": ("GET", "/model/of/a/car", {}, 404, ""),
    "nothing there": ("GET", "/model/report", {}, 404, ""),
    "no such method": ("DELETE", "/model", {}, 405, "Allow"),
    "no JSON": ("POST", "/predict", {"content": b"{"}, 400, ""),
    "a bad row": ("POST", "/predict", {"content": b"{}"}, 422, ""),
    "a bad row, by the route": ("POST", "/predict?explain=true", {"content": b"{}"}, 422, ""),
    "a bad query": ("POST", "/predict?explain=maybe", {"content": b"{}"}, 422, ""),
    "a bad batch": ("POST", "/predict/batch", {"content": b"{}"}, 422, ""),
    "compressed": ("POST", "/predict", {"headers": {"Content-Encoding": "gzip"}}, 415, ""),
    "too large": ("POST", "/predict", {"content": b" " * 1001}, 413, ""),
}


@pytest.mark.parametrize("is_loud", [True, False], ids=["loud", "problem"])
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_said_by_its_paths_voice(
    toy: Store,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, str, dict[str, Any], int, str],
    *,
    is_loud: bool,
) -> None:
    settings = Settings(store=toy.url, max_body_bytes=1000)
    method, path, sent, status, header = case
    if is_loud:
        monkeypatch.setitem(VOICES, "/predict", loud)
        monkeypatch.setitem(VOICES, "/model", loud)
    with client_of(live_of(toy, settings), settings) as client:
        check(client.request(method, path, **sent), status, header, is_loud=is_loud)


def check(answer: httpx.Response, status: int, header: str = "", *, is_loud: bool) -> None:
    """The answer is said by one voice, with the request's id in it and the header that it has to have."""
    assert answer.status_code == status
    assert answer.headers["Content-Type"].partition(";")[0] == (LOUD if is_loud else MEDIA_TYPE)
    request_id = answer.headers["X-Request-ID"]
    assert (request_id.upper() if is_loud else request_id) in answer.text
    assert not header or answer.headers[header]


@pytest.mark.parametrize("is_loud", [True, False], ids=["loud", "problem"])
def test_keys_overload_defects_and_having_nothing_to_serve_are_said_by_it_too(
    toy: Store, monkeypatch: pytest.MonkeyPatch, *, is_loud: bool
) -> None:
    if is_loud:
        monkeypatch.setitem(VOICES, "/model", loud)
    keyed = Settings(store=toy.url, **KEYS)
    with client_of(live_of(toy, keyed), keyed) as client:
        check(client.get("/model"), 401, "WWW-Authenticate", is_loud=is_loud)
        check(client.get("/"), 401, "WWW-Authenticate", is_loud=False)
    settings = Settings(store=toy.url)
    with client_of(Live(toy, Telemetry(), settings), settings) as client:
        check(client.get("/model"), 503, "Retry-After", is_loud=is_loud)
        check(client.get("/openapi.json"), 503, "Retry-After", is_loud=False)
    live = live_of(toy, settings)
    with client_of(live, settings) as client:
        live.telemetry.in_flight[0] += settings.max_in_flight
        check(client.get("/model"), 503, "Retry-After", is_loud=is_loud)
        check(client.post("/predict", content=b"{}"), 503, "Retry-After", is_loud=False)
        live.telemetry.in_flight[0] -= settings.max_in_flight
        monkeypatch.setattr(live, "current", break_down)
        check(client.get("/model"), 500, is_loud=is_loud)
        check(client.get("/openapi.json"), 500, is_loud=False)


def break_down() -> NoReturn:
    raise RuntimeError


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/models/toy", "/v2//", "/v2/v1"])
def test_a_voice_speaks_for_its_prefix_and_all_below(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setitem(VOICES, "/v2", loud)
    assert voice_of(path) is loud


@pytest.mark.parametrize("path", ["/", "/v20", "/v2.0", "/v", "/V2", "/v1/v2", "//v2", "", "*", "v2"])
def test_a_voice_speaks_for_no_other_path(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setitem(VOICES, "/v2", loud)
    assert voice_of(path) is problem


def test_of_two_voices_that_of_the_longer_prefix_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VOICES, "/v2", loud)
    monkeypatch.setitem(VOICES, "/v2/docs", problem)
    assert voice_of("/v2/docs/page") is problem
    assert voice_of("/v2/doc") is loud
