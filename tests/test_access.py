"""Who may call, asked of real services with real keys."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from model_store.store import Store
from tests.conftest import free_port, serving, started
from tests.in_process import calling

KEYS = ("first-k3y-of-the-team", "second k3y / ñ")
DIGESTS = tuple(hashlib.sha256(key.encode("latin-1")).hexdigest() for key in KEYS)
BOTH = " , ".join([DIGESTS[0], DIGESTS[1].upper()])
KEYED = (
    *(("GET", path) for path in ("/", "/model", "/model/versions", "/model/report")),
    *(("POST", path) for path in ("/predict", "/predict/batch", "/predict?explain=true")),
)
OPEN = ("/livez", "/readyz", "/healthz", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css")


@pytest.fixture(scope="module")
def keyed(mixed_store: Store) -> Iterator[httpx.Client]:
    """A client of a service in this process."""
    with calling(mixed_store, api_keys=BOTH) as client:
        yield client


@pytest.fixture(scope="module")
def keyed_service(mixed_store: Store) -> Iterator[str]:
    """The address of a real service."""
    with serving(Path(mixed_store.url), "--api-keys", BOTH) as url:
        yield url


@pytest.mark.parametrize("path", [*OPEN, "/", "/model", "/metrics"])
def test_without_keys_everybody_may_call(mixed_client: httpx.Client, path: str) -> None:
    assert mixed_client.get(path).status_code == 200


def raw_authorization(url: str, value: bytes) -> bytes:
    """The status line for an Authorization header of any bytes."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=20) as connection:
        connection.sendall(
            b"GET /model HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + value + b"\r\n\r\n"
        )
        return b"".join(iter(lambda: connection.recv(65536), b""))


def check_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["status"] == 401
    assert "k3y" not in answer.text


@pytest.mark.parametrize(("method", "path"), KEYED)
def test_without_a_key_it_is_refused(keyed: httpx.Client, method: str, path: str) -> None:
    check_refused(keyed.request(method, path))


@pytest.mark.parametrize(
    "given",
    [
        *("", "Bearer", "Bearer wrong", f"Bearer {KEYS[0]}x", f"Bearer {KEYS[0][:-1]}"),
        *(f"Basic {KEYS[0]}", KEYS[0], f"Bearer{KEYS[0]}", f"Token {KEYS[0]}", f"Bearer {KEYS[0].upper()}"),
        pytest.param(f"Bearer {DIGESTS[0]}", id="the digest itself"),
        pytest.param(f"Bearer {KEYS[0]}, Bearer {KEYS[0]}", id="two"),
    ],
)
def test_with_a_wrong_key_or_scheme_it_is_refused(keyed: httpx.Client, given: str) -> None:
    check_refused(keyed.get("/model", headers={"Authorization": given}))


@pytest.mark.parametrize("given", [b"Bearer ", b"Bearer \xff\xfe\x80", b"\xc3\xa9 key", "Bearer 😀".encode()])
def test_no_key_and_bytes_of_any_kind_are_refused(keyed_service: str, given: bytes) -> None:
    answer = raw_authorization(keyed_service, given)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_each_key_is_answered(keyed_service: str, key: str, scheme: bytes) -> None:
    assert raw_authorization(keyed_service, scheme + b" " + key.encode("latin-1")).startswith(
        b"HTTP/1.1 200 "
    )


def test_a_key_opens_every_route(keyed: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    for method, path in KEYED:
        assert keyed.request(method, path, headers=headers).status_code in {200, 400, 404}
    row = {"age": 4.0, "power 'bhp' / ñ~": 90.5, "fuel type": "diesel"}
    assert keyed.post("/predict", json=row, headers=headers).status_code == 200


def test_a_body_is_not_looked_at_without_a_key(keyed: httpx.Client) -> None:
    check_refused(keyed.post("/predict", content=b"[" * 1000))


@pytest.mark.parametrize("path", [*OPEN, "/"])
def test_health_and_what_a_browser_shows_stay_open(keyed: httpx.Client, path: str) -> None:
    assert keyed.get(path, headers={"Accept": "text/html"}).status_code == 200


def test_the_documentation_names_the_scheme_where_a_key_is_due(
    keyed: httpx.Client, mixed_client: httpx.Client
) -> None:
    document = keyed.get("/openapi.json").json()
    ((name, scheme),) = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert document["security"] == [{name: []}]
    assert "401" in document["paths"]["/predict"]["post"]["responses"]
    for path in ("/livez", "/readyz", "/healthz"):
        assert document["paths"][path]["get"]["security"] == []
    without = mixed_client.get("/openapi.json").json()
    assert "securitySchemes" not in without["components"]
    assert "security" not in without


def test_metrics_are_closed_with_the_keys(keyed: httpx.Client) -> None:
    check_refused(keyed.get("/metrics"))
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    assert keyed.get("/metrics", headers=headers).status_code == 200


def test_metrics_are_open_by_the_setting(mixed_store: Store) -> None:
    with calling(mixed_store, api_keys=DIGESTS[0], metrics_open=True) as client:
        assert client.get("/metrics").status_code == 200
        document = client.get("/openapi.json").json()
        check_refused(client.get("/model"))
    assert document["paths"]["/metrics"]["get"]["security"] == []


def test_neither_a_key_nor_its_digest_is_ever_logged(mixed_store: Store) -> None:
    port = free_port()
    variables = {"PLUMBLINE_API_KEYS": DIGESTS[0], "PLUMBLINE_LOG_LEVEL": "debug"}
    with started(
        "app", "--store", mixed_store.url, "--port", port, port=port, environment=variables
    ) as process:
        for key in (KEYS[0], "wr0ng-k3y"):
            httpx.get(
                f"http://127.0.0.1:{port}/model", headers={"Authorization": f"Bearer {key}"}, timeout=20
            )
        process.terminate()
        log, errors = process.communicate(timeout=20)
    assert "settings" in log
    for secret in (KEYS[0], "wr0ng-k3y", DIGESTS[0]):
        assert secret not in log + errors
