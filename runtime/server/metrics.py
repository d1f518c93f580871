"""The counters of a server in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.prometheus import head, line

from .repository import Repository
from .statistics import LATENCIES, NOT_ASKED, Histogram, Records

_HISTOGRAMS = {
    "mlpx_request_seconds": ("requests", "From a request's arrival to its answer with tensors."),
    "mlpx_queue_seconds": ("queued", "From a request's arrival to the start of its call."),
    "mlpx_run_seconds": ("runs", "Calls of the model."),
}


def format_metrics(records: Records, repository: Repository) -> str:
    """The counters of all workers, and which models are loaded in this one."""
    return "\n".join([*_counters(records), *_histograms(records), *_gauges(records, repository)]) + "\n"


def _counters(records: Records) -> Iterator[str]:
    yield from head("mlpx_requests_total", "counter", "Requests, by the answer: OK, or the gRPC status of its error.")
    for key, record in records.items():
        yield _line("mlpx_requests_total", key, record.requests.count, code="OK")
        for code, count in sorted(record.refused.items()):
            yield _line("mlpx_requests_total", key, count, code=code)
    yield from head("mlpx_rows_total", "counter", "Rows that models computed.")
    for key, record in records.items():
        yield _line("mlpx_rows_total", key, record.rows)
    yield from head("mlpx_self_checks_total", "counter", "Checks by the rows of the certificate, by how they ended.")
    for key, record in records.items():
        for result, count in sorted(record.checks.items()):
            yield _line("mlpx_self_checks_total", key, count, result=result)


def _histograms(records: Records) -> Iterator[str]:
    for name, (attribute, description) in _HISTOGRAMS.items():
        yield from head(name, "histogram", description)
        for key, record in records.items():
            yield from _buckets(name, key, getattr(record, attribute))


def _buckets(name: str, key: tuple[str, str], histogram: Histogram) -> Iterator[str]:
    total = 0
    for end, count in zip([*LATENCIES, "+Inf"], histogram.counts, strict=True):
        total += count
        yield _line(f"{name}_bucket", key, total, le=str(end))
    yield _line(f"{name}_sum", key, histogram.sum)
    yield _line(f"{name}_count", key, total)


def _gauges(records: Records, repository: Repository) -> Iterator[str]:
    yield from head("mlpx_waiting_rows", "gauge", "Rows that wait for a model.")
    for key, record in records.items():
        yield _line("mlpx_waiting_rows", key, record.waiting)
    yield from head("mlpx_model_proved", "gauge", "1 where a certificate proves the loaded bytes.")
    for model in repository.loaded_models():
        yield _line("mlpx_model_proved", (model.name, model.version), int(model.proved))
    yield from head("mlpx_model_right", "gauge", "1 where the answers to the certificate's rows are those proved.")
    for key, record in records.items():
        if record.checks.keys() - {NOT_ASKED}:
            yield _line("mlpx_model_right", key, int(not record.wrong))
    yield from head("mlpx_ready", "gauge", "1 where every model can answer, and none is known to be wrong.")
    yield line("mlpx_ready", int(repository.ready))


def _line(name: str, key: tuple[str, str], value: float, **labels: str) -> str:
    # Names of models have no character that would need escaping (layout.py).
    return line(name, value, model=key[0], version=key[1], **labels)
