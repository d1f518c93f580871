"""The methods of the V2 protocol over gRPC, and of Triton's extensions: configuration, statistics, repository."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from runtime.extras import imported

from .dynamic_batching import Arrays
from .grpc_messages import encode_response, parse_request
from .handlers import server_metadata
from .http2 import Headers
from .loaded_model import LoadedModel
from .messages import InferRequest
from .refusals import NotAllowed, NotReady, Unknown
from .repository import Repository
from .statistics import triton_statistics
from .tracing import RequestTrace, tracing
from .worker_sync import WorkerSync

SERVICE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"
FREE = frozenset({"ServerLive", "ServerReady", "Check"})
"""Methods that need no token."""
PURPOSE = "serving over gRPC"


Method = Callable[[Any], Awaitable[Any]]
"""From a request message to the response message. Raises Refusal."""


@dataclass(slots=True)
class Begun:
    """A request that its model has."""

    model: LoadedModel
    inputs: InferRequest
    outputs: asyncio.Future[Arrays]
    start: float
    trace: RequestTrace | None

    def gone(self) -> None:
        """The client waits for no answer any more."""
        self.outputs.cancel()
        if self.trace is not None:
            self.trace.end(error=NotReady("the client has gone"))


class Methods:
    """Each method takes a request message and gives the response message, or raises a Refusal.

    Requests to infer have ``begin`` and ``response``, so that they need no task.
    """

    def __init__(self, repository: Repository, sync: WorkerSync):
        self._repository, self._sync = repository, sync
        self._tracing = tracing(repository.options)
        self.pb: Any = imported("tritonclient.grpc.service_pb2", PURPOSE)
        self._fill = imported("google.protobuf.json_format", PURPOSE).ParseDict

    def unary(self) -> dict[str, dict[str, tuple[Any, Method]]]:
        """By service and name, but for those that infer: the class of the request's message, and the method."""
        pb = self.pb
        inference: dict[str, tuple[Any, Method]] = {
            "ServerLive": (pb.ServerLiveRequest, self._server_live),
            "ServerReady": (pb.ServerReadyRequest, self._server_ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._model_statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._unload),
            "SystemSharedMemoryStatus": (pb.SystemSharedMemoryStatusRequest, self._regions),
            "SystemSharedMemoryRegister": (pb.SystemSharedMemoryRegisterRequest, self._register),
            "SystemSharedMemoryUnregister": (pb.SystemSharedMemoryUnregisterRequest, self._unregister),
        }
        return {SERVICE: inference, HEALTH: {"Check": (_HealthCheckRequest, self._check)}}

    def begin(self, request: Any, remaining: float | None, headers: Headers, start: float) -> Begun:
        """Give a ``ModelInferRequest`` that came at ``start`` to its model.

        The client's deadline counts as a timeout of the request. Raises Refusal.
        """
        if self._repository.stopping:
            raise NotReady("the server is shutting down")
        model = self._repository.find(request.model_name, request.model_version or None)
        trace = self._tracing and self._tracing.start(headers, model, start, "grpc")
        try:
            inputs = parse_request(request, model.signature, self._repository.regions)
            timeouts = [seconds for seconds in (inputs.timeout, remaining) if seconds is not None]
            called = None if trace is None else trace.called
            outputs = model.infer(inputs.feed, inputs.rows, min(timeouts, default=None), called)
        except Exception as error:  # counted, and raised again
            if trace is not None:
                trace.end(error=error)
            model.count_refusal(error)
            raise
        return Begun(model, inputs, outputs, start, trace)

    def response(self, begun: Begun) -> bytes:
        """The ``ModelInferResponse`` with the outputs of a request. Raises what they raise."""
        model, inputs, trace = begun.model, begun.inputs, begun.trace
        try:
            outputs = begun.outputs.result()
            response = encode_response(model.name, model.version, inputs, outputs, self._repository.regions)
        except Exception as error:  # counted, and raised again
            if trace is not None:
                trace.end(error=error)
            model.count_refusal(error)
            raise
        model.count_answer(begun.start)
        if trace is not None:
            trace.end(inputs.rows)
        return response

    async def _server_live(self, _request: Any) -> Any:
        return self.pb.ServerLiveResponse(live=True)

    async def _server_ready(self, _request: Any) -> Any:
        return self.pb.ServerReadyResponse(ready=self._repository.ready)

    async def _check(self, request: _HealthCheckRequest) -> _HealthCheckResponse:
        """The health protocol of gRPC itself, which Kubernetes' probes speak."""
        if request.name not in (b"", SERVICE.encode()):
            raise Unknown(f"no such service: the server's are '' and '{SERVICE}'")
        return _HealthCheckResponse(self._repository.ready)

    async def _model_ready(self, request: Any) -> Any:
        try:
            self._repository.require_ready(request.name, request.version or None)
        except (NotReady, Unknown):
            return self.pb.ModelReadyResponse(ready=False)
        return self.pb.ModelReadyResponse(ready=True)

    async def _server_metadata(self, _request: Any) -> Any:
        return self.pb.ServerMetadataResponse(**server_metadata(self._repository.options))

    async def _model_metadata(self, request: Any) -> Any:
        record = self._repository.metadata(request.name, request.version or None)
        del record["parameters"]  # the message has no field for them
        return self._fill(record, self.pb.ModelMetadataResponse())

    async def _model_config(self, request: Any) -> Any:
        return self._fill({"config": self._find(request).config()}, self.pb.ModelConfigResponse())

    async def _model_statistics(self, request: Any) -> Any:
        records = await self._sync.statistics(request.name or None, request.version or None)
        return self._fill({"model_stats": triton_statistics(records)}, self.pb.ModelStatisticsResponse())

    async def _index(self, request: Any) -> Any:
        _refuse_repository_name(request)
        models = self._repository.index(ready=request.ready)
        for model in models:
            del model["proved"]  # the message has no field for it
        return self._fill({"models": models}, self.pb.RepositoryIndexResponse())

    async def _load(self, request: Any) -> Any:
        _refuse_repository_name(request)
        await self._sync.control("load", request.model_name, request.parameters)
        return self.pb.RepositoryModelLoadResponse()

    async def _unload(self, request: Any) -> Any:
        _refuse_repository_name(request)
        await self._sync.control("unload", request.model_name, request.parameters)
        return self.pb.RepositoryModelUnloadResponse()

    async def _regions(self, request: Any) -> Any:
        found = {each["name"]: each for each in self._repository.regions.status(request.name or None)}
        return self._fill({"regions": found}, self.pb.SystemSharedMemoryStatusResponse())

    async def _register(self, request: Any) -> Any:
        await self._sync.register(request.name, request.key, request.offset, request.byte_size)
        return self.pb.SystemSharedMemoryRegisterResponse()

    async def _unregister(self, request: Any) -> Any:
        await self._sync.unregister(request.name or None)
        return self.pb.SystemSharedMemoryUnregisterResponse()

    def _find(self, request: Any) -> LoadedModel:
        return self._repository.find(request.name, request.version or None)


def _refuse_repository_name(request: Any) -> None:
    if request.repository_name:
        raise NotAllowed("this server does not read a repository_name: it has one folder")


class _HealthCheckRequest:
    """Of grpc.health.v1, which tritonclient does not contain: one string, field 1."""

    def __init__(self, name: bytes):
        self.name = name

    @classmethod
    def FromString(cls, content: bytes) -> _HealthCheckRequest:  # noqa: N802 - protobuf's name
        is_string = content[:1] == b"\n" and len(content) > 1 and content[1] == len(content) - 2
        return cls(content[2:] if is_string else content)


class _HealthCheckResponse:
    """One enumeration, field 1: 1 is SERVING, 2 NOT_SERVING."""

    def __init__(self, ready: bool):
        self._ready = ready

    def SerializeToString(self) -> bytes:  # noqa: N802
        return b"\x08\x01" if self._ready else b"\x08\x02"
