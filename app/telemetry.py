"""The service's metrics, in Prometheus' text format."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

BOUNDS = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Series:
    """How many requests of one route and status took how long; without locks, for one thread."""

    def __init__(self) -> None:
        self.counts, self.sum = [0] * (len(BOUNDS) + 1), 0.0

    def add(self, seconds: float) -> None:
        """Count one request."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class Durations(Collector):
    """A histogram of the requests' durations, by route and status."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, int], Series] = {}

    def series(self, route: str, status: int) -> Series:
        """The requests of one route with one status."""
        return self._series.setdefault((route, status), Series())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as it is now."""
        family = HistogramMetricFamily(
            "plumbline_request_duration_seconds",
            "How long requests took, from their first byte to their answer's last.",
            labels=("route", "status"),
        )
        names = [*map(str, BOUNDS), "+Inf"]
        for (route, status), series in self._series.items():
            buckets = list(zip(names, accumulate(series.counts), strict=True))
            family.add_metric((route, str(status)), buckets, series.sum)
        yield family


class Telemetry:
    """What is counted; one for each application, so that two in a process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.durations = Durations()
        self._registry.register(self.durations)
        self._model = Gauge(
            "plumbline_model_info",
            "The served version.",
            ("model", "version", "digest"),
            registry=self._registry,
        )
        self._loads = Counter(
            "plumbline_model_loads", "Versions that were verified and went live.", registry=self._registry
        )
        self._failures = Counter(
            "plumbline_model_load_failures", "Looks at the store that failed.", registry=self._registry
        )
        self._reachable = Gauge(
            "plumbline_store_reachable", "1 if the store answered when last asked.", registry=self._registry
        )

    def swapped(self, name: str, version: str, digest: str) -> None:
        """A version went live."""
        self._loads.inc()
        self._model.clear()
        self._model.labels(name, version, digest).set(1)

    def failed(self) -> None:
        """A look at the store did not end well."""
        self._failures.inc()

    def store_answered(self, *, reachable: bool) -> None:
        """The store was asked."""
        self._reachable.set(reachable)

    def page(self) -> bytes:
        """The body of `GET /metrics`."""
        return generate_latest(self._registry)
