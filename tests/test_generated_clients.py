"""Clients that public generators make from the live OpenAPI document, calling the live service.

The generators are installed into an environment of their own, which takes about a minute.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.toys import AGE, FUEL, POWER

ROW = {AGE.name: AGE.example, POWER.name: POWER.example, FUEL.name: FUEL.example}
FAR = ROW | {AGE.name: 99.5}
NO_CSV = "Unsupported content type text/csv"
KNOWN_REMARKS = r"OpenAPI 3\.1 support is still in beta|Failed to get the schema name: null$"
GENERATORS = ("openapi-python-client", "openapi-generator-cli", "openapi-spec-validator")

ATTRS_CLIENT = """
import json, sys
from attrs_client import Client
from attrs_client.api.default import model, predict, predict_batch, ready
from attrs_client.models import Batch, ExplainedPrediction, Row

url, rows = sys.argv[1], json.loads(sys.argv[2])
client = Client(base_url=url)
typed = [Row.from_dict(row) for row in rows]
answers = [predict.sync(client=client, body=row) for row in typed]
explained = predict.sync(client=client, body=typed[0], explain=True)
assert isinstance(explained, ExplainedPrediction), type(explained)
batch = predict_batch.sync(client=client, body=Batch(instances=typed))
served, health = model.sync(client=client), ready.sync(client=client)
typed[0].age = "old"
problem = predict.sync(client=client, body=typed[0])
assert (type(problem).__name__, type(health).__name__) == ("Problem", "Health")
"""

PYDANTIC_CLIENT = """
import json, sys
from pydantic_client import ApiClient, ApiException, Configuration, DefaultApi
from pydantic_client import Batch, ExplainedPrediction, Row

url, rows = sys.argv[1], json.loads(sys.argv[2])
api = DefaultApi(ApiClient(Configuration(host=url)))
typed = [Row.from_dict(row) for row in rows]
answers = [api.predict(row).actual_instance for row in typed]
explained = api.predict(typed[0], explain=True).actual_instance
assert isinstance(explained, ExplainedPrediction), type(explained)
batch = api.predict_batch(Batch(instances=typed))
served, health = api.model(), api.ready()
bad = typed[0].model_construct(**{**dict(typed[0]), "age": "old"})
try:
    api.predict(bad)
except ApiException as error:
    problem = error.data
assert (type(problem).__name__, type(health).__name__) == ("Problem", "Health")
"""

TELL = """
print(json.dumps({
    "rows": [
        [answer.prediction, answer.out_of_range, answer.version] for answer in answers
    ],
    "intervals": [
        answer.interval and [answer.interval.lower, answer.interval.upper] for answer in answers
    ],
    "explained": [explained.prediction, explained.baseline],
    "batch": [batch.predictions, batch.interval.lower, batch.interval.upper, batch.version],
    "model": [served.name, served.digest, served.target.unit, served.training.rows],
    "health": [health.status, health.model, health.version],
    "problem": [problem.status, problem.detail, [[fault.pointer, fault.detail] for fault in problem.errors]],
}))
"""


@dataclass(frozen=True)
class Workshop:
    """A folder with an environment that has the generators."""

    folder: Path

    def run(self, command: str, *arguments: object) -> str:
        """Run one of the environment's commands in the folder; give what it printed."""
        result = self.attempt(command, *arguments)
        assert result.returncode == 0, result.stdout
        return result.stdout

    def attempt(self, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command whose failing is no fault of the service."""
        return subprocess.run(
            [self.folder / "environment" / "bin" / command, *map(str, arguments)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("generated")
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True, timeout=120)
    workshop = Workshop(folder)
    install(workshop, *GENERATORS)
    return workshop


def install(workshop: Workshop, *arguments: object) -> None:
    installed = workshop.attempt("pip", "install", "--quiet", *arguments)
    if installed.returncode:
        pytest.skip(f"the package index does not give the generators: {installed.stdout.splitlines()[-1]}")


def say(workshop: Workshop, url: str, script: str) -> dict[str, Any]:
    """What the calling script tells of its typed answers."""
    (workshop.folder / "call.py").write_text(script + TELL)
    printed = workshop.run("python", "-W", "ignore", "call.py", url, json.dumps([ROW, FAR]))
    told: dict[str, Any] = json.loads(printed)
    return told


def expected(url: str) -> dict[str, Any]:
    """The same from the plain answers."""
    with httpx.Client(base_url=url) as client:
        answers = [client.post("/predict", json=row).json() for row in (ROW, FAR)]
        explained = client.post("/predict?explain=true", json=ROW).json()
        batch = client.post("/predict/batch", json={"instances": [ROW, FAR]}).json()
        served, health = client.get("/model").json(), client.get("/readyz").json()
        problem = client.post("/predict", json=ROW | {AGE.name: "old"}).json()
    assert answers[1]["out_of_range"] == [AGE.name]
    assert [answer["interval"] is None for answer in answers] == [False, True]
    assert problem["status"] == 422
    return {
        "rows": [[a["prediction"], a["out_of_range"], a["version"]] for a in answers],
        "intervals": [a["interval"] and [a["interval"]["lower"], a["interval"]["upper"]] for a in answers],
        "explained": [explained["prediction"], explained["baseline"]],
        "batch": [
            batch["predictions"],
            batch["interval"]["lower"],
            batch["interval"]["upper"],
            batch["version"],
        ],
        "model": [served["name"], served["digest"], served["target"]["unit"], served["training"]["rows"]],
        "health": [health["status"], health["model"], health["version"]],
        "problem": [
            422,
            problem["detail"],
            [[fault["pointer"], fault["detail"]] for fault in problem["errors"]],
        ],
    }


def test_the_document_is_valid_openapi(workshop: Workshop, mixed_service: str) -> None:
    (workshop.folder / "openapi.json").write_bytes(httpx.get(f"{mixed_service}/openapi.json").content)
    assert workshop.run("openapi-spec-validator", "openapi.json") == "openapi.json: OK\n"


def test_a_client_made_by_openapi_python_client_is_answered_as_plain_http_is(
    workshop: Workshop, mixed_service: str
) -> None:
    printed = workshop.run(
        *("openapi-python-client", "generate", "--url", f"{mixed_service}/openapi.json"),
        *("--meta", "none", "--output-path", "attrs_client"),
    )
    # It has no CSV bodies; the JSON ones of the same operation are made all the same.
    faults = re.findall(r"(?m)^(?:WARNING|ERROR) .*\n+.*", printed)
    assert faults in ([], ["WARNING parsing POST /predict/batch within default.\n\n" + NO_CSV])
    assert say(workshop, mixed_service, ATTRS_CLIENT) == expected(mixed_service)


@pytest.mark.needs("java")
def test_a_client_made_by_openapi_generator_is_answered_as_plain_http_is(
    workshop: Workshop, mixed_service: str
) -> None:
    printed = workshop.run(
        *("openapi-generator-cli", "generate", "-i", f"{mixed_service}/openapi.json", "-g", "python"),
        *("-o", ".", "--package-name", "pydantic_client"),
    )
    faults = [line for line in printed.splitlines() if re.search(r"WARN|ERROR", line)]
    assert [line for line in faults if not re.search(KNOWN_REMARKS, line)] == []
    install(workshop, "-r", workshop.folder / "requirements.txt")
    assert say(workshop, mixed_service, PYDANTIC_CLIENT) == expected(mixed_service)
