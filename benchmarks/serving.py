"""How fast the service answers, beside a bare ASGI function and what people write: `make bench`.

Every server has one core for itself and wrk (https://github.com/wg/wrk) the other. Shared machines change
their speed within seconds, so the servers take turns in slices of a second; quoted are the medians, and the
median of the ratios round by round. `--json FILE` keeps the figures.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from app.serving import Served
from benchmarks.contenders import CHANGES, EXAMPLE, KEY, NAME
from model_store.columns import NumericFeature
from model_store.manifest import GoldenRow, Linear, Mlp
from model_store.predictor import dump_weights
from model_store.store import Store, open_store
from tests.conftest import free_port, run
from tests.toys import expected_outputs, toy_description, toy_weights

ROUNDS = 9
SERVER_CORE, LOAD_CORE = {0}, {1}
FEATURE = "Kilometers_Driven"
SCRIPT = """
local body = io.open(os.getenv("BODY"), "rb")
wrk.method, wrk.body = "POST", body:read("*a")
wrk.headers["Content-Type"] = os.getenv("TYPE")
wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY")
done = function(summary, latency)
  local errors = summary.errors
  local bad = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  print(string.format("RESULT %d %d %d %d %d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), bad))
end
"""


@dataclass(frozen=True)
class Slice:
    """A second of load: requests a second, the median and 99th percentile in ms, answers that were no 200."""

    rate: float
    p50: float
    p99: float
    bad: int


@dataclass(frozen=True)
class Server:
    """A process that answers."""

    name: str
    url: str
    process: subprocess.Popen[str]

    @property
    def memory(self) -> float:
        """Its proportional share of memory, in MB."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return sum(map(int, re.findall(r"^Pss: +(\d+)", text, re.MULTILINE))) / 1024


class Bench:
    """The folder with the store and the bodies, and the figures so far."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "models"
        self.script = folder / "load.lua"
        self.script.write_text(SCRIPT)
        self.figures: dict[str, Any] = {}
        train(cars=folder / "cars.csv", store=self.store)
        self.numbers = model_numbers(self.store)
        (folder / "model.json").write_text(json.dumps(self.numbers))

    @contextmanager
    def server(self, name: str) -> Iterator[Server]:
        """A contender, on its core, or with several workers on both, from when its first answer is right."""
        port = free_port()
        command = [sys.executable, "-m", *self.command(name), str(port)]
        os.sched_setaffinity(0, SERVER_CORE | LOAD_CORE if "worker" in name else SERVER_CORE)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        os.sched_setaffinity(0, LOAD_CORE)
        try:
            self.wait_until_right(process, port)
            yield Server(name, f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            process.wait(timeout=20)

    def command(self, name: str) -> list[str]:
        """The module that is the contender, and its arguments but for the port."""
        ours = ["app", "--store", str(self.store)]
        if "worker" in name:
            return [*ours, "--workers", name[0], "--port"]
        if name == "ours":
            return [*ours, "--port"]
        if "def" in name:
            return ["benchmarks.template", name, str(self.folder / "model.json")]
        return ["benchmarks.contenders", name, str(self.store)]

    def wait_until_right(self, process: subprocess.Popen[str], port: int) -> None:
        """Ask every few milliseconds until the answer is what numpy computes."""
        model = self.numbers
        z_score = (json.loads(EXAMPLE)[FEATURE] - model["mean"]) / model["std"]
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY.decode()}"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", EXAMPLE, headers)
        for _ in range(6000):
            with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
                prediction = json.load(answer)["prediction"]
                assert np.isclose(prediction, z_score * model["weight"] + model["bias"], rtol=1e-12)
                return
            assert process.poll() is None
            time.sleep(0.005)
        message = "it did not answer"
        raise TimeoutError(message)

    def load(
        self, server: Server, path: str, body: bytes, connections: int, media: str = "application/json"
    ) -> Slice:
        """Post the body for a second."""
        file = self.folder / "body"
        file.write_bytes(body)
        result = subprocess.run(
            [WRK, "-t1", f"-c{connections}", "-d1", "-s", str(self.script), f"{server.url}{path}"],
            env=os.environ | {"BODY": str(file), "TYPE": media, "KEY": KEY.decode()},
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", result.stdout)
        assert found, result.stdout
        requests, microseconds, p50, p99, bad = map(int, found.groups())
        return Slice(requests / microseconds * 1e6, p50 / 1000, p99 / 1000, bad)

    def keep(self, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print a table in Markdown and remember it."""
        self.figures[title] = rows
        heads = list(rows[0])
        print(f"\n### {title}\n\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
        for row in rows:
            print(f"| {' | '.join(map(str, row.values()))} |")
        sys.stdout.flush()


WRK = shutil.which("wrk") or "wrk"


def train(cars: Path, store: Path) -> None:
    """Write the sample table and train the first model on it."""
    options = ("--target", "Price", "--feature", FEATURE, "--name", NAME, "--store", store, "--promote")
    for command in (("sample", cars), ("fit", cars, *options)):
        result = run("training", *command)
        assert result.returncode == 0, result.stderr


def model_numbers(store: Path) -> dict[str, Any]:
    """The promoted model's numbers, for contenders that know nothing of the store."""
    version = open_store(str(store)).load_promoted(NAME)
    feature: Any = version.manifest.features[0]
    weights = version.predictor.weights
    return {
        "feature": feature.name,
        "mean": feature.mean,
        "std": feature.std,
        "weight": weights["layers.0.weight"][0][0],
        "bias": weights["layers.0.bias"][0],
    }


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("error: wrk is not here: install Debian's package wrk")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        print(f"{machine()}; medians of {ROUNDS} rounds")
        for part in (single_rows, batches, features_off, growth, workers, cold_start):
            part(bench)
        if arguments.json:
            arguments.json.write_text(json.dumps(bench.figures, indent=2))


def machine() -> str:
    """What this ran on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    processor = model[1] if model else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}"


def ratio(slices: Sequence[Slice], base: Sequence[Slice], member: str) -> str:
    """The median of the ratios, round by round."""
    pairs = zip(slices, base, strict=True)
    return f"{statistics.median(getattr(ours, member) / getattr(other, member) for ours, other in pairs):.2f}"


def median(slices: Sequence[Slice], member: str) -> float:
    """The median of one figure."""
    middle: float = statistics.median(getattr(slice_, member) for slice_ in slices)
    return middle


def take_turns(bench: Bench, servers: Sequence[Server], connections: int) -> dict[str, list[Slice]]:
    """Slices of single rows, the servers one after another in each round."""
    slices: dict[str, list[Slice]] = {server.name: [] for server in servers}
    for _ in range(ROUNDS):
        for server in servers:
            slices[server.name].append(bench.load(server, "/predict", EXAMPLE, connections))
    return slices


def single_rows(bench: Bench) -> None:
    """Requests a second and how long they take, and memory before and after."""
    rows = []
    with ExitStack() as stack:
        servers = [stack.enter_context(bench.server(name)) for name in ("floor", "ours", "async def", "def")]
        before = {server.name: server.memory for server in servers}
        for connections in (1, 16, 64):
            slices = take_turns(bench, servers, connections)
            for name, own in slices.items():
                rows.append(
                    {
                        "connections": connections,
                        "server": name,
                        "requests/s": f"{median(own, 'rate'):,.0f}",
                        "of the floor": ratio(own, slices["floor"], "rate"),
                        "of `async def`": ratio(own, slices["async def"], "rate"),
                        "p50 ms": f"{median(own, 'p50'):.2f}",
                        "p99 ms": f"{median(own, 'p99'):.2f}",
                        "p99 of the floor's": ratio(own, slices["floor"], "p99"),
                        "not 200": sum(slice_.bad for slice_ in own),
                    }
                )
        memory = [
            {
                "server": server.name,
                "PSS after start, MB": f"{before[server.name]:.0f}",
                "after load": f"{server.memory:.0f}",
            }
            for server in servers
        ]
    bench.keep("Single rows", rows)
    bench.keep("Memory", memory)


def batch_bodies(count: int) -> dict[str, tuple[bytes, str]]:
    """A batch in each of its forms."""
    kilometres = kilometres_of(count)
    instances = [{FEATURE: value} for value in kilometres]
    table = "\n".join([FEATURE, *map(str, kilometres)]) + "\n"
    return {
        "instances": (json.dumps({"instances": instances}).encode(), "application/json"),
        "columns": (json.dumps({"columns": {FEATURE: kilometres}}).encode(), "application/json"),
        "CSV": (table.encode(), "text/csv"),
    }


def kilometres_of(count: int) -> list[int]:
    """The inputs of a batch."""
    return [1000 + 37 * number for number in range(count)]


def check_batch(bench: Bench, server: Server, count: int, form: str) -> None:
    """Every prediction of a batch is what numpy computes."""
    body, media = batch_bodies(count)[form]
    request = urllib.request.Request(f"{server.url}/predict/batch", body, {"Content-Type": media})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    lines = text.splitlines()[1:]
    given = [line.split(",")[1] for line in lines] if form == "CSV" else json.loads(text)["predictions"]
    model = bench.numbers
    z_scores = (np.array(kilometres_of(count)) - model["mean"]) / model["std"]
    assert np.allclose(np.array(given, float), z_scores * model["weight"] + model["bias"], rtol=1e-12)


BATCHES = (
    ("async def", "instances"),
    ("ours", "instances"),
    ("ours", "columns"),
    ("ours", "CSV"),
    ("no interval", "instances"),
    ("no interval", "columns"),
    ("no interval", "CSV"),
)


def batches(bench: Bench) -> None:
    """Rows a second."""
    rows = []
    with ExitStack() as stack:
        names = ("floor", "ours", "no interval", "async def")
        servers = {name: stack.enter_context(bench.server(name)) for name in names}
        for count in (1_000, 10_000):
            for name, form in BATCHES:
                check_batch(bench, servers[name], count, form)
            floor, turns = batch_turns(bench, servers, batch_bodies(count))
            rows += [batch_row(count, pair, turns, floor) for pair in BATCHES]
    bench.keep("Batches, two connections", rows)


def batch_turns(
    bench: Bench, servers: Mapping[str, Server], bodies: Mapping[str, tuple[bytes, str]]
) -> tuple[list[Slice], dict[tuple[str, str], list[Slice]]]:
    """Slices of the floor's single rows and of each kind of batch, in turn."""
    floor: list[Slice] = []
    turns: dict[tuple[str, str], list[Slice]] = {pair: [] for pair in BATCHES}
    for _ in range(ROUNDS):
        floor.append(bench.load(servers["floor"], "/predict", EXAMPLE, 16))
        for (name, form), slices in turns.items():
            body, media = bodies[form]
            slices.append(bench.load(servers[name], "/predict/batch", body, 2, media))
    return floor, turns


def batch_row(
    count: int,
    pair: tuple[str, str],
    turns: Mapping[tuple[str, str], Sequence[Slice]],
    floor: Sequence[Slice],
) -> dict[str, Any]:
    """A row of the table of batches."""
    slices, pairs = turns[pair], zip(turns[pair], floor, strict=True)
    at_37000 = statistics.median(own.rate * count * 37_000 / base.rate for own, base in pairs)
    return {
        "rows": f"{count:,}",
        "server": pair[0],
        "form": pair[1],
        "rows/s": f"{median(slices, 'rate') * count:,.0f}",
        "rows/s where the floor does 37,000 requests": f"{at_37000:,.0f}",
        "of `async def`": ratio(slices, turns[BATCHES[0]], "rate"),
        "p99 ms": f"{median(slices, 'p99'):.1f}",
        "not 200": sum(slice_.bad for slice_ in slices),
    }


def features_off(bench: Bench) -> None:
    """What each thing on the hot path costs."""
    with ExitStack() as stack:
        servers = [stack.enter_context(bench.server(name)) for name in CHANGES]
        slices = take_turns(bench, servers, 16)
    rows = [
        {
            "with": name,
            "requests/s": f"{median(own, 'rate'):,.0f}",
            "of ours": ratio(own, slices["ours"], "rate"),
            "µs a request more or less": f"{cost(own, slices['ours']):+.1f}",
            "not 200": sum(slice_.bad for slice_ in own),
        }
        for name, own in slices.items()
    ]
    bench.keep("What each thing costs, 16 connections", rows)


def cost(slices: Sequence[Slice], base: Sequence[Slice]) -> float:
    """By how many microseconds a request takes longer, in the median of the rounds."""
    pairs = zip(slices, base, strict=True)
    return statistics.median(1e6 / own.rate - 1e6 / other.rate for own, other in pairs)


def growth(bench: Bench) -> None:
    """How the work of one request grows with its inputs and rows, without the server."""
    rows: list[dict[str, Any]] = []
    for count, hidden in product((1, 10, 50, 100, 200), ((), (32, 16), (64, 32))):
        network = Mlp(hidden=hidden) if hidden else Linear()
        served = wide_model(open_store(f"{bench.folder}/wide{count}-{len(rows)}"), count, network)
        seconds = best(lambda served=served: served.predict(served.example.encode()))
        rows.append(growth_row(count, hidden, 1, seconds))
    served = wide_model(open_store(f"{bench.folder}/narrow"), 1, Linear())
    for count in (1, 10, 100, 1_000, 10_000, 100_000):
        body = json.dumps({"columns": {"x0": [0.25 + number for number in range(count)]}}).encode()
        seconds = best(lambda body=body: served.predict_batch(body))
        rows.append(growth_row(1, (), count, seconds))
    bench.keep("How the work grows", rows)


def growth_row(inputs: int, hidden: Sequence[int], rows: int, seconds: float) -> dict[str, Any]:
    """A row of the table of how the work grows."""
    return {
        "inputs": inputs,
        "hidden": ", ".join(map(str, hidden)),
        "rows": f"{rows:,}",
        "µs": f"{seconds * 1e6:.1f}",
        "ns an input and row": f"{seconds * 1e9 / inputs / rows:.0f}",
    }


def best(work: Any) -> float:
    """The least seconds that the work takes."""
    timer = timeit.Timer(work)
    number, taken = timer.autorange()
    return min([taken, *timer.repeat(5, number)]) / number


def wide_model(store: Store, inputs: int, network: Linear | Mlp) -> Served:
    """A model of so many numbers."""
    names = [f"x{index}" for index in range(inputs)]
    features = tuple(
        NumericFeature(
            name=name,
            mean=1.0,
            std=2.0,
            minimum=0.0,
            maximum=9.0,
            deciles=tuple(np.arange(0.5, 9.5)),
            example=4.0,
        )
        for name in names
    )
    weights = toy_weights(network, inputs)
    values = np.random.default_rng(0).uniform(0, 9, (32, inputs))
    predictions = expected_outputs(network, weights, (values - 1.0) / 2.0)
    golden = tuple(
        GoldenRow(inputs=dict(zip(names, row.tolist(), strict=True)), prediction=float(prediction))
        for row, prediction in zip(values, predictions, strict=True)
    )
    description = toy_description(network, features=features, golden=golden)
    store.publish(description, dump_weights(weights), lambda _: {"history.csv": b"epoch,cost\n0,1.0\n"})
    return Served(store.load("toy", 1), 100_000)


def workers(bench: Bench) -> None:
    """One process and two, both cores shared with the load."""
    with ExitStack() as stack:
        servers = [stack.enter_context(bench.server(f"{count} worker")) for count in (1, 2)]
        slices = take_turns(bench, servers, 64)
    rows = [
        {
            "server": name,
            "requests/s": f"{median(own, 'rate'):,.0f}",
            "of one": ratio(own, slices["1 worker"], "rate"),
        }
        for name, own in slices.items()
    ]
    bench.keep("Workers, 64 connections, on both cores beside the load", rows)


def cold_start(bench: Bench) -> None:
    """From the start of the process to the first right answer."""
    seconds: dict[str, list[float]] = {"ours": [], "async def": []}
    for _ in range(ROUNDS):
        for name, taken in seconds.items():
            start = time.perf_counter()
            with bench.server(name):
                taken.append(time.perf_counter() - start)
    ratios = [ours / other for ours, other in zip(*seconds.values(), strict=True)]
    rows = [{"server": name, "seconds": f"{statistics.median(taken):.2f}"} for name, taken in seconds.items()]
    bench.keep("Cold start", [*rows, {"server": "ratio", "seconds": f"{statistics.median(ratios):.2f}"}])


if __name__ == "__main__":
    main()
