"""Counters of each version of a model: kept by every worker, added up over the workers, and as Triton formats them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the histograms' buckets, in seconds."""
RIGHT, WRONG, NOT_ASKED = "right", "wrong", "not asked"
"""How a check by the rows of the certificate ends; "not asked": too much waited, so that nothing is known."""


@dataclass(slots=True)
class Histogram:
    """Durations in seconds, by ``LATENCIES``; the last bucket has no upper end."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCIES) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(LATENCIES, seconds)] += 1
        self.sum += seconds

    def __add__(self, other: Histogram) -> Histogram:
        counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        return Histogram(counts, self.sum + other.sum)

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)


@dataclass(slots=True)
class Statistics:
    """Requests, rows, calls and durations; written only by the event loop's thread. ``+`` adds up those of workers."""

    requests: Histogram = field(default_factory=Histogram)
    """Answered with tensors: from the last byte of the request to the answer."""
    queued: Histogram = field(default_factory=Histogram)
    """From arrival to the start of the call."""
    runs: Histogram = field(default_factory=Histogram)
    """Calls of the model."""
    refused: dict[str, int] = field(default_factory=dict[str, int])
    """Requests answered with an error, by the name of the ``grpc.StatusCode``."""
    rows: int = 0
    batches: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    """By the rows of a call: the number of calls, and their seconds."""
    last: float = 0.0
    """The time of the last request, seconds since 1970."""
    waiting: int = 0
    """Rows in the queue now."""
    checks: dict[str, int] = field(default_factory=dict[str, int])
    """Checks by the rows of the certificate (``self_check``), by how they ended."""
    wrong: int = 0
    """Workers whose last check found something wrong."""

    def count_call(self, rows: int, seconds: float) -> None:
        """Count a call of the model."""
        self.runs.add(seconds)
        self._count_batch(rows, 1, seconds)
        self.rows += rows

    def count_refusal(self, code: str) -> None:
        """Count a request that was answered with an error."""
        self.refused[code] = self.refused.get(code, 0) + 1

    def count_check(self, result: str) -> None:
        """Count a check by the rows of the certificate."""
        self.checks[result] = self.checks.get(result, 0) + 1

    def _count_batch(self, rows: int, calls: float, seconds: float) -> None:
        batch = self.batches.setdefault(rows, [0, 0.0])
        batch[0] += calls
        batch[1] += seconds

    def __add__(self, other: Statistics) -> Statistics:
        total = Statistics(
            requests=self.requests + other.requests,
            queued=self.queued + other.queued,
            runs=self.runs + other.runs,
            refused=dict(Counter(self.refused) + Counter(other.refused)),
            rows=self.rows + other.rows,
            last=max(self.last, other.last),
            waiting=self.waiting + other.waiting,
            checks=dict(Counter(self.checks) + Counter(other.checks)),
            wrong=self.wrong + other.wrong,
        )
        for batches in (self.batches, other.batches):
            for rows, (calls, seconds) in batches.items():
                total._count_batch(rows, calls, seconds)
        return total


Records = Mapping[tuple[str, str], Statistics]
"""Counters by the name and the version of a model."""


def add_up(workers: Iterable[Records]) -> Records:
    """The sum over the workers, sorted by name and version."""
    total: dict[tuple[str, str], Statistics] = {}
    for records in workers:
        for key, record in records.items():
            total[key] = total[key] + record if key in total else record
    return dict(sorted(total.items(), key=lambda item: (item[0][0], int(item[0][1]))))


def triton_statistics(records: Records) -> list[dict[str, Any]]:
    """Triton's statistics of every version; durations in nanoseconds.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
    """
    return [
        {
            "name": name,
            "version": version,
            "last_inference": int(record.last * 1000),
            "inference_count": record.rows,
            "execution_count": record.runs.count,
            "inference_stats": {
                "success": _duration(record.requests.count, record.requests.sum),
                "fail": _duration(sum(record.refused.values())),
                "queue": _duration(record.queued.count, record.queued.sum),
                "compute_input": _duration(),
                "compute_infer": _duration(record.runs.count, record.runs.sum),
                "compute_output": _duration(),
            },
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": _duration(),
                    "compute_infer": _duration(calls, seconds),
                    "compute_output": _duration(),
                }
                for rows, (calls, seconds) in sorted(record.batches.items())
            ],
        }
        for (name, version), record in records.items()
    ]


def _duration(count: float = 0, seconds: float = 0.0) -> dict[str, int]:
    return {"count": int(count), "ns": round(seconds * 1_000_000_000)}
