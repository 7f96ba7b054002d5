import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.toys import AGE, FEATURES, FUEL, POWER

HEALTH = {"/livez": "live", "/readyz": "ready", "/healthz": "healthy"}
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


@pytest.fixture(scope="module")
def toy(mixed_client: httpx.Client) -> httpx.Client:
    return mixed_client


@pytest.fixture(scope="module")
def document(toy: httpx.Client) -> dict[str, Any]:
    answer = toy.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    parsed: dict[str, Any] = answer.json()
    return parsed


@pytest.fixture(scope="module")
def schemas(document: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = document["components"]["schemas"]
    return parsed


def manifest_of(store: Path) -> bytes:
    return (store / "used-car-price" / "versions" / "1" / "manifest.json").read_bytes()


def every(key: str, document: object) -> Iterator[Any]:
    """The values of all members of that name, at any depth."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key:
                yield value
            yield from every(key, value)
    elif isinstance(document, list):
        for item in document:
            yield from every(key, item)


def resolve(document: Any, reference: str) -> dict[str, Any]:
    start, *tokens = reference.split("/")
    assert start == "#"
    for token in tokens:
        document = document[token]
    assert isinstance(document, dict)
    return document


def resolved(schemas: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, or the one that it refers to."""
    found: dict[str, Any] = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def has_names(schema: dict[str, Any], value: object) -> bool:
    """Whether the option of an `anyOf` is the value's: null for null, the same members for an object."""
    if value is None or schema.get("type") == "null":
        return value is None and schema.get("type") == "null"
    return not isinstance(value, dict) or schema.get("properties", {}).keys() == value.keys()


def check_members(schemas: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """The value has exactly the members that the schema requires and declares, at every depth."""
    if "$ref" in schema:
        check_members(schemas, schemas[schema["$ref"].rpartition("/")[2]], value)
    elif "anyOf" in schema:
        (found,) = [option for option in schema["anyOf"] if has_names(resolved(schemas, option), value)]
        check_members(schemas, found, value)
    elif schema.get("type") == "object" and "properties" in schema:
        assert isinstance(value, dict)
        assert value.keys() == set(schema["required"]) == schema["properties"].keys()
        for name, member in value.items():
            check_members(schemas, schema["properties"][name], member)
    elif schema.get("type") == "array":
        assert isinstance(value, list)
        for item in value:
            check_members(schemas, schema["items"], item)
    else:
        kinds: dict[str, type | tuple[type, ...]] = {
            "string": str,
            "number": (int, float),
            "integer": int,
            "object": dict,
            "null": type(None),
        }
        assert isinstance(value, kinds[schema["type"]])


def test_the_model_is_described_as_its_manifest_does(first_model: Path, first_client: httpx.Client) -> None:
    manifest = json.loads(manifest_of(first_model))
    answer = first_client.get("/model").json()
    assert answer.pop("version") == str(manifest["version"])
    assert answer.pop("digest") == hashlib.sha256(manifest_of(first_model)).hexdigest()
    assert answer == {key: manifest[key] for key in answer}
    assert answer.keys() == manifest.keys() - {"schema_version", "version", "golden", "files", "checksum"}


@pytest.mark.parametrize("path", ["/model", "/model/report", "/openapi.json", "/"])
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_the_etag_is_the_sha256_of_what_is_sent(first_client: httpx.Client, path: str, accept: str) -> None:
    answer = first_client.get(path, headers={"Accept": accept})
    assert answer.headers["ETag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'


def test_a_model_without_scores_says_so(toy: httpx.Client) -> None:
    assert toy.get("/model").json()["metrics"] is None


@pytest.mark.parametrize("path", HEALTH)
def test_health_is_answered_in_json(toy: httpx.Client, path: str) -> None:
    answer = toy.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    served = {} if path == "/livez" else {"model": "toy", "version": "1"}
    assert answer.json() == {"status": HEALTH[path]} | served


@pytest.mark.parametrize(
    "path",
    [
        *("/nope", "/predict/x", "/MODEL", "/model/1", "/redoc", "/docs/oauth2-redirect"),
        *(
            "/docs/assets/nope.js",
            "/docs/assets/%2e%2e/%2e%2e/setup.py",
            "/docs/assets/%00",
            "/%ff",
            "/%0d%0aX:y",
        ),
        pytest.param("/" + "a" * 10_000, id="10 KB"),
        *("/😀", "/docs/assets/😀"),
    ],
)
def test_an_unknown_path_gets_a_problem_that_does_not_repeat_it(toy: httpx.Client, path: str) -> None:
    answer = toy.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["title"], problem["status"]) == ("Not Found", 404)
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert len(answer.content) < 250


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/predict", "POST"),
        ("DELETE", "/predict/batch", "POST"),
        ("POST", "/model", "GET"),
        ("TRACE", "/livez", "GET"),
        ("DELETE", "/docs", "GET"),
        ("PATCH", "/openapi.json", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(
    toy: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = toy.request(method, path)
    assert answer.status_code == 405
    assert allowed in answer.headers["Allow"].split(", ")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 405


def test_the_openapi_document_is_one_of_version_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert (document["info"]["title"], document["info"]["version"]) == ("toy", "1")
    assert all(path.startswith("/") for path in document["paths"])


def test_every_operation_has_a_name_of_its_own_and_described_answers(document: dict[str, Any]) -> None:
    operations = [
        operation
        for path in document["paths"].values()
        for method, operation in path.items()
        if method in METHODS
    ]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["description"] for operation in operations)
    assert all(
        answer["description"] for operation in operations for answer in operation["responses"].values()
    )
    assert all("200" in operation["responses"] for operation in operations)


def test_every_reference_of_the_openapi_document_resolves(document: dict[str, Any]) -> None:
    references = set(every("$ref", document))
    assert references
    for reference in references:
        assert resolve(document, reference)


def test_everything_required_is_declared(schemas: dict[str, Any]) -> None:
    for schema in schemas.values():
        assert set(schema.get("required", [])) <= schema["properties"].keys()


def test_every_error_of_the_contract_is_a_problem(document: dict[str, Any]) -> None:
    for path in ("/predict", "/predict/batch"):
        answers = document["paths"][path]["post"]["responses"]
        assert answers.keys() >= {"200", "400", "413", "415", "422", "503"}
        for status in answers.keys() - {"200"}:
            content = answers[status]["content"]
            assert content["application/problem+json"]["schema"]["$ref"].endswith("/Problem")


def test_a_row_is_documented_as_the_manifest_has_it(schemas: dict[str, Any]) -> None:
    row = schemas["Row"]
    assert list(row["properties"]) == row["required"] == [feature.name for feature in FEATURES]
    assert row["additionalProperties"] is False
    for feature in FEATURES:
        assert row["properties"][feature.name]["examples"] == [feature.example]
    assert row["properties"][AGE.name]["type"] == row["properties"][POWER.name]["type"] == "number"
    assert row["properties"][AGE.name]["description"] == "In training 0.5 to 10 years."
    assert row["properties"][POWER.name]["description"] == "In training 40 to 300."
    assert sorted(row["properties"][FUEL.name]["enum"]) == sorted(FUEL.values)


def test_the_documented_examples_are_answered(toy: httpx.Client, schemas: dict[str, Any]) -> None:
    row = {name: schema["examples"][0] for name, schema in schemas["Row"]["properties"].items()}
    assert toy.post("/predict", json=row).status_code == 200
    columns = {name: schema["items"]["examples"] for name, schema in schemas["Columns"]["properties"].items()}
    assert toy.post("/predict/batch", json={"columns": columns}).status_code == 200


@pytest.mark.parametrize("fixture", ["first_client", "mixed_client"])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_an_answer_has_exactly_the_members_its_schema_requires(
    request: pytest.FixtureRequest, fixture: str, path: str
) -> None:
    client: httpx.Client = request.getfixturevalue(fixture)
    document = client.get("/openapi.json").json()
    row = {
        name: schema["examples"][0]
        for name, schema in document["components"]["schemas"]["Row"]["properties"].items()
    }
    answer = client.post(path, json=row if path == "/predict" else {"instances": [row, row]}).json()
    schema = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["interval"] is not None
    check_members(document["components"]["schemas"], schema, answer)


def test_no_member_of_the_described_model_has_a_default(schemas: dict[str, Any]) -> None:
    parts = [schemas[name] for name in ("ServedModel", "Target", "Training", "Form", "NumericFeature")]
    assert not any("default" in member for part in parts for member in part["properties"].values())
    assert all(part["properties"].keys() == set(part["required"]) for part in parts)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_an_answer_without_bounds_fits_its_schema(
    toy: httpx.Client, document: dict[str, Any], path: str
) -> None:
    row = {AGE.name: 1e6, POWER.name: POWER.example, FUEL.name: FUEL.example}
    answer = toy.post(path, json=row if path == "/predict" else {"instances": [row]}).json()
    assert answer["interval"] in (None, {"coverage": 0.9, "lower": [None], "upper": [None]})
    schema = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    check_members(document["components"]["schemas"], schema, answer)


@pytest.mark.parametrize("body", ["{", "{}"])
def test_a_problem_has_only_members_of_its_schema(
    toy: httpx.Client, schemas: dict[str, Any], body: str
) -> None:
    problem = toy.post("/predict", content=body).json()
    assert set(schemas["Problem"]["required"]) <= problem.keys() <= schemas["Problem"]["properties"].keys()
    for fault in problem.get("errors", []):
        check_members(schemas, schemas["Fault"], fault)


@pytest.mark.parametrize("path", HEALTH)
def test_health_has_only_members_of_its_schema(toy: httpx.Client, schemas: dict[str, Any], path: str) -> None:
    answer = toy.get(path).json()
    assert set(schemas["Health"]["required"]) <= answer.keys() <= schemas["Health"]["properties"].keys()
    assert answer["status"] in schemas["Health"]["properties"]["status"]["enum"]


def test_the_described_model_has_only_members_of_its_schema(
    first_client: httpx.Client, schemas: dict[str, Any]
) -> None:
    answer = first_client.get("/model").json()
    assert set(schemas["ServedModel"]["required"]) <= answer.keys()
    assert answer.keys() <= schemas["ServedModel"]["properties"].keys()


@pytest.mark.parametrize("path", ["/model/", "/predict/", "/docs/"])
def test_a_stray_slash_gets_a_404_and_no_redirect(toy: httpx.Client, path: str) -> None:
    assert toy.get(path).status_code == 404
