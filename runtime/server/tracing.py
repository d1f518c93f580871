"""Traces of requests by OpenTelemetry: with ``--otel`` each infer request is a span, its wait and its call two more.

A request belongs to the client's trace where it brings one (W3C's ``traceparent``, or what OTEL_PROPAGATORS names).
Where spans go, and which, is said by the standard variables: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER and so on. Without the option nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

from runtime.errors import InputError
from runtime.extras import imported
from runtime.version import VERSION

from .refusals import Defect, Refusal

if TYPE_CHECKING:
    from .loaded_model import LoadedModel
    from .options import Options

PURPOSE = "mlpx serve --otel"
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""The exporter of each OTEL_EXPORTER_OTLP_PROTOCOL."""
_OK = "OK"


class RequestTrace:
    """The spans of one request."""

    __slots__ = ("_context", "_span", "_start", "_tracing")

    def __init__(self, tracing: Tracing, span: Any, context: Any, start: float):
        self._tracing, self._span, self._context, self._start = tracing, span, context, start

    def called(self, start: float, end: float, rows: int) -> None:
        """The model was called from ``start`` to ``end`` (``perf_counter``), with so many rows of all requests."""
        self._tracing.record("queue", self._context, self._start, start)
        self._tracing.record("run", self._context, start, end, {"mlpx.batch.rows": rows})

    def end(self, rows: int | None = None, error: Exception | None = None) -> None:
        """The request was answered, for so many rows or with an error."""
        if rows is not None:
            self._span.set_attribute("mlpx.rows", rows)
        refusal = error if error is None or isinstance(error, Refusal) else Defect("")
        self._span.set_attribute("mlpx.code", _OK if refusal is None else refusal.code)
        if refusal is not None and refusal.status >= 500:
            self._span.set_status(self._tracing.failed)
        self._span.end(self._tracing.nanoseconds(perf_counter()))


class Tracing:
    """Starts the traces of a process, and sends their spans."""

    def __init__(self):
        """Raises MissingPackageError; InputError: OTEL_TRACES_EXPORTER names what is not installed."""
        sdk = imported("opentelemetry.sdk.trace", PURPOSE)
        export = imported("opentelemetry.sdk.trace.export", PURPOSE)
        self._api: Any = imported("opentelemetry.trace", PURPOSE)
        self._propagate: Any = imported("opentelemetry.propagate", PURPOSE)
        self._provider: Any = sdk.TracerProvider(resource=_resource())
        for exporter in exporters():
            self._provider.add_span_processor(export.BatchSpanProcessor(exporter()))
        self._tracer: Any = self._provider.get_tracer("mlpx", VERSION)
        self._epoch = time_ns() - round(perf_counter() * 1e9)
        self.failed: Any = self._api.StatusCode.ERROR
        """The status of a span whose request failed for a reason of the server's."""

    def start(self, headers: Mapping[Any, Any], model: LoadedModel, start: float, protocol: str) -> RequestTrace | None:
        """The trace of a request that came at ``start`` (``perf_counter``); None where it is not sampled.

        ``headers`` are those of HTTP, or the metadata of gRPC: texts, or bytes, in small letters.
        """
        parent = self._propagate.extract({_text(name): _text(value) for name, value in headers.items()})
        attributes = {
            "mlpx.model": model.name,
            "mlpx.version": model.version,
            "mlpx.proved": model.proved,
            "network.protocol.name": protocol,
        }
        kind, began = self._api.SpanKind.SERVER, self.nanoseconds(start)
        span = self._tracer.start_span("infer", parent, kind, attributes, start_time=began)
        if not span.is_recording():
            return None
        return RequestTrace(self, span, self._api.set_span_in_context(span, parent), start)

    def record(
        self, name: str, context: Any, start: float, end: float, attributes: Mapping[str, int] | None = None
    ) -> None:
        """A span between two times (``perf_counter``) that are past."""
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=self.nanoseconds(start))
        span.end(self.nanoseconds(end))

    def nanoseconds(self, moment: float) -> int:
        """A time (``perf_counter``) as nanoseconds since 1970."""
        return self._epoch + round(moment * 1e9)

    def close(self) -> None:
        """Send what is left. Blocks."""
        self._provider.shutdown()


def tracing(options: Options) -> Tracing | None:
    """The process's only one; None without the option. Raises as ``Tracing`` does."""
    return _tracing() if options.otel else None


_tracing = cache(Tracing)


def _resource() -> Any:
    """What spans say of this process: "mlpx", unless the standard variables name the service."""
    resources = imported("opentelemetry.sdk.resources", PURPOSE)
    known = resources.Resource.create()
    own = {} if "service.version" in known.attributes else {"service.version": VERSION}
    if str(known.attributes.get("service.name", "")).startswith("unknown_service"):
        own["service.name"] = "mlpx"
    return known.merge(resources.Resource(own))


def exporters() -> list[Any]:
    """The classes that OTEL_TRACES_EXPORTER names. Raises MissingPackageError; InputError: one is not installed."""
    imported("opentelemetry.sdk", PURPOSE)
    found = {entry.name: entry for entry in entry_points(group="opentelemetry_traces_exporter")}
    classes: list[Any] = []
    for name in filter(None, map(str.strip, os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","))):
        if name == "none":
            continue
        protocol = os.environ.get(
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        )
        entry = found.get(_PROTOCOLS.get(protocol, protocol) if name == "otlp" else name)
        if entry is None:
            asked = f"OTEL_TRACES_EXPORTER={name}" + (f" with the protocol {protocol}" if name == "otlp" else "")
            hint = "install it (the package opentelemetry-exporter-…), or set OTEL_TRACES_EXPORTER to another"
            raise InputError(
                f"{asked}: no such exporter is installed; there are {', '.join(found)}. What to do: {hint}"
            )
        classes.append(entry.load())
    return classes


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
