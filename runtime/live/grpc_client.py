"""A V2 server over gRPC."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.extras import imported

from .protocol import Fault, ModelInfo, Output, Question, Reply, ServerInfo, TensorInfo
from .tensors import DTYPES, datatype_of, from_bytes, from_list, shape_of
from .url import Address

_STATUS = {
    400: ("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION"),
    401: ("UNAUTHENTICATED",),
    403: ("PERMISSION_DENIED",),
    404: ("NOT_FOUND",),
    429: ("RESOURCE_EXHAUSTED",),
    501: ("UNIMPLEMENTED",),
    503: ("UNAVAILABLE",),
    504: ("DEADLINE_EXCEEDED",),
}
"""The gRPC codes that stand for a status of HTTP; any other is 500."""
_CONTENTS = {
    "fp32_contents": ("FP32",),
    "fp64_contents": ("FP64",),
    "int64_contents": ("INT64",),
    "uint64_contents": ("UINT64",),
    "int_contents": ("INT8", "INT16", "INT32"),
    "uint_contents": ("UINT8", "UINT16", "UINT32"),
}
"""Where values lie that do not come as bytes, by datatype."""
_TLS = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted", "name its authority's certificate with --ca-file"),
    ("WRONG_VERSION_NUMBER", "no TLS, as if it were grpc://", "give grpc://, or a port that speaks TLS"),
    ("Socket closed", "it closed the connection without an answer", "perhaps it speaks TLS: give grpcs://"),
)
"""What gRPC's details hold where TLS fails, in words, and what to do."""


class GrpcClient:
    """One channel of its own; a request that takes ``timeout`` seconds is given up.

    Raises MissingPackageError: grpc or tritonclient, which holds the protocol's messages, is not installed.
    """

    def __init__(self, address: Address, timeout: float, token: str | None, authority: bytes | None, most: int):
        purpose = "asking a server over gRPC"
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # failed handshakes come back as errors anyway
        self._grpc = imported("grpc", purpose)
        self._pb = imported("tritonclient.grpc.service_pb2", purpose)
        stub = imported("tritonclient.grpc.service_pb2_grpc", purpose).GRPCInferenceServiceStub
        options = [
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),  # else all channels of a process share a connection
            ("grpc.enable_http_proxy", 0),
        ]
        self._address, self._timeout = address, timeout
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._channel = (
            self._grpc.secure_channel(address.authority, self._grpc.ssl_channel_credentials(authority), options)
            if address.encrypted
            else self._grpc.insecure_channel(address.authority, options)
        )
        self._stub = stub(self._channel)

    def server(self) -> ServerInfo:
        found = self._call(self._stub.ServerMetadata, self._pb.ServerMetadataRequest())
        return ServerInfo(found.name, found.version, tuple(found.extensions))

    def model(self, version: str | None) -> ModelInfo:
        request = self._pb.ModelMetadataRequest(name=self._address.model, version=version or "")
        found = self._call(self._stub.ModelMetadata, request)

        def infos(rows: Any) -> tuple[TensorInfo, ...]:
            return tuple(TensorInfo(row.name, row.datatype, tuple(row.shape)) for row in rows)

        return ModelInfo(tuple(found.versions), found.platform, infos(found.inputs), infos(found.outputs))

    def models(self) -> list[str]:
        found = self._call(self._stub.RepositoryIndex, self._pb.RepositoryIndexRequest())
        return [row.name for row in found.models]

    def infer(self, question: Question) -> Reply:
        request = self._pb.ModelInferRequest(
            model_name=self._address.model, model_version=question.version or "", id=question.request
        )
        for name, rows in question.inputs.items():
            kind = datatype_of(rows)
            request.inputs.add(name=name, datatype=kind, shape=list(rows.shape))
            request.raw_input_contents.append(np.ascontiguousarray(rows, DTYPES[kind]).tobytes())
        found = self._call(self._stub.ModelInfer, request)
        raw, outputs = list(found.raw_output_contents), dict[str, Output]()
        if raw and len(raw) != len(found.outputs):
            raise Fault(f"{len(found.outputs)} outputs with the bytes of {len(raw)}")
        for index, row in enumerate(found.outputs):
            shape = shape_of(list(row.shape), row.name)
            if raw:
                outputs[row.name] = from_bytes(row.name, row.datatype, shape, raw[index])
            else:
                held = next((key for key, kinds in _CONTENTS.items() if row.datatype in kinds), None)
                values = [] if held is None else list(getattr(row.contents, held))
                outputs[row.name] = from_list(row.name, row.datatype, shape, values)
        return Reply(outputs, found.model_version, found.id)

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except self._grpc.RpcError as error:
            code, details = error.code().name, str(error.details() or "").strip()
            words = "".join(c if c.isprintable() else " " for c in details)[:300]
            status = next((status for status, codes in _STATUS.items() if code in codes), 500)
            if status == 504:
                words = f"no whole answer within {self._timeout:g} s"
            said = next((row for row in _TLS if status == 503 and row[0] in words), None)
            if said is not None:
                raise Fault(said[1], status, where="way", hint=said[2]) from None
            raise Fault(f"{code}: {words}", status, where="way" if status == 503 else "answer") from None
