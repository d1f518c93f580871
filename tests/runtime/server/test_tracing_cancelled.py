"""A call over gRPC that its client gives up: the model is asked for nothing any more, and its span ends once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from runtime.server import grpc_methods
from runtime.server.grpc_server import start
from runtime.server.loaded_model import LoadedModel
from runtime.server.logs import Log
from runtime.server.options import Options
from runtime.server.repository import Repository
from runtime.server.tracing import Tracing
from tests.support.collector import collecting
from tests.support.servers.running import free_ports
from tests.support.serving import PATIENCE, model

pb: Any = service_pb2
SERVICE = "/inference.GRPCInferenceService"
TRACE = f"{7:032x}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("models") / "one.onnx").parent


def request() -> Any:
    x = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    content = np.ones(4, "<f4").tobytes()
    return pb.ModelInferRequest(model_name="one", inputs=[x], raw_input_contents=[content])


def begin(channel: Any, kind: str) -> Any:
    """A call with one request."""
    metadata = [("traceparent", f"00-{TRACE}-00000000000000ab-01")]
    write = pb.ModelInferRequest.SerializeToString
    if kind == "one request":
        read = pb.ModelInferResponse.FromString
        return channel.unary_unary(f"{SERVICE}/ModelInfer", write, read)(request(), metadata=metadata)
    read = pb.ModelStreamInferResponse.FromString

    async def requests() -> Any:
        yield request()
        await asyncio.Event().wait()

    return channel.stream_stream(f"{SERVICE}/ModelStreamInfer", write, read)(requests(), metadata=metadata)


@pytest.mark.parametrize("end", ["the call is cancelled", "the connection ends"])
@pytest.mark.parametrize("kind", ["one request", "a stream"])
def test_a_call_that_is_given_up_ends_its_span_once(
    kind: str, end: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        asked: asyncio.Future[asyncio.Future[Any]] = asyncio.get_running_loop().create_future()

        def infer(*_: Any) -> asyncio.Future[Any]:
            asked.set_result(outputs := asyncio.get_running_loop().create_future())
            return outputs

        repository = Repository(options := Options(folder, device="cpu"), Log())
        await repository.refresh()
        monkeypatch.setattr(LoadedModel, "infer", infer)
        (port,) = free_ports(1)
        sync: Any = None
        server = await start(repository, options, Log(), sync, port)
        async with asyncio.timeout(PATIENCE), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = begin(channel, kind)
            reading = asyncio.ensure_future(call.read() if kind == "a stream" else call.wait_for_connection())
            outputs = await asked
            if end == "the call is cancelled":
                call.cancel()
            else:
                await channel.close()
            await asyncio.wait({outputs})
            reading.cancel()
        assert outputs.cancelled()
        await server.stop(0)
        repository.close()

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        traces = Tracing()
        monkeypatch.setattr(grpc_methods, "tracing", lambda _: traces)
        asyncio.run(run())
        traces.close()
        (span,) = collector.spans
    assert (span.name, span.trace, span.attributes["mlpx.code"]) == ("infer", TRACE, "UNAVAILABLE")
