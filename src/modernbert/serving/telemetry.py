"""The metrics of a server, in the format of Prometheus.

The names are those of text-embeddings-inference, which do not end in `_total`.
"""

import re
from dataclasses import dataclass, fields

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = tuple(0.001 * 2**power for power in range(18))
_COUNTS = tuple(float(2**power) for power in range(20))
_SUFFIX = re.compile(r"^((?:# \w+ )?te_\w+)_total\b", re.MULTILINE)


@dataclass
class Timing:
    """How long the parts of a request took, in seconds, and how much text it had.

    Attributes:
        queue: The mean over its texts.
        inference: As `queue`.
    """

    tokenization: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    tokens: int = 0
    characters: int = 0

    def headers(self, total_seconds: float, device_type: str) -> dict[str, str]:
        """Return the timing headers of the answer, in milliseconds."""
        milliseconds = {
            "x-compute-time": total_seconds,
            "x-total-time": total_seconds,
            "x-tokenization-time": self.tokenization,
            "x-queue-time": self.queue,
            "x-inference-time": self.inference,
        }
        return {
            "x-compute-type": device_type,
            "x-compute-characters": str(self.characters),
            "x-compute-tokens": str(self.tokens),
            **{name: str(round(1000 * value)) for name, value in milliseconds.items()},
        }


class Telemetry:
    """The counters of one server, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("te_request_count", "Requests.", "route")
        self.successes = self._counter("te_request_success", "Requests with a result.", "route")
        self.failures = self._counter("te_request_failure", "Requests without one.", "err")
        self.duration = self._histogram("te_request_duration", "Seconds of a request.", _SECONDS)
        self._parts = {
            field.name: self._histogram(
                f"te_request_{field.name}_duration", f"Seconds of {field.name}.", _SECONDS
            )
            for field in fields(Timing)
            if field.type in (float, "float")
        }
        self.input_length = self._histogram("te_request_input_length", "Tokens a text.", _COUNTS)
        self.batch_size = self._histogram("te_batch_next_size", "Texts of a batch.", _COUNTS)
        self.batch_tokens = self._histogram("te_batch_next_tokens", "Tokens of a batch.", _COUNTS)
        self.queue_size = Gauge("te_queue_size", "Texts that wait.", registry=self.registry)
        self.running = Gauge("te_request_running", "Requests under way.", registry=self.registry)

    def batch(self, num_sequences: int, num_tokens: int, still_waiting: int) -> None:
        """Count a batch that begins."""
        self.batch_size.observe(num_sequences)
        self.batch_tokens.observe(num_tokens)
        self.queue_size.set(still_waiting)

    def success(self, route: str, timing: Timing, total_seconds: float) -> None:
        """Count a request that has its result."""
        self.successes.labels(route).inc()
        self.duration.observe(total_seconds)
        for name, histogram in self._parts.items():
            histogram.observe(getattr(timing, name))

    def render(self) -> str:
        """Return all metrics in Prometheus' text format."""
        lines = generate_latest(self.registry).decode()
        kept = [line for line in lines.splitlines(keepends=True) if "_created" not in line]
        return _SUFFIX.sub(r"\1", "".join(kept))

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(name, text, [label], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)
