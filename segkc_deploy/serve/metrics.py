"""Prometheus metrics of the service."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The service's own registry: several services in one process do not share counts."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        name = "segkc_deploy_"
        self.requests = Counter(
            name + "requests", "Requests for a prediction, by their status", ["status"], registry=self._registry
        )
        self.images = Counter(name + "images", "Images predicted", ["model"], registry=self._registry)
        self.seconds = Histogram(
            name + "request_seconds",
            "Time of an answered request",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.stage_seconds = Histogram(
            name + "stage_seconds", "Time of its parts", ["stage"], buckets=_SECONDS, registry=self._registry
        )
        self.batch_size = Histogram(
            name + "batch_size", "Images that ran with an image", ["model"], buckets=_BATCHES, registry=self._registry
        )
        self.in_work = Gauge(name + "requests_in_work", "Requests being worked on", registry=self._registry)
        self.waiting = Gauge(
            name + "images_waiting", "Images that wait for the network", ["model"], registry=self._registry
        )

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)
