"""Traces of requests, sent to a stand-in for a collector, and what the option costs where it is not given."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from tests.support import ROOT
from tests.support.collector import Collector, Span, collecting
from tests.support.commands import Run
from tests.support.servers.running import free_ports
from tests.support.serving import Server, ask, model, rows, serving, until

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [0.5] * 8}]}
SERVER = 2
"""The kind of a span: https://github.com/open-telemetry/opentelemetry-proto, trace.proto."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("models") / "one.onnx").parent


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def server(folder: Path, collector: Collector) -> Iterator[Server]:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with serving(folder, "--otel", environment=variables) as running:
        yield running


def context(number: int, sampled: bool = True) -> tuple[str, str]:
    """A trace of its own, and its header."""
    trace = f"{number:032x}"
    return trace, f"00-{trace}-00000000000000ab-{int(sampled):02d}"


def over_rest(server: Server, header: str, *, wrong: bool = False, **headers: str) -> None:
    body = {"inputs": []} if wrong else BODY
    answer = ask(server.url, "POST", "/v2/models/one/infer", body, traceparent=header, **headers)
    assert answer.status == (400 if wrong else 200)


def over_asgi(server: Server, header: str, *, wrong: bool = False) -> None:
    """By way of the path that is not the fast one."""
    over_rest(server, header, wrong=wrong, origin=server.url)


def over_grpc(server: Server, header: str, *, wrong: bool = False) -> None:
    x = triton.InferInput("x", [2, 3 if wrong else 4], "FP32")
    x.set_data_from_numpy(rows(2, 3 if wrong else 4))
    with triton.InferenceServerClient(server.grpc) as client:
        try:
            client.infer("one", [x], headers={"traceparent": header})
            assert not wrong
        except InferenceServerException:
            assert wrong


WAYS: dict[str, Callable[..., None]] = {"REST": over_rest, "REST by ASGI": over_asgi, "gRPC": over_grpc}


def spans(collector: Collector, trace: str, count: int) -> dict[str, Span]:
    return until(lambda: len(found := collector.of(trace)) == count and found, f"{count} spans of {trace}")


@pytest.mark.parametrize(("number", "way"), [*enumerate(WAYS, 1)])
def test_a_request_is_a_span_of_the_clients_trace(server: Server, collector: Collector, number: int, way: str) -> None:
    trace, header = context(number)
    before = time.time_ns()
    WAYS[way](server, header)
    after = time.time_ns()
    found = spans(collector, trace, 3)
    infer, queue, run = found["infer"], found["queue"], found["run"]
    assert (infer.parent, infer.kind, infer.service) == ("00000000000000ab", SERVER, "mlpx")
    assert queue.parent == run.parent == infer.id
    slack = 1_000_000_000  # two clocks: one of a process of its own, and the time of day
    assert (
        before - slack <= infer.start <= queue.start <= queue.end == run.start <= run.end <= infer.end <= after + slack
    )
    assert infer.attributes == {
        "mlpx.model": "one",
        "mlpx.version": "1",
        "mlpx.proved": False,
        "mlpx.rows": 2,
        "mlpx.code": "OK",
        "network.protocol.name": "grpc" if way == "gRPC" else "http",
    }
    assert run.attributes == {"mlpx.batch.rows": 2}
    assert not infer.failed


@pytest.mark.parametrize(("number", "way"), [*enumerate(WAYS, 11)])
def test_a_refused_request_has_its_code(server: Server, collector: Collector, number: int, way: str) -> None:
    trace, header = context(number)
    WAYS[way](server, header, wrong=True)
    (span,) = spans(collector, trace, 1).values()
    assert span.attributes["mlpx.code"] == "INVALID_ARGUMENT"
    assert not span.failed  # the client's mistake, and no failure of the server's


def test_a_trace_that_is_not_sampled_has_no_spans(server: Server, collector: Collector) -> None:
    hidden, header = context(21, sampled=False)
    over_rest(server, header)
    shown, header = context(22)
    over_rest(server, header)
    spans(collector, shown, 3)  # which came later
    assert collector.of(hidden) == {}


def test_a_request_without_a_trace_begins_one(server: Server, collector: Collector) -> None:
    seen = {span.trace for span in collector.spans}
    assert ask(server.url, "POST", "/v2/models/one/infer", BODY).status == 200
    new = until(lambda: {span.trace for span in collector.spans} - seen, "another trace")
    (span,) = (span for span in collector.spans if span.trace in new and span.name == "infer")
    assert span.parent == ""


def test_a_collector_that_is_gone_disturbs_no_request(folder: Path) -> None:
    (port,) = free_ports(1)
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "20"}
    variables |= {"OTEL_SERVICE_NAME": "arm", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with serving(folder, "--otel", environment=variables) as server:
        for _ in range(3):
            over_rest(server, context(31)[1])
        until(
            lambda: [e for e in server.events("library") if e["logger"].startswith("opentelemetry")], "the log says so"
        )
        over_rest(server, context(32)[1])
        assert server.stop() == 0


def test_an_exporter_that_is_not_installed_is_an_error(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    done = run("serve", folder, "--otel", "--port", 0, "--grpc-port", 0)
    assert done.code == 2
    assert "OTEL_TRACES_EXPORTER=zipkin: no such exporter is installed; there are " in done.err
    assert "otlp_proto_http" in done.err


def test_without_the_package_the_install_line_is_said(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    done = run("serve", folder, "--otel", "--port", 0, "--grpc-port", 0)
    assert done.code == 3
    assert 'pip install "mlpx[otel]"' in done.err


def test_without_the_option_nothing_of_it_is_imported(folder: Path) -> None:
    code = f"""
import asyncio, json, sys
from pathlib import Path
import runtime.server.worker, runtime.server.supervisor
from runtime.server.grpc_methods import Methods
from runtime.server.logs import Log
from runtime.server.options import Options
from runtime.server.repository import Repository
from runtime.server.rest import Rest
async def serve():
    options = Options(Path({str(folder)!r}), device="cpu")
    repository = Repository(options, Log())
    await repository.refresh()
    Rest(repository, options, Log(), None), Methods(repository, None)
    repository.close()
asyncio.run(serve())
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry")]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
