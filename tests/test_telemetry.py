"""What /metrics says, against what was sent: numpy for the tenths, /proc for the process, promtool's lint."""

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_store.manifest import Linear
from model_store.store import Store
from tests.in_process import calling
from tests.load import PATIENCE, Load, request
from tests.test_live import ROW, Service, eventually, follows, running, watching
from tests.test_settings import workers_of
from tests.toys import AGE, FUEL, POWER, TARGET, expected_predictions, publish_toy, toy_rows, toy_weights

Key = tuple[str, frozenset[tuple[str, str]]]
Samples = dict[Key, float]

BODY = json.dumps(ROW).encode()
CSV = {"Content-Type": "text/csv"}
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
KINDS = {
    "plumbline_request_duration_seconds": HISTOGRAM,
    "plumbline_rows": COUNTER,
    "plumbline_predictions": COUNTER,
    "plumbline_out_of_range": COUNTER,
    "plumbline_model_loads": COUNTER,
    "plumbline_model_load_failures": COUNTER,
    "plumbline_overload_refusals": COUNTER,
    "plumbline_log_lines_dropped": COUNTER,
    "plumbline_requests_in_flight": GAUGE,
    "plumbline_store_reachable": GAUGE,
    "plumbline_model_info": GAUGE,
    "process_virtual_memory_bytes": GAUGE,
    "process_resident_memory_bytes": GAUGE,
    "process_start_time_seconds": GAUGE,
    "process_cpu_seconds": COUNTER,
    "process_open_fds": GAUGE,
    "process_max_fds": GAUGE,
}


@pytest.fixture
def toy_store(store: Store) -> Store:
    store.promote("toy", publish_toy(store).version)
    return store


@pytest.fixture
def client(toy_store: Store) -> Iterator[httpx.Client]:
    """A client of a service that has counted nothing yet."""
    with calling(toy_store) as client:
        yield client


@pytest.fixture
def service(toy_store: Store) -> Iterator[Service]:
    """A real process that has counted nothing yet."""
    with running(toy_store) as service:
        yield service


def page(client: httpx.Client) -> httpx.Response:
    """The page of /metrics; of several workers any may answer the next, because the connection ends."""
    answer = client.get("/metrics", headers={"Connection": "close"})
    assert answer.status_code == 200
    return answer


def read(client: httpx.Client) -> Samples:
    """Every series of the page and its value."""
    return samples(page(client).text)


def samples(text: str) -> Samples:
    """Every series of a page and its value."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    """The value of one series; 0 if it is not there."""
    return found.get((name, frozenset(labels.items())), 0.0)


def tenths(found: Samples) -> list[float]:
    """The predictions by decile."""
    return [value(found, "plumbline_predictions_total", decile=str(tenth)) for tenth in range(1, 11)]


def answered(found: Samples, route: str = "/predict", status: str = "200") -> float:
    """How many requests of a route were answered with a status."""
    return value(found, "plumbline_request_duration_seconds_count", route=route, status=status)


def wide_rows(count: int) -> list[dict[str, Any]]:
    """Rows whose predictions lie in every tenth, some with inputs outside their training range."""
    rng = np.random.default_rng(7)
    return [
        row | {AGE.name: float(rng.uniform(-5, 40)), POWER.name: float(rng.uniform(-100, 600))}
        for row in toy_rows(count, seed=8)
    ]


def expected_tenths(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The oracle: how many of the rows' predictions lie in each tenth of the training target."""
    predictions = expected_predictions(Linear(), toy_weights(Linear(), 5), rows)
    found = np.searchsorted(np.array(TARGET.deciles), predictions)
    counts: list[int] = np.bincount(found, minlength=10).tolist()
    return counts


def outside(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The oracle: how many inputs lie outside their feature's training range."""
    return {
        feature.name: sum(not feature.minimum <= row[feature.name] <= feature.maximum for row in rows)
        for feature in (AGE, POWER)
    }


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a CSV."""
    lines = [
        f"{row[AGE.name]!r},{row[POWER.name]!r},{row[FUEL.name]}".replace(",a,b", ',"a,b"') for row in rows
    ]
    return "\n".join([f"{AGE.name},{POWER.name},{FUEL.name}", *lines])


def send_singly(client: httpx.Client, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        assert client.post("/predict", json=row).status_code == 200


def send_explained(client: httpx.Client, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        assert client.post("/predict?explain=true", json=row).status_code == 200


def send_instances(client: httpx.Client, rows: Sequence[dict[str, Any]]) -> None:
    assert client.post("/predict/batch", json={"instances": rows}).status_code == 200


def send_columns(client: httpx.Client, rows: Sequence[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    assert client.post("/predict/batch", json={"columns": columns}).status_code == 200


def send_csv(client: httpx.Client, rows: Sequence[dict[str, Any]]) -> None:
    assert client.post("/predict/batch", content=csv_of(rows), headers=CSV).status_code == 200


WAYS = (send_singly, send_explained, send_instances, send_columns, send_csv)


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_counted_by_what_became_of_them_however_they_are_sent(
    client: httpx.Client, way: Callable[[httpx.Client, Sequence[dict[str, Any]]], None]
) -> None:
    rows = wide_rows(150)
    assert all(expected_tenths(rows))
    assert all(outside(rows).values())
    way(client, rows)
    found = read(client)
    assert tenths(found) == expected_tenths(rows)
    assert value(found, "plumbline_rows_total", outcome="predicted") == len(rows)
    assert value(found, "plumbline_rows_total", outcome="refused") == 0
    for feature, times in outside(rows).items():
        assert value(found, "plumbline_out_of_range_total", feature=feature) == times


def test_a_prediction_on_the_border_of_two_tenths_is_counted_in_the_same_one_however_it_is_sent(
    toy_store: Store,
) -> None:
    with watching(toy_store) as service:
        border = service.predict()["prediction"]
        deciles = tuple(border + step for step in range(-4, 5))
        target = TARGET.model_copy(
            update={"deciles": deciles, "minimum": border - 50.0, "maximum": border + 50.0}
        )
        toy_store.promote("toy", publish_toy(toy_store, target=target).version)
        follows(service, 2)
        before = tenths(read(service.client))
        for way in WAYS:
            way(service.client, [ROW])
        after = tenths(read(service.client))
    gained = [now - then for now, then in zip(after, before, strict=True)]
    assert gained == [0, 0, 0, 0, len(WAYS), 0, 0, 0, 0, 0]


def test_a_csvs_refused_rows_are_counted_beside_the_others(client: httpx.Client) -> None:
    rows = wide_rows(40)
    lines = csv_of(rows).split("\n")
    refused = [
        "old,90,diesel",
        "4,90,wood",
        ",90,diesel",
        "4",
        "4,90,diesel,5",
        '"4,90',
        "1e999,90,diesel",
    ]
    body = "\n".join([lines[0], *refused[:3], *lines[1:20], "", *refused[3:5], *lines[20:], *refused[5:]])
    client.post("/predict/batch", content=body, headers=CSV)
    found = read(client)
    assert value(found, "plumbline_rows_total", outcome="refused") == len(refused)
    assert value(found, "plumbline_rows_total", outcome="predicted") == len(rows)
    assert tenths(found) == expected_tenths(rows)


def test_what_is_refused_as_a_whole_counts_no_row(client: httpx.Client) -> None:
    good = wide_rows(3)
    bodies: list[tuple[str, Any, int]] = [
        ("/predict", {}, 422),
        ("/predict", ROW | {FUEL.name: "wood"}, 422),
        ("/predict?explain=true", {}, 422),
        ("/predict?explain=perhaps", ROW, 422),
        ("/predict/batch", {"instances": [*good, {}]}, 422),
        ("/predict/batch", {"instances": [*good, ROW | {FUEL.name: "wood"}]}, 422),
        ("/predict/batch", {"columns": {AGE.name: [1, 2], POWER.name: [1], FUEL.name: ["diesel"]}}, 422),
        ("/predict/batch?explain=true", {"instances": good}, 422),
    ]
    for path, body, status in bodies:
        assert client.post(path, json=body).status_code == status
    assert client.post("/predict/batch", content="a,b\n1,2", headers=CSV).status_code == 422
    assert client.post("/predict", content=BODY[:-1]).status_code == 400
    compressed = {"Content-Encoding": "gzip"}
    assert client.post("/predict", content=BODY, headers=compressed).status_code == 415
    found = read(client)
    assert sum(tenths(found)) == 0
    assert not [number for (name, _), number in found.items() if name == "plumbline_rows_total" and number]
    assert not [name for name, _ in found if name == "plumbline_out_of_range_total"]
    assert (answered(found, status="422"), answered(found, "/predict/batch", "422")) == (4, 5)


def test_the_histogram_fits_what_was_sent(client: httpx.Client) -> None:
    spent = 0.0
    paths = {"/predict": 60, "/predict?explain=true": 30, "/model": 20, "/predict/batch": 10}
    for path, times in paths.items():
        for _ in range(times):
            method, content = ("GET", b"") if path == "/model" else ("POST", BODY)
            if path == "/predict/batch":
                content = json.dumps({"instances": toy_rows(2000)}).encode()
            began = time.perf_counter()
            assert client.request(method, path, content=content).status_code == 200
            spent += time.perf_counter() - began
    found = read(client)
    assert (answered(found), answered(found, "/model"), answered(found, "/predict/batch")) == (90, 20, 10)
    total = 0.0
    for route, times in (("/predict", 90), ("/model", 20), ("/predict/batch", 10)):
        buckets = buckets_of(found, route)
        counts, bounds = list(buckets.values()), list(buckets)
        assert counts == sorted(counts)
        assert bounds == sorted(bounds)
        assert (bounds[-1], counts[-1]) == (float("inf"), times)
        alone = np.diff([0, *counts])
        seconds = value(found, "plumbline_request_duration_seconds_sum", route=route, status="200")
        # Each request took between its bucket's two bounds; those without an upper one are left out.
        assert np.sum(alone * [0, *bounds[:-1]]) <= seconds
        assert alone[-1] > 0 or seconds <= np.sum(alone[:-1] * bounds[:-1])
        total += seconds
    assert 0 < total <= spent + 0.1


def buckets_of(found: Samples, route: str) -> dict[float, float]:
    """A route's cumulated counts, by their bounds."""
    buckets = {}
    for (name, labels), number in found.items():
        named = dict(labels)
        if name == "plumbline_request_duration_seconds_bucket" and named["route"] == route:
            buckets[float(named["le"])] = number
    return buckets


def test_thousands_of_paths_methods_and_ids_make_no_new_series(client: httpx.Client) -> None:
    methods = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "PROPFIND", "MKCOL", "REPORT")
    known = ("/predict", "/predict/batch", "/model", "/metrics", "/livez", "/docs/assets")

    def call(number: int) -> None:
        method = methods[number % len(methods)]
        path = known[number % len(known)] if number % 2 else ""
        tail = "" if number % 4 == 1 else f"/tail-{number}"
        headers = {"X-Request-ID": f"id-{number}", "traceparent": f"00-{number:032x}-{1:016x}-01"}
        client.request(method, f"{path}{tail}?query={number}", headers=headers, content=f"{number}".encode())

    few = 4 * len(methods) * len(known)
    for number in range(1, few):
        call(number)
    page(client)
    first = read(client)
    for number in range(few, few + 2_000):
        call(number)
    after = read(client)
    assert after.keys() == first.keys()
    assert not [labels for _, labels in after if "tail" in str(labels)]
    total = sum(number for (name, _), number in after.items() if name.endswith("_seconds_count"))
    assert total >= few + 2_000


def test_the_names_and_the_types_are_these(client: httpx.Client) -> None:
    client.post("/predict", json=ROW | {AGE.name: 99})
    families = list(text_string_to_metric_families(page(client).text))
    assert {family.name: family.type for family in families} == KINDS
    assert len(families) == len(KINDS)
    assert not [family.name for family in families if not family.documentation or not family.samples]


@pytest.mark.needs("promtool")
def test_promtool_finds_nothing_to_complain_of(client: httpx.Client) -> None:
    for way in WAYS:
        way(client, wide_rows(5))
    client.get("/nowhere")
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=page(client).text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_process_figures_are_the_operating_systems(toy_store: Store, workers: int) -> None:
    with running(toy_store, "--workers", str(workers)) as service:
        processes = [service.process.pid]
        if workers > 1:
            eventually("all began", lambda: len(workers_of(service.process.pid)) == workers)
            began(service, workers)
            processes = sorted(workers_of(service.process.pid))
        # Every worker's first counts are there after a second.
        time.sleep(1.5)
        spent = sum(map(cpu_seconds, processes))
        found = read(service.client)
        spent_then = sum(map(cpu_seconds, processes))
        resident = sum(status_bytes(process, "VmRSS") for process in processes)
        virtual = sum(status_bytes(process, "VmSize") for process in processes)
        files = sum(len(list(Path(f"/proc/{process}/fd").iterdir())) for process in processes)
        limit = sum(map(most_files, processes))
        earliest = min(map(start_seconds, processes))
    assert spent - 1e-6 <= value(found, "process_cpu_seconds_total") <= spent_then + 1e-6
    assert value(found, "process_resident_memory_bytes") == pytest.approx(resident, rel=0.1)
    assert value(found, "process_virtual_memory_bytes") == pytest.approx(virtual, rel=0.1)
    assert value(found, "process_open_fds") == pytest.approx(files, abs=3 * workers)
    assert value(found, "process_max_fds") == limit
    assert value(found, "process_start_time_seconds") == pytest.approx(earliest, abs=0.05)


def start_seconds(process: int) -> float:
    """When a process started, by the time that the machine did and proc(5)'s field 22."""
    booted = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    assert booted
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(booted[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def cpu_seconds(process: int) -> float:
    """What a process has used of the processors, proc(5)'s fields 14 and 15."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status_bytes(process: int, name: str) -> int:
    """A size of a process, from kibibytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def most_files(process: int) -> int:
    """How many files a process may open."""
    found = re.search(r"^Max open files\s+(\d+)", Path(f"/proc/{process}/limits").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def began(service: Service, workers: int) -> None:
    """Wait until so many workers have begun to answer, the ones that ended since counted."""
    eventually("they answer", lambda: service.log.read_text().count("startup complete") == workers)


def test_what_is_in_flight_is_counted_while_it_is_and_no_longer(service: Service) -> None:
    half = request("/predict", BODY)[:-10]
    headless = request("/predict", BODY).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    batch = request("/predict/batch", BODY)[:-10]

    async def leave() -> None:
        port = service.client.base_url.port
        starts = [half, headless, batch] * 5
        callers = [await asyncio.open_connection("127.0.0.1", port) for _ in starts]
        for (_, writer), start in zip(callers, starts, strict=True):
            writer.write(start)
        await asyncio.to_thread(eventually, "all wait", partial(in_flight, service, 1 + len(starts)))
        for _, writer in callers:
            writer.close()

    assert in_flight(service, 1)
    asyncio.run(leave())
    eventually("they are gone", partial(in_flight, service, 1))
    with Load(service.client.base_url.port or 0, "/predict", [BODY, b"{}"], 16) as load:
        eventually("some are answered", lambda: len(load.answers.seconds) > 2_000)
    assert in_flight(service, 1)


def in_flight(service: Service, requests: int) -> bool:
    """Whether so many requests are in flight, the one that asks among them."""
    return service.metric("plumbline_requests_in_flight") == requests


def ask_every(service: Service, workers: int) -> list[Samples]:
    """The page of each worker; whose it is, the beginning of its request's id tells."""
    pages: dict[str, Samples] = {}
    deadline = time.monotonic() + PATIENCE
    while len(pages) < workers:
        assert time.monotonic() < deadline, "not every worker answers"
        answer = page(service.client)
        pages[answer.headers["X-Request-ID"][:16]] = samples(answer.text)
    return list(pages.values())


def send_in_every_way(service: Service, rows: Sequence[dict[str, Any]]) -> int:
    """Send the rows in every way over fresh connections; gives how many different workers answered."""
    workers = set()

    def remember(answer: httpx.Response) -> None:
        workers.add(answer.headers["X-Request-ID"][:16])

    with httpx.Client(
        base_url=service.client.base_url,
        headers={"Connection": "close"},
        timeout=PATIENCE,
        event_hooks={"response": [remember]},
    ) as client:
        for way in WAYS:
            way(client, rows)
        for _ in range(20):
            client.post("/predict", content=b"{}")
            client.post("/predict/batch", content="old,90,diesel\n", headers=CSV)
    return len(workers)


def check_sums(found: Samples, rows: Sequence[dict[str, Any]]) -> None:
    """Check what `send_in_every_way` of the rows amounts to."""
    assert tenths(found) == [len(WAYS) * times for times in expected_tenths(rows)]
    assert value(found, "plumbline_rows_total", outcome="predicted") == len(WAYS) * len(rows)
    for feature, times in outside(rows).items():
        assert value(found, "plumbline_out_of_range_total", feature=feature) == len(WAYS) * times
    assert (answered(found), answered(found, status="422")) == (2 * len(rows), 20)
    assert answered(found, "/predict/batch") == 3
    assert answered(found, "/predict/batch", "422") == 20


def test_two_workers_sums_are_exact_whichever_is_asked(toy_store: Store) -> None:
    rows = wide_rows(150)
    with running(toy_store, "--workers", "2") as service:
        began(service, 2)
        assert send_in_every_way(service, rows) == 2
        time.sleep(1.5)
        assert in_flight(service, 1)
        for found in ask_every(service, 2):
            check_sums(found, rows)
            assert value(found, "plumbline_model_loads_total") == 2


def test_a_worker_that_is_killed_leaves_its_counts(toy_store: Store) -> None:
    rows = wide_rows(100)
    with running(toy_store, "--workers", "2") as service:
        began(service, 2)
        assert send_in_every_way(service, rows) == 2
        time.sleep(1.5)
        killed = min(workers_of(service.process.pid))
        os.kill(killed, signal.SIGKILL)
        began(service, 3)
        time.sleep(1.5)
        assert in_flight(service, 1)
        earliest = min(map(start_seconds, workers_of(service.process.pid)))
        for found in ask_every(service, 2):
            check_sums(found, rows)
            assert value(found, "plumbline_model_loads_total") == 3
            assert value(found, "process_start_time_seconds") == pytest.approx(earliest, abs=0.05)


def counted(found: Samples) -> Samples:
    """The series that must never fall; a worker's own use of the processor ends with it."""
    endings = ("_total", "_count", "_bucket", "_sum")
    return {
        key: number
        for key, number in found.items()
        if key[0].startswith("plumbline_") and key[0].endswith(endings)
    }


def test_two_workers_sums_never_fall_under_load_nor_when_one_is_killed(toy_store: Store) -> None:
    with running(toy_store, "--workers", "2") as service:
        began(service, 2)
        # The last second of a worker that is killed is lost, but not what it has told.
        with Load(service.client.base_url.port or 0, "/predict", [BODY, b"{}"], 4) as load:
            last = watch(service, {}, 2.0)
            os.kill(min(workers_of(service.process.pid)), signal.SIGKILL)
            last = watch(service, last, 3.0)
        began(service, 3)
        time.sleep(1.5)
        assert in_flight(service, 1)
        for found in ask_every(service, 2):
            told = counted(found)
            assert not [key for key, number in last.items() if told[key] < number]
            statuses = Counter(status for _, status, _ in load.answers.seen.elements())
            assert 0.5 * statuses[200] < answered(found) <= statuses[200] + 4


def watch(service: Service, last: Samples, seconds: float) -> Samples:
    """Ask again and again whichever worker answers; no count may be less than it was before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            now = counted(read(service.client))
        except httpx.TransportError:
            # It was asked of the worker that was killed.
            continue
        fallen = {key: (number, now.get(key)) for key, number in last.items() if now.get(key, -1) < number}
        assert not fallen
        last = now
    return last


def test_a_folder_that_cannot_be_written_for_a_while_costs_no_count(
    toy_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    rows = wide_rows(50)
    with running(toy_store, "--workers", "2") as service:
        began(service, 2)
        (folder,) = tmp_path.glob("plumbline-*")
        time.sleep(1.5)
        in_the_way = [folder / f"{process}.new" for process in workers_of(service.process.pid)]
        for path in in_the_way:
            path.mkdir()
        assert send_in_every_way(service, rows) == 2
        time.sleep(1.5)
        ask_every(service, 2)
        for path in in_the_way:
            path.rmdir()
        time.sleep(1.5)
        for found in ask_every(service, 2):
            check_sums(found, rows)
    assert "Error" not in service.log.read_text()
