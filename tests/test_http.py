"""HTTP as RFC 9110 has it: ids, HEAD, OPTIONS, conditions, media types, limits, and large bodies."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from model_store.manifest import Linear
from model_store.predictor import dump_weights
from model_store.store import Store, open_store
from tests.conftest import serving
from tests.in_process import calling
from tests.toys import AGE, FUEL, POWER, publish_toy, toy_description, toy_weights

ROW = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
TEXT = json.dumps(ROW)
REPORT = b"<!doctype html><title>r\xc3\xa9port</title>\r\n<p>two\n"
GETS = (
    *("/", "/model", "/model/versions", "/model/report", "/livez", "/readyz", "/healthz", "/metrics"),
    *("/openapi.json", "/docs"),
)
POSTS = ("/predict", "/predict/batch")
CONDITIONAL = ("/model", "/openapi.json", "/model/report", "/")
LARGE = 2**18 + 1
MOST_ROWS = 100


@pytest.fixture(scope="module")
def reporting(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of a toy with a report."""
    store = open_store(str(tmp_path_factory.mktemp("http") / "store"))
    weights = dump_weights(toy_weights(Linear(), 5))
    files = {"history.csv": b"epoch,cost\n0,1.0\n", "report.html": REPORT}
    store.promote("toy", store.publish(toy_description(), weights, lambda _number: files).version)
    publish_toy(store)
    return store


@pytest.fixture(scope="module")
def service(reporting: Store) -> Iterator[str]:
    """The address of a real service, for what depends on the bytes that come and go."""
    with serving(Path(reporting.url)) as url:
        yield url


@pytest.fixture(scope="module")
def toy(reporting: Store) -> Iterator[httpx.Client]:
    """A client of a service in this process."""
    with calling(reporting) as client:
        yield client


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with small limits."""
    store = open_store(str(tmp_path_factory.mktemp("limited") / "store"))
    store.promote("toy", publish_toy(store).version)
    with calling(store, max_rows=MOST_ROWS, max_body_bytes=100_000) as client:
        yield client


def exchange(url: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send the bytes as they are, and read until the server closes: status, headers, body."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=20) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split(" ")[1]), headers, body


def plain(method: str, path: str, *headers: bytes) -> bytes:
    """A request without a body."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close", *headers]
    return b"\r\n".join([*lines, b"", b""])


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check what every problem keeps, and return it."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert len(answer.content) <= 4096
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    return problem


@pytest.mark.parametrize("given", ["a", "0" * 128, "550e8400-e29b-41d4-a716-446655440000", "a.b_c:d/e+f=-"])
def test_a_sane_request_id_comes_back(toy: httpx.Client, given: str) -> None:
    answer = toy.get("/livez", headers={"X-Request-ID": given})
    assert answer.headers.get_list("X-Request-ID") == [given]


@pytest.mark.parametrize(
    "given",
    [
        *(b"", b" ", b"a b", b"a\tb", b"\x1b[31mred", b"\xff\xfe", b"a;b", b"<script>", b"'\"", b"0" * 129),
        pytest.param(b"a" * 40_000, id="40 KB"),
    ],
)
def test_an_id_that_is_not_sane_is_replaced(service: str, given: bytes) -> None:
    status, headers, _ = exchange(service, plain("GET", "/livez", b"X-Request-ID: " + given))
    if status == 200:
        assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
    assert status in ({200, 400} if b"\x1b" in given else {200}), "the parser may refuse control characters"


@pytest.mark.parametrize("given", [b"a\r\nX-Evil: 1", b"a\rX-Evil: 1", b"a\nX-Evil: 1", b"a\0b"])
def test_line_ends_in_an_id_put_no_header_into_the_answer(service: str, given: bytes) -> None:
    status, headers, body = exchange(service, plain("GET", "/livez", b"X-Request-ID: " + given))
    assert "x-evil" not in headers
    assert b"Evil" not in body
    assert status in {200, 400}


def test_an_id_of_a_megabyte_does_not_come_back(service: str) -> None:
    try:
        _, headers, body = exchange(service, plain("GET", "/livez", b"X-Request-ID: " + b"a" * 2**20))
    except ConnectionError:
        return
    assert len(headers.get("x-request-id", "")) <= 128
    assert len(body) <= 4096


@pytest.mark.parametrize("path", [*GETS, *POSTS, "/nope", "/docs/assets/swagger-ui.css", "/docs/assets/no"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_every_answer_has_the_id_of_its_request(toy: httpx.Client, method: str, path: str) -> None:
    answer = toy.request(method, path, headers={"X-Request-ID": "mine"})
    assert answer.headers.get_list("X-Request-ID") == ["mine"]
    if answer.status_code >= 400 and method != "HEAD":
        assert check_problem(answer, answer.status_code)["request_id"] == "mine"


def test_two_requests_get_two_ids(toy: httpx.Client) -> None:
    assert len({toy.get("/livez").headers["X-Request-ID"] for _ in range(20)}) == 20


@pytest.mark.parametrize("path", [*GETS, "/docs/assets/swagger-ui.css", "/nope"])
def test_head_is_get_without_a_body(service: str, path: str) -> None:
    """The raw bytes: a client would hide a body that should not be there."""
    given = b"X-Request-ID: same"
    status, headers, content = exchange(service, plain("GET", path, given))
    head_status, head_headers, nothing = exchange(service, plain("HEAD", path, given))
    assert nothing == b""
    assert content
    assert head_status == status
    del headers["date"], head_headers["date"]
    assert int(headers["content-length"]) == len(content)
    if path == "/metrics":
        del headers["content-length"], head_headers["content-length"]
    assert head_headers == headers


@pytest.mark.parametrize("path", [*GETS, *POSTS])
def test_options_tells_the_methods(toy: httpx.Client, path: str) -> None:
    answer = toy.request("OPTIONS", path)
    assert (answer.status_code, answer.content) == (204, b"")
    expected = {"GET", "HEAD", "OPTIONS"} if path in GETS else {"POST", "OPTIONS"}
    assert set(answer.headers["Allow"].split(", ")) == expected


@pytest.mark.parametrize("path", [*GETS, *POSTS])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE"])
def test_another_method_gets_a_405_with_the_methods(toy: httpx.Client, method: str, path: str) -> None:
    answer = toy.request(method, path)
    check_problem(answer, 405)
    expected = {"GET", "HEAD", "OPTIONS"} if path in GETS else {"POST", "OPTIONS"}
    assert set(answer.headers["Allow"].split(", ")) == expected


@pytest.mark.parametrize("path", POSTS)
def test_head_where_there_is_no_get_is_a_405(service: str, path: str) -> None:
    status, headers, body = exchange(service, plain("HEAD", path))
    assert (status, body) == (405, b"")
    assert "post" in headers["allow"]


@pytest.mark.parametrize("path", ["//model", "//", "/./model", "/model//versions", "/docs/../model"])
def test_a_path_is_taken_as_it_is_written(service: str, path: str) -> None:
    status, headers, _ = exchange(service, plain("GET", path))
    assert status == 404
    assert "location" not in headers


@pytest.mark.parametrize("path", CONDITIONAL)
@pytest.mark.parametrize("known", ["{}", "W/{}", '"x", {}', '"x" , W/{} ,"y"', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_caller_has_is_not_sent_again(toy: httpx.Client, path: str, known: str, method: str) -> None:
    etag = toy.get(path).headers["ETag"]
    assert re.fullmatch('"[^"]+"', etag)
    answer = toy.request(method, path, headers={"If-None-Match": known.format(etag)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == etag


def test_what_the_caller_has_may_be_told_in_several_headers(toy: httpx.Client) -> None:
    known = [("If-None-Match", '"x"'), ("If-None-Match", toy.get("/model").headers["ETag"])]
    assert toy.get("/model", headers=known).status_code == 304


@pytest.mark.parametrize("path", CONDITIONAL)
@pytest.mark.parametrize("known", ['"x"', 'W/"x"', '"x", "y"', "", '"*"', "x"])
def test_what_the_caller_does_not_have_is_sent(toy: httpx.Client, path: str, known: str) -> None:
    answer = toy.get(path, headers={"If-None-Match": known})
    assert answer.status_code == 200
    assert answer.content == toy.get(path).content != b""


def test_the_report_is_the_file(toy: httpx.Client) -> None:
    answer = toy.get("/model/report")
    assert answer.content == REPORT
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


def test_a_version_without_a_report_says_so(limited: httpx.Client) -> None:
    check_problem(limited.get("/model/report"), 404)


def test_the_versions_are_listed_with_the_promoted_one_and_the_one_that_answers(toy: httpx.Client) -> None:
    assert toy.get("/model/versions").json() == {
        "model": "toy",
        "served": "1",
        "promoted": "1",
        "versions": ["1", "2"],
    }


@pytest.mark.parametrize(
    "content_type",
    [
        *(None, "application/x-www-form-urlencoded", "application/json", "application/json; charset=latin-1"),
        *("text/plain", "APPLICATION/JSON;charset=UTF-8", ";", "multipart/form-data; boundary=x"),
    ],
)
@pytest.mark.parametrize(
    ("path", "body"), [("/predict", TEXT), ("/predict/batch", f'{{"instances":[{TEXT}]}}')]
)
def test_json_is_answered_whatever_its_type(
    toy: httpx.Client, path: str, body: str, content_type: str | None
) -> None:
    answer = toy.post(path, content=body, headers={"Content-Type": content_type} if content_type else {})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("content_type", ["text/csv", "text/csv; charset=utf-8", "Text/CSV;header=present"])
def test_a_csv_is_known_by_its_type(toy: httpx.Client, content_type: str) -> None:
    header = ",".join(ROW)
    answer = toy.post(
        "/predict/batch",
        content=f"{header}\n4.0,90.5,diesel\n",
        headers={"Content-Type": content_type},
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    head, row = answer.text.splitlines()
    assert head == f"{header},prediction,lower,upper,error"
    assert float(row.split(",")[3]) == toy.post("/predict", content=TEXT).json()["prediction"]


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "gzip, identity", "x"])
@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_a_compressed_body_gets_a_415(toy: httpx.Client, content_type: str, encoding: str) -> None:
    headers = {"Content-Type": content_type, "Content-Encoding": encoding}
    check_problem(toy.post("/predict/batch", content=b"\x1f\x8b" + b"0" * 1000, headers=headers), 415)
    assert toy.post("/predict", content=TEXT, headers={"Content-Encoding": "Identity"}).status_code == 200


@pytest.mark.parametrize("path", POSTS)
def test_a_body_over_the_limit_gets_a_413_declared_or_not(limited: httpx.Client, path: str) -> None:
    check_problem(limited.post(path, content=b" " * 100_001), 413)
    check_problem(limited.post(path, content=iter([b" " * 50_000, b" " * 50_001])), 413)
    assert limited.post("/predict", content=TEXT).status_code == 200


def instances(rows: list[str]) -> str:
    return f'{{"instances": [{",".join(rows)}]}}'


def columns(count: int, **changes: object) -> str:
    return json.dumps({"columns": {name: [value] * count for name, value in ROW.items()} | changes})


@pytest.mark.parametrize("kind", ["instances", "columns"])
def test_the_row_limit_passes_and_one_row_more_does_not(limited: httpx.Client, kind: str) -> None:
    make = (lambda count: instances([TEXT] * count)) if kind == "instances" else columns
    answer = limited.post("/predict/batch", content=make(MOST_ROWS))
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == MOST_ROWS
    check_problem(limited.post("/predict/batch", content=make(MOST_ROWS + 1)), 413)


def test_too_many_rows_are_refused_before_they_are_looked_at(limited: httpx.Client) -> None:
    problem = check_problem(limited.post("/predict/batch", content=instances(["{}"] * 5000)), 413)
    assert "errors" not in problem


@pytest.mark.parametrize("query", ["explain=yes", "explain=1", "explain=", "explain=True"])
def test_an_explain_that_is_neither_true_nor_false_gets_a_422(toy: httpx.Client, query: str) -> None:
    check_problem(toy.post(f"/predict?{query}", content=TEXT), 422)


FAULTS = {
    "unknown member": (TEXT[:-1] + ', "colour": 1}', 422),
    "a missing member": ('{"age": 4.0}', 422),
    "a wrong type": (TEXT.replace("4.0", '"4"'), 422),
    "a text that is another member's name": (TEXT.replace("4.0", '"age"'), 422),
    "a wrong category": (TEXT.replace("diesel", "wood"), 422),
    "no object": ("[]", 422),
    "null": ("null", 422),
    "the same member twice": (TEXT[:-1] + ', "age": 4.0}', 400),
    "the same member twice, once escaped": (TEXT[:-1] + r', "\u0061ge": 5.0}', 400),
    "the same unknown member twice": (TEXT[:-1] + ', "x": 1, "x": 2}', 400),
    "NaN": (TEXT.replace("4.0", "NaN"), 400),
    "a bare word": (TEXT.replace("4.0", "four"), 400),
}


def same_refusal(toy: httpx.Client, small: str, large: str, status: int) -> None:
    """A large body is refused as a small one is: same status, same pointers, same words."""
    assert len(small) < LARGE < len(large)
    first = check_problem(toy.post("/predict/batch", content=small), status)
    second = check_problem(toy.post("/predict/batch", content=large), status)
    assert second.get("errors") == first.get("errors")
    assert bool(first.get("errors")) == (status == 422)


@pytest.mark.parametrize(("row", "status"), FAULTS.values(), ids=FAULTS.keys())
def test_a_large_batch_is_refused_as_a_small_one(toy: httpx.Client, row: str, status: int) -> None:
    same_refusal(toy, instances([TEXT, row, TEXT]), instances([TEXT, row, *[TEXT] * 6000]), status)


LONG = " " * LARGE
TOP_LEVEL = {
    "trailing garbage": (instances([TEXT]) + "%sx", 400),
    "two documents": (instances([TEXT]) + "%s{}", 400),
    "truncated": (instances([TEXT])[:-1] + "%s", 400),
    "instances twice": (f'{{"instances": [{TEXT}],%s "instances": [{TEXT}]}}', 400),
    "both": (f'{{"instances": [{TEXT}],%s "columns": {{}}}}', 422),
    "neither": ("{%s}", 422),
    "no object": ("[%s]", 422),
    "null": ("%s null", 422),
    "no instances": ('{"instances": [%s]}', 422),
    "instances null": ('{"instances": %s null}', 422),
    "columns an array": ('{"columns": [%s]}', 422),
    "columns null": ('{"columns": %s null}', 422),
    "a column twice": ('{"columns": %s {"age": [1.0], "age": [1.0]}}', 400),
    "a column that is a number": (columns(2, age=4.0)[:-1] + "%s}", 422),
    "unequal columns": (columns(2, age=[4.0])[:-1] + "%s}", 422),
    "an empty column": (columns(2, age=[])[:-1] + "%s}", 422),
    "a column's text": (columns(2, age=["4", 4.0])[:-1] + "%s}", 422),
}


@pytest.mark.parametrize(("template", "status"), TOP_LEVEL.values(), ids=TOP_LEVEL.keys())
def test_white_space_makes_no_difference_to_a_refusal(toy: httpx.Client, template: str, status: int) -> None:
    same_refusal(toy, template % "", template % LONG, status)


UNKNOWN = {
    "a member": f'{{"instances": [{TEXT}],{LONG} "rows": 1}}',
    "a column": columns(2, colour=[4.0, 1.0])[:-1] + LONG + "}",
    "columns that are named like a value": columns(1)[:-2] + f', "x1": 5,{LONG} "x0": 1}}}}',
}


@pytest.mark.parametrize("body", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_member_amid_much_white_space_gets_a_422(toy: httpx.Client, body: str) -> None:
    assert check_problem(toy.post("/predict/batch", content=body), 422)["errors"]


COLUMN_VALUES = {"null": "null", "text": '"4"', "true": "true", "too large": "1e400", "array": "[1]"}


@pytest.mark.parametrize("value", COLUMN_VALUES.values(), ids=COLUMN_VALUES.keys())
def test_a_wrong_value_in_long_columns_is_found(toy: httpx.Client, value: str) -> None:
    body = columns(30_000, age=[4.0] * 29_000 + [7.25] + [4.0] * 999).replace("7.25", value)
    assert len(body) > LARGE
    problem = check_problem(toy.post("/predict/batch", content=body), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/columns/age/29000"]


def test_nan_in_long_columns_gets_a_400(toy: httpx.Client) -> None:
    body = columns(30_000, age=[4.0] * 29_999 + [float("nan")])
    check_problem(toy.post("/predict/batch", content=body), 400)


def test_long_columns_of_unequal_length_are_told_their_lengths(toy: httpx.Client) -> None:
    problem = check_problem(toy.post("/predict/batch", content=columns(30_000, age=[4.0] * 29_999)), 422)
    (fault,) = problem["errors"]
    assert fault["pointer"] == "/columns"
    assert "29999 to 30000 values" in fault["detail"]


def test_only_one_row_is_explained(toy: httpx.Client) -> None:
    check_problem(toy.post("/predict/batch?explain=true", content=instances([TEXT])), 422)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("opening", ["[", '{"a":', '{"instances":[', '{"columns":{"age":['])
@pytest.mark.parametrize("levels", [100_000, 250_000])
def test_deep_nesting_gets_a_400(toy: httpx.Client, path: str, opening: str, levels: int) -> None:
    problem = check_problem(toy.post(path, content=opening * levels), 400)
    assert "errors" not in problem


@pytest.mark.parametrize("path", POSTS)
def test_fifty_thousand_unknown_members_of_a_large_body_get_a_422(toy: httpx.Client, path: str) -> None:
    body = json.dumps({f"k{index}": 1 for index in range(50_000)})
    assert check_problem(toy.post(path, content=body), 422)["errors"]


@pytest.mark.parametrize("path", POSTS)
def test_a_value_that_is_also_a_name_makes_no_large_body_unreadable(toy: httpx.Client, path: str) -> None:
    body = f'{{"age": "x",{LONG}"x": "age", "k1": 5, "k0": 1}}'
    assert check_problem(toy.post(path, content=body), 422)["errors"]
