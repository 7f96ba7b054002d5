"""The service's metrics, in Prometheus' text format.

A process counts in plain numbers, without locks, each written by one thread only: prometheus-client's own
counting costs a request three times as much, and twenty times as much in its multi-process mode. Workers
write their numbers to a folder that they share; whichever is asked adds up everybody's.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate
from operator import add
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TypeAlias

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from model_store.answers import Tally

BOUNDS = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TENTHS = 10
SHARING_SECONDS = 1.0

Numbers: TypeAlias = list[float]
Counts: TypeAlias = dict[tuple[str, ...], Numbers]

REQUESTS, IN_FLIGHT, PREDICTED, REFUSED, OUTSIDE = "requests", "in flight", "predicted", "refused", "outside"
LOADS, FAILURES, OVERLOADS = "model_loads", "model_load_failures", "overload_refusals"
DROPPED = "log_lines_dropped"
EVENTS = {
    LOADS: "Versions that were verified and went live.",
    FAILURES: "Looks at the store that failed.",
    OVERLOADS: "Requests that were refused because too many were in flight.",
    DROPPED: "Log lines that could not be written.",
}


class Requests:
    """The requests of one route with one status."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        self._numbers[bisect_left(BOUNDS, seconds)] += 1
        self._numbers[-1] += seconds


class Telemetry:
    """What is counted; one for each application, so that two in a process do not mix.

    `shared` is the folder of the workers, where there are several.
    """

    def __init__(self, shared: Path | None = None, dropped_lines: Callable[[], int] = int) -> None:
        self._shared, self._writing, self._dropped_lines = shared, Lock(), dropped_lines
        self._counts: Counts = {(event,): [0] for event in EVENTS}
        self._tenths, self._refused = self._numbers(PREDICTED, size=TENTHS), self._numbers(REFUSED)
        self.in_flight = self._numbers(IN_FLIGHT)
        self.served: tuple[str, str, str] | None = None
        self.is_store_reachable = False
        self._registry = CollectorRegistry()
        self._registry.register(Families(self))

    def _numbers(self, *key: str, size: int = 1) -> Numbers:
        return self._counts.setdefault(key, [0] * size)

    def requests(self, route: str, status: int) -> Requests:
        """The requests of one route with one status."""
        return Requests(self._numbers(REQUESTS, route, str(status), size=len(BOUNDS) + 2))

    def count(self, event: str) -> None:
        """One of EVENTS happened."""
        self._counts[event,][0] += 1

    def row(self, tenth: int, out_of_range: Sequence[str]) -> None:
        """A row was predicted."""
        self._tenths[tenth] += 1
        for name in out_of_range:
            self._numbers(OUTSIDE, name)[0] += 1

    def rows(self, tally: Tally) -> None:
        """Many rows were answered."""
        for tenth, times in enumerate(tally.tenths):
            self._tenths[tenth] += times
        for name, times in tally.out_of_range.items():
            self._numbers(OUTSIDE, name)[0] += times
        self._refused[0] += tally.refused

    def exposition(self) -> bytes:
        """The body of `GET /metrics`."""
        exposition = generate_latest(self._registry)
        if self._shared:
            # What was told is never taken back, whichever worker is asked next and if this one is killed now.
            self._write_snapshot(self._shared)
        return exposition

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Let the other workers know the counts, every second and at the end, if there are others."""
        if self._shared is None:
            yield
            return
        over = Event()
        Thread(target=self._share, args=(self._shared, over), daemon=True).start()
        yield
        over.set()
        self._write_snapshot(self._shared)

    def _share(self, folder: Path, over: Event) -> None:
        while not over.is_set():
            self._write_snapshot(folder)
            over.wait(SHARING_SECONDS)

    def _write_snapshot(self, folder: Path) -> None:
        beside = folder / f"{os.getpid()}.new"
        # A disk that is full now may have room a second later.
        with self._writing, suppress(OSError):
            beside.write_bytes(msgspec.msgpack.encode(self._own()))
            beside.replace(beside.with_suffix(".counts"))

    def _own(self) -> Counts:
        self._counts[DROPPED,][0] = self._dropped_lines()
        return self._counts

    def by_process(self) -> dict[int, Counts]:
        """Every worker's counts; those that have ended keep theirs, but have nothing in flight."""
        counts = {os.getpid(): self._own()}
        for snapshot in self._shared.glob("*.counts") if self._shared else ():
            process = int(snapshot.stem)
            if process != os.getpid():
                counts[process] = msgspec.msgpack.decode(snapshot.read_bytes(), type=Counts)
                if not is_running(process):
                    del counts[process][IN_FLIGHT,]
        return counts


def is_running(process: int) -> bool:
    """Whether there is a process of this number that may be signalled, as workers may signal each other."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


class Families(Collector):
    """The metrics of all processes together; what is no count is the asked process's own."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now; the labels' values are those of the routes and of the manifest."""
        telemetry, by_process = self._telemetry, self._telemetry.by_process()
        total = added(by_process.values())
        yield durations(total)
        yield from rows(total)
        for event, text in EVENTS.items():
            yield CounterMetricFamily(f"plumbline_{event}", text, total[event,][0])
        text = "Requests that are being answered."
        yield GaugeMetricFamily("plumbline_requests_in_flight", text, total[IN_FLIGHT,][0])
        text = "1 if the store answered when last asked."
        yield GaugeMetricFamily("plumbline_store_reachable", text, float(telemetry.is_store_reachable))
        model = GaugeMetricFamily(
            "plumbline_model_info", "The served version.", labels=("model", "version", "digest")
        )
        if telemetry.served:
            model.add_metric(telemetry.served, 1)
        yield model
        yield from process_figures(filter(is_running, by_process))


def added(parts: Iterable[Counts]) -> Counts:
    """The counts of several processes as one's."""
    total: Counts = {}
    for counts in parts:
        for key, numbers in counts.items():
            sums = total.setdefault(key, [0] * len(numbers))
            total[key] = [mine + more for mine, more in zip(sums, numbers, strict=True)]
    return total


def labelled(counts: Counts, kind: str) -> Iterator[tuple[tuple[str, ...], Numbers]]:
    """The labels and numbers of one kind of counts."""
    return ((key[1:], numbers) for key, numbers in counts.items() if key[0] == kind)


def durations(counts: Counts) -> Metric:
    """The histogram of how long requests took."""
    family = HistogramMetricFamily(
        "plumbline_request_duration_seconds",
        "How long requests took, from their first byte to their answer's last.",
        labels=("route", "status"),
    )
    for labels, (*buckets, seconds) in labelled(counts, REQUESTS):
        names = [*map(str, BOUNDS), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(buckets), strict=True)), seconds)
    return family


def rows(counts: Counts) -> Iterator[Metric]:
    """What became of the rows."""
    tenths = counts[PREDICTED,]
    outcomes = CounterMetricFamily(
        "plumbline_rows",
        "Rows by what became of them; those of a request refused as a whole are not counted.",
        labels=("outcome",),
    )
    outcomes.add_metric(("predicted",), sum(tenths))
    outcomes.add_metric(("refused",), counts[REFUSED,][0])
    yield outcomes
    text = "Predictions by the tenth of the training target in which they lie; alike, each has one in ten."
    predictions = CounterMetricFamily("plumbline_predictions", text, labels=("decile",))
    for tenth, times in enumerate(tenths, start=1):
        predictions.add_metric((str(tenth),), times)
    yield predictions
    text = "Inputs outside their training range."
    outside = CounterMetricFamily("plumbline_out_of_range", text, labels=("feature",))
    for labels, (times,) in labelled(counts, OUTSIDE):
        outside.add_metric(labels, times)
    yield outside


def process_figures(processes: Iterable[int]) -> Iterable[Metric]:
    """The operating system's figures of all processes together, the earliest start among them."""
    families: dict[str, Metric] = {}
    for process in processes:
        for family in ProcessCollector(pid=partial(int, process), registry=None).collect():
            known = families.setdefault(family.name, family)
            if known is not family:
                combine = min if family.name == "process_start_time_seconds" else add
                pairs = zip(known.samples, family.samples, strict=True)
                known.samples = [
                    sample._replace(value=combine(sample.value, other.value)) for sample, other in pairs
                ]
    return families.values()
