"""What was counted of one version of a model, for /metrics and for ModelStatistics."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the histograms' buckets, in seconds."""


@dataclass(slots=True)
class Histogram:
    """Durations in seconds, by ``LATENCIES``; one bucket more is open."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCIES) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(LATENCIES, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(slots=True)
class Statistics:
    """Requests, rows, calls and durations; written only by the event loop's thread."""

    requests: Histogram = field(default_factory=Histogram)
    """Answered with tensors: from the last byte of the request to the answer."""
    queued: Histogram = field(default_factory=Histogram)
    """From arrival to the start of the call."""
    runs: Histogram = field(default_factory=Histogram)
    """Calls of the model."""
    refused: dict[str, int] = field(default_factory=dict)
    """By the name of the ``grpc.StatusCode``."""
    rows: int = 0
    batches: dict[int, list[float]] = field(default_factory=dict)
    """By the rows of a call: how many calls, and their seconds."""
    last: float = 0.0
    """The time of the last request, seconds since 1970."""
    waiting: int = 0
    """Rows that are waiting now."""

    def ran(self, rows: int, seconds: float) -> None:
        """Count a call of the model."""
        self.runs.add(seconds)
        self.rows += rows
        held = self.batches.get(rows)
        if held is None:
            held = self.batches[rows] = [0, 0.0]
        held[0] += 1
        held[1] += seconds

    def refuse(self, code: str) -> None:
        """Count a request that was answered with an error."""
        self.refused[code] = self.refused.get(code, 0) + 1
