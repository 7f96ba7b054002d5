import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from model_store.store import open_store
from tests.conftest import free_port, serving
from tests.toys import AGE, FUEL, POWER, publish_toy

DEPLOY = Path(__file__).parent.parent / "deploy"
CONFIGURATION = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
TESTS_OF_ALERTS = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
COMPOSE = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "plumbline.json").read_text(encoding="utf-8"))
DATASOURCES = yaml.safe_load((DEPLOY / "grafana" / "datasource.yml").read_text(encoding="utf-8"))
PROVIDERS = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yml").read_text(encoding="utf-8"))

ROW: dict[str, float | str] = {AGE.name: 4.0, POWER.name: 90.5, FUEL.name: "diesel"}
OUTSIDE: dict[str, float | str] = {**ROW, AGE.name: 40.0}
OFTEN = "250ms"
# What Grafana puts in, for a service that is watched for seconds.
WINDOWS = {"$__rate_interval": "10s", "$__interval": "10s", "$__range": "1m"}

needs_prometheus = pytest.mark.needs("prometheus", "promtool")


@dataclass(frozen=True)
class Query:
    """An expression of the dashboard, and the labels that its legend shows."""

    panel: str
    expression: str
    labels: frozenset[str] = frozenset()


def dashboard_queries() -> list[Query]:
    """Every expression of the dashboard, with windows in the place of Grafana's variables."""
    queries = [
        Query(
            panel["title"],
            windowed(target["expr"]),
            frozenset(re.findall(r"{{(\w+)}}", target["legendFormat"])),
        )
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]
    return queries + [
        Query(shown["name"], windowed(shown["expr"])) for shown in DASHBOARD["annotations"]["list"]
    ]


def windowed(expression: str) -> str:
    """An expression as Grafana sends it."""
    for name, window in WINDOWS.items():
        expression = expression.replace(name, window)
    return expression


def metrics_of(expression: str) -> set[str]:
    """The metrics in an expression: the words that are no function, no operator and in no list of labels."""
    grouping = r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)"
    bare = re.sub(rf"{{[^}}]*}}|\[[^\]]*\]|{grouping}", " ", expression)
    return set(re.findall(r"\b[a-z_]{2,}\b(?!\s*\()", bare)) - {"and", "or", "unless", "bool", "offset"}


def promtool(*arguments: object) -> str:
    """What promtool says; fails if it is not content."""
    command = ["promtool", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    """A client of a real Prometheus with our configuration and alerts, which watches one service closely."""
    (job,) = CONFIGURATION["scrape_configs"]
    watched = {name: job[name] for name in ("job_name", "metrics_path")}
    configuration = {
        "global": dict.fromkeys(CONFIGURATION["global"], OFTEN),
        "rule_files": [str(DEPLOY / name) for name in CONFIGURATION["rule_files"]],
        "scrape_configs": [watched | {"static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://{address}/api/v1", timeout=10) as client:
                yield client
        finally:
            process.terminate()


def ask(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """The series that an expression gives now."""
    answer = client.get("/query", params={"query": expression})
    assert answer.status_code == 200, f"{expression}: {answer.text}"
    series: list[dict[str, Any]] = answer.json()["data"]["result"]
    return series


def wait_for_scrapes(client: httpx.Client, count: int) -> None:
    """Wait until the service has been asked for its metrics so many times."""
    for _ in range(200):
        try:
            if any(float(up["value"][1]) >= count for up in ask(client, "sum_over_time(up[5m])")):
                return
        except (httpx.TransportError, AssertionError):
            pass  # Prometheus is about to start.
        time.sleep(0.1)
    pytest.fail("Prometheus did not scrape the service")


def call(url: str) -> None:
    """Good requests and bad, rows outside the training range and a CSV."""
    with httpx.Client(base_url=url, timeout=10) as client:
        assert client.post("/predict", json=ROW).status_code == 200
        assert client.post("/predict", json=OUTSIDE).json()["out_of_range"] == [AGE.name]
        assert client.post("/predict", json={}).status_code == 422
        assert client.post("/predict/batch", json={"instances": [ROW, OUTSIDE]}).status_code == 200
        lines = f"{','.join(ROW)}\n4.0,90.5,diesel\n40,90.5,diesel\nold,90.5,diesel\n"
        answer = client.post("/predict/batch", content=lines, headers={"Content-Type": "text/csv"})
        assert answer.status_code == 200


@pytest.fixture(scope="module")
def watched_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service that nobody else calls."""
    path = tmp_path_factory.mktemp("watched") / "store"
    store = open_store(str(path))
    store.promote("toy", publish_toy(store).version)
    with serving(path) as url:
        call(url)
        yield url


@pytest.fixture(scope="module")
def exposed(watched_service: str) -> dict[str, set[str]]:
    """The metrics of the service's page, each with the names of its labels."""
    page = httpx.get(f"{watched_service}/metrics").text
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


@needs_prometheus
def test_promtool_accepts_the_configuration_and_the_alerts() -> None:
    assert "SUCCESS: 1 rule files found" in promtool("check", "config", DEPLOY / "prometheus.yml")
    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool("check", "rules", DEPLOY / "alerts.yml")


@needs_prometheus
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", DEPLOY / "alerts_test.yml")


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_each_alert_is_shown_to_fire_and_not_to_fire(alert: str) -> None:
    expected = [
        bool(case.get("exp_alerts"))
        for test in TESTS_OF_ALERTS
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    ]
    assert set(expected) == {True, False}


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    assert len(ALERTS) == 3
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "runbook"}
        assert rule["annotations"]["runbook"].endswith(".")


def test_the_readme_lists_the_alerts() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (DEPLOY / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [rule["alert"] for rule in ALERTS]


@needs_prometheus
def test_promtool_accepts_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:{number}", "expr": query.expression}
        for number, query in enumerate(dashboard_queries())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", path)


def test_the_metrics_of_an_expression_are_told_from_its_other_words() -> None:
    expression = (
        'sum by (job) (rate(a_total{b=~"c|d"}[5m])) / on (e) group_left (f) (g_h and max(i_j)) or up > 0.5'
    )
    assert metrics_of(expression) == {"a_total", "g_h", "i_j", "up"}


def test_dashboard_and_alerts_use_only_metrics_that_the_service_exposes(
    exposed: Mapping[str, set[str]],
) -> None:
    expressions = [query.expression for query in dashboard_queries()] + [rule["expr"] for rule in ALERTS]
    used = set().union(*map(metrics_of, expressions))
    assert used - exposed.keys() - {"up"} == set()


def test_dashboard_and_alerts_leave_out_no_metric_of_ours(exposed: Mapping[str, set[str]]) -> None:
    expressions = [query.expression for query in dashboard_queries()] + [rule["expr"] for rule in ALERTS]
    used = set().union(*map(metrics_of, expressions))
    ours = {name for name in exposed if name.startswith("plumbline_")}
    assert ours - used == {"plumbline_request_duration_seconds_sum"}


@needs_prometheus
def test_every_query_of_dashboard_and_alerts_is_answered(tmp_path: Path, watched_service: str) -> None:
    target = watched_service.removeprefix("http://")
    with prometheus(tmp_path, target) as client:
        wait_for_scrapes(client, 2)
        call(watched_service)
        wait_for_scrapes(client, 8)
        for query in dashboard_queries():
            assert_is_shown(query, ask(client, query.expression))
        for rule in ALERTS:
            assert ask(client, rule["expr"]) == [], rule["alert"]
        rules = client.get("/rules").json()["data"]["groups"][0]["rules"]
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in ALERTS]
    assert {(rule["health"], rule["state"] == "firing") for rule in rules} == {("ok", False)}


def assert_is_shown(query: Query, series: list[dict[str, Any]]) -> None:
    """Each of a panel's queries gives numbers, and each has the labels of the legend."""
    if query.panel == "Promotions":
        return
    assert series, f"{query.panel} is empty: {query.expression}"
    for one in series:
        assert isfinite(float(one["value"][1])), f"{query.panel}: {one}"
        assert query.labels <= one["metric"].keys(), f"{query.panel}: {one}"


def test_the_dashboard_asks_the_data_source_that_is_provisioned() -> None:
    (source,) = DATASOURCES["datasources"]
    asked = [DASHBOARD["panels"], DASHBOARD["annotations"]["list"]]
    asked += [panel["targets"] for panel in DASHBOARD["panels"]]
    assert {part["datasource"]["uid"] for parts in asked for part in parts} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == CONFIGURATION["global"]["scrape_interval"]


def test_the_panels_do_not_overlap_and_each_says_what_it_shows() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))
    assert all(panel["description"] for panel in DASHBOARD["panels"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_docker_compose_puts_the_files_where_grafana_and_prometheus_look() -> None:
    mounts = {
        source: place
        for name in ("grafana", "prometheus")
        for source, place, *_ in (volume.split(":") for volume in COMPOSE[name]["volumes"])
        if source.startswith("./")
    }
    for source in mounts:
        assert (DEPLOY.parent / source).is_file(), source
    (provider,) = PROVIDERS["providers"]
    assert Path(mounts["./deploy/grafana/plumbline.json"]).parent == Path(provider["options"]["path"])
    home = COMPOSE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == mounts["./deploy/grafana/plumbline.json"]
    assert f"--config.file={mounts['./deploy/prometheus.yml']}" in COMPOSE["prometheus"]["command"]
    (rules,) = CONFIGURATION["rule_files"]
    beside = Path(mounts["./deploy/prometheus.yml"]).parent / rules
    assert Path(mounts["./deploy/alerts.yml"]) == beside


def test_prometheus_looks_for_the_services_of_docker_compose_by_their_names() -> None:
    (job,) = CONFIGURATION["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    built = {name for name, service in COMPOSE.items() if service.get("image") == "plumbline:latest"}
    assert set(found["names"]) == built
    assert found["port"] == 8000
    assert job["metrics_path"] == "/metrics"
