"""Counters in Prometheus' text format, https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .gathered import Record, histogram
from .repository import Repository
from .statistics import LATENCIES, Histogram

_HISTOGRAMS = {
    "mlpx_request_seconds": ("requests", "From a request's arrival to its answer with tensors."),
    "mlpx_queue_seconds": ("queued", "From a request's arrival to the start of its call."),
    "mlpx_run_seconds": ("runs", "Calls of the model."),
}


def text(gathered: Iterable[Record], repository: Repository) -> str:
    """Everything that was counted by all workers, and what is loaded in this one."""
    records = list(gathered)
    return "\n".join([*_counters(records), *_histograms(records), *_gauges(records, repository)]) + "\n"


def _counters(records: list[Record]) -> Iterator[str]:
    yield from _head("mlpx_requests_total", "counter", "Requests, by the answer: OK, or the gRPC status of its error.")
    for one in records:
        yield _line("mlpx_requests_total", one, histogram(one["requests"]).count, code="OK")
        for code, count in sorted(one["refused"].items()):
            yield _line("mlpx_requests_total", one, count, code=code)
    yield from _head("mlpx_rows_total", "counter", "Rows that models computed.")
    for one in records:
        yield _line("mlpx_rows_total", one, one["rows"])


def _histograms(records: list[Record]) -> Iterator[str]:
    for name, (key, words) in _HISTOGRAMS.items():
        yield from _head(name, "histogram", words)
        for one in records:
            yield from _buckets(name, one, histogram(one[key]))


def _buckets(name: str, one: Record, held: Histogram) -> Iterator[str]:
    total = 0
    for end, count in zip([*LATENCIES, "+Inf"], held.counts, strict=True):
        total += count
        yield _line(f"{name}_bucket", one, total, le=str(end))
    yield _line(f"{name}_sum", one, held.sum)
    yield _line(f"{name}_count", one, total)


def _gauges(records: list[Record], repository: Repository) -> Iterator[str]:
    yield from _head("mlpx_waiting_rows", "gauge", "Rows that wait for a model.")
    for one in records:
        yield _line("mlpx_waiting_rows", one, one["waiting"])
    yield from _head("mlpx_model_proved", "gauge", "1 where a certificate proves the loaded bytes.")
    for served in repository.served():
        yield _line("mlpx_model_proved", {"name": served.name, "version": served.version}, int(served.proved))
    yield from _head("mlpx_ready", "gauge", "1 where every model can answer.")
    yield f"mlpx_ready {int(repository.ready)}"


def _head(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"


def _line(name: str, one: Record, value: float, **labels: str) -> str:
    # Names of models have no character that would want escaping (layout.py).
    pairs = {"model": one["name"], "version": one["version"], **labels}
    told = ",".join(f'{key}="{held}"' for key, held in pairs.items())
    return f"{name}{{{told}}} {value}"
