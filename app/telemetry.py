"""The service's metrics, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Telemetry:
    """What is counted; one for each application, so that two in a process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
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
