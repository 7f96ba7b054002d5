"""How fast other servers answer with the same model, beside the service: `make bench-peers`.

`python -m benchmarks.peers [--json FILE] [--rounds N] [NAME…]`. Each peer is installed into an environment of
its own under .peers/, which stays for the next run, and served as its documentation says: one worker, no log
line a request where there is a setting for that, this machine's address only. As in `benchmarks.serving`
the server has one core and wrk the other; the floor, the service and one peer take turns in slices of a
second. A peer's answers must be the service's before it is timed; the service's carry more, an interval
beside each prediction. What cannot be measured here is a row that says why.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import NAME
from benchmarks.peer_processes import (
    ONE,
    Contender,
    NotMeasured,
    Running,
    install,
    last_words,
    launched,
    prepare,
)
from benchmarks.serving import FEATURE, ROUNDS, Bench, Server, Slice, machine, median
from model_store.store import open_store

MANY = [1000 + 37 * number for number in range(10_000)]


def instances(cars: list[int]) -> Any:
    """The service's own bodies."""
    return {FEATURE: cars[0]} if len(cars) == 1 else {"instances": [{FEATURE: car} for car in cars]}


def tensor(cars: list[int]) -> Any:
    """The Open Inference Protocol's body."""
    return {"inputs": [{"name": "cars", "shape": [len(cars), 1], "datatype": "FP64", "data": cars}]}


def first_output(answer: Any) -> Any:
    """The Open Inference Protocol's predictions."""
    return answer["outputs"][0]["data"]


def column(cars: list[int]) -> Any:
    """An array of one column."""
    return [[car] for car in cars]


FLOOR = Contender(
    title="floor",
    command="{bin}/python -m benchmarks.contenders floor {store} {port}",
    path="/predict",
    body=instances,
    read=lambda answer: answer["prediction"],
)
OURS = Contender(
    title="ours",
    command="{bin}/python -m benchmarks.contenders ours {store} {port}",
    path="/predict",
    batch_path="/predict/batch",
    body=instances,
    read=lambda answer: answer.get("predictions", answer.get("prediction")),
    form="instances",
)
# The same process asked in the other way; a tensor is a column too.
COLUMNS = replace(OURS, title="ours, columns", body=lambda cars: {"columns": {FEATURE: cars}}, form="columns")
# The newest that could be installed on Python 3.11 when this was written; none of them needs torch.
PEERS = (
    Contender(
        title="MLServer",
        requirements=("mlserver==1.7.1",),
        command="{bin}/mlserver start {folder}",
        environment={
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{port_2}",
            "MLSERVER_METRICS_PORT": "{port_3}",
            "MLSERVER_DEBUG": "false",
            # The default, one more process, ends at once beside today's uvloop.
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_MODEL_NAME": "cars",
            "MLSERVER_MODEL_IMPLEMENTATION": "benchmarks.peer_servers.mlserver_runtime.Prices",
            "MLSERVER_MODEL_URI": "{model}",
        },
        path="/v2/models/cars/infer",
        body=tensor,
        read=first_output,
        form="v2 JSON",
    ),
    Contender(
        title="LitServe",
        requirements=("litserve==0.2.19", "numpy"),
        command="{bin}/python -m benchmarks.peer_servers.litserve_server {model} {port}",
        path="/predict",
        body=lambda cars: {"input": cars},
        read=lambda answer: answer["output"],
        form='{"input": …}',
    ),
    Contender(
        title="BentoML",
        requirements=("bentoml==1.4.39", "numpy"),
        command="{bin}/bentoml serve benchmarks.peer_servers.bentoml_service:Prices"
        " --host 127.0.0.1 --port {port}",
        environment={"MODEL": "{model}", "BENTOML_DO_NOT_TRACK": "true"},
        path="/predict",
        body=lambda cars: {"cars": column(cars)},
        read=lambda answer: answer,
        form='{"cars": …}',
    ),
    Contender(
        title="KServe",
        requirements=("kserve==0.21.0",),
        command="{bin}/python -m benchmarks.peer_servers.kserve_server {model} {port}",
        environment={"KSERVE_LOGLEVEL": "WARNING"},
        path="/v2/models/cars/infer",
        body=tensor,
        read=first_output,
        form="v2 JSON",
    ),
    Contender(
        title="MLflow",
        requirements=("mlflow==3.17.2",),
        prepare="{bin}/python -m benchmarks.peer_servers.mlflow_save {model} {folder}/model",
        command="{bin}/mlflow models serve --model-uri {folder}/model --env-manager local --workers 1"
        " --host 127.0.0.1 --port {port}",
        environment={"MLFLOW_DISABLE_TELEMETRY": "true", "UVICORN_ACCESS_LOG": "false"},
        path="/invocations",
        body=lambda cars: {"dataframe_split": {"columns": [FEATURE], "data": column(cars)}},
        read=lambda answer: answer["predictions"],
        form="dataframe_split",
    ),
    Contender(
        title="vetiver",
        requirements=("vetiver==0.2.6",),
        command="{bin}/python -m benchmarks.peer_servers.vetiver_server {model} {port}",
        path="/predict",
        body=lambda cars: [{FEATURE: car} for car in cars],
        read=lambda answer: answer["predict"],
        form="records",
    ),
)


@dataclass(frozen=True)
class Figures:
    """What was measured of a peer, and of the floor and the service in the same rounds."""

    single: dict[str, list[Slice]]
    batch: dict[str, list[Slice]]
    seconds: dict[str, list[float]]
    memory: dict[str, list[float]]
    processes: dict[str, list[int]]


def main() -> None:
    """Print every table."""
    arguments = parse()
    if not shutil.which("wrk"):
        sys.exit("error: wrk is not here: install Debian's package wrk")
    # Ended like this, it still ends the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    chosen = [peer for peer in PEERS if peer.title.lower() in (arguments.names or KEYS)]
    problems = install_all(chosen)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        write_model(bench)
        print(f"{machine()}; medians of {arguments.rounds} rounds", flush=True)
        found = measure_all(bench, chosen, arguments.rounds, problems)
        print_tables(bench, found, problems)
        if arguments.json:
            arguments.json.write_text(json.dumps(bench.figures, indent=2))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often all take turns")
    parser.add_argument("names", nargs="*", type=str.lower, help=f"some of {', '.join(KEYS)}; all by default")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(KEYS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(KEYS)}")
    return arguments


def tell(peer: Contender, what: object) -> None:
    """Say how far it is, apart from the tables."""
    print(f"{peer.name}: {what}", file=sys.stderr, flush=True)


def install_all(peers: Sequence[Contender]) -> dict[str, str]:
    """Make the peers' environments; gives why it failed for those where it did."""
    problems = {}
    for peer in peers:
        try:
            tell(peer, install(peer))
        except NotMeasured as reason:
            problems[peer.name] = str(reason)
            tell(peer, reason)
    return problems


def write_model(bench: Bench) -> None:
    """Write down the promoted model's numbers for the peers."""
    version = open_store(str(bench.store)).load_promoted(NAME)
    feature: Any = version.manifest.features[0]
    weights = version.predictor.weights
    numbers = {
        "feature": feature.name,
        "mean": feature.mean,
        "std": feature.std,
        "weight": weights["layers.0.weight"][0][0],
        "bias": weights["layers.0.bias"][0],
    }
    (bench.folder / "model.json").write_text(json.dumps(numbers))


def measure_all(
    bench: Bench, peers: Sequence[Contender], rounds: int, problems: dict[str, str]
) -> dict[str, Figures]:
    """Measure the peers without a problem one after another; adds the problems that come up."""
    found = {}
    for peer in [peer for peer in peers if peer.name not in problems]:
        try:
            found[peer.name] = measure(bench, peer, rounds)
            tell(peer, "measured")
        except NotMeasured as reason:
            problems[peer.name] = str(reason)
            tell(peer, reason)
    return found


def compare(answered: Any, expected: Any) -> None:
    """Refuse prices that are not the service's."""
    if answered.shape != expected.shape or not np.isclose(answered, expected).all():
        message = f"answered {answered[:3]} where the service answers {expected[:3]}"
        raise NotMeasured(message)


def measure(bench: Bench, peer: Contender, rounds: int) -> Figures:
    """Start the peer and the two it is compared with, and time them in turns."""
    prepare(bench, peer)
    with launched(bench, OURS) as ours:
        one, many = ours.first_answer(), ours.ask(MANY)
    seconds = cold_starts(bench, (OURS, peer), rounds, one)
    with ExitStack() as stack:
        servers = [stack.enter_context(launched(bench, contender)) for contender in (FLOOR, OURS, peer)]
        for server in servers:
            compare(server.first_answer(), one)
        memory = {server.contender.name: [server.memory] for server in servers}
        processes = {server.contender.name: [len(server.family)] for server in servers}
        forms = [servers[1], replace(servers[1], contender=COLUMNS), servers[2]]
        for server in forms:
            compare(server.ask(MANY), many)
        single = take_turns(bench, servers, rounds, ONE, 16)
        batch = take_turns(bench, forms, rounds, MANY, 1)
    return Figures(single, batch, seconds, memory, processes)


def cold_starts(
    bench: Bench, contenders: Sequence[Contender], rounds: int, expected: Any
) -> dict[str, list[float]]:
    """Seconds from the start of the process to the first right answer, in turns."""
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            start = time.perf_counter()
            with launched(bench, contender) as server:
                answered = server.first_answer()
                seconds[contender.name].append(time.perf_counter() - start)
                compare(answered, expected)
    return seconds


def take_turns(
    bench: Bench, servers: Sequence[Running], rounds: int, cars: list[int], connections: int
) -> dict[str, list[Slice]]:
    """Slices of load, the servers one after another in each round."""
    slices: dict[str, list[Slice]] = {server.contender.name: [] for server in servers}
    for _ in range(rounds):
        for running in servers:
            name, (path, body) = running.contender.name, running.contender.question(cars)
            server = Server(name, f"http://127.0.0.1:{running.port}", running.process)
            try:
                slices[name].append(bench.load(server, path, body, connections))
            except subprocess.CalledProcessError as error:
                message = f"could not be loaded: {last_words(error.stderr)}"
                raise NotMeasured(message) from None
    return slices


def print_tables(bench: Bench, found: Mapping[str, Figures], problems: Mapping[str, str]) -> None:
    """Print the tables, in each of them at the end what could not be measured."""
    for title, row, common in TABLES:
        together = pooled(list(found.values()))
        rows = [row(name, together) for name in common if found]
        rows += [row(name, figures) for name, figures in found.items()]
        heads = list(rows[0]) if rows else ["server", "figures"]
        for name, reason in problems.items():
            rows.append(dict.fromkeys(heads, "") | {heads[0]: name, heads[1]: f"not measured: {reason}"})
        bench.keep(title, rows)


def pooled(parts: Sequence[Figures]) -> Figures:
    """The figures of all rounds."""
    members: list[dict[str, list[Any]]] = [{} for _ in fields(Figures)]
    for part in parts:
        for member, whole in zip(fields(Figures), members, strict=True):
            for name, values in getattr(part, member.name).items():
                whole.setdefault(name, []).extend(values)
    return Figures(*members)


def single_row(name: str, figures: Figures) -> dict[str, str]:
    """A server that answers single rows."""
    own = figures.single[name]
    return {
        "server": name,
        "requests/s": f"{median(own, 'rate'):,.0f}",
        "of ours": share(own, figures.single["ours"]),
        "of the floor": share(own, figures.single["floor"]),
        "p50 ms": f"{median(own, 'p50'):.2f}",
        "p99 ms": f"{median(own, 'p99'):.2f}",
        "not 200": f"{sum(slice_.bad for slice_ in own)}",
    }


def batch_row(name: str, figures: Figures) -> dict[str, str]:
    """A server that answers batches."""
    own = figures.batch[name]
    return {
        "server": name,
        "form": FORMS[name],
        "rows/s": f"{median(own, 'rate') * len(MANY):,.0f}",
        "of ours": share(own, figures.batch["ours"]),
        "of ours, columns": share(own, figures.batch["ours, columns"]),
        "p50 ms": f"{median(own, 'p50'):.1f}",
        "p99 ms": f"{median(own, 'p99'):.1f}",
        "not 200": f"{sum(slice_.bad for slice_ in own)}",
    }


def start_row(name: str, figures: Figures) -> dict[str, str]:
    """A server that starts."""
    own, ours = figures.seconds[name], figures.seconds["ours"]
    times = statistics.median(seconds / other for seconds, other in zip(own, ours, strict=True))
    return {
        "server": name,
        "seconds to the first right answer": f"{statistics.median(own):.2f}",
        "of ours": f"{times:.1f}",
        "PSS after it, MB": f"{statistics.median(figures.memory[name]):.0f}",
        "processes": f"{statistics.median(figures.processes[name]):.0f}",
    }


def share(slices: Sequence[Slice], base: Sequence[Slice]) -> str:
    """The median of the ratios of the rates, round by round, to three digits however small it is."""
    return f"{statistics.median(own.rate / other.rate for own, other in zip(slices, base, strict=True)):.3g}"


KEYS = [peer.title.lower() for peer in PEERS]
FORMS = {contender.name: contender.form for contender in (OURS, COLUMNS, *PEERS)}
TABLES: tuple[tuple[str, Callable[[str, Figures], dict[str, str]], tuple[str, ...]], ...] = (
    ("Peers: single rows, 16 connections", single_row, ("floor", "ours")),
    (f"Peers: batches of {len(MANY):,} rows, one connection", batch_row, ("ours", "ours, columns")),
    ("Peers: cold start and memory", start_row, ("ours",)),
)

if __name__ == "__main__":
    main()
