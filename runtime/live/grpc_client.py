"""A V2 client over gRPC."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from runtime.extras import imported

from .connection import Connection
from .protocol import ModelInfo, OutputTensor, Response, ServerError, ServerInfo, TensorInfo, encode

_STATUS = {
    **dict.fromkeys(("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION"), 400),
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""The HTTP status that a gRPC code corresponds to; 500 for any other."""
_CONTENTS = {
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}
"""The field that holds the values of a datatype where they do not travel as bytes."""
_CONNECT_FAILURES = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted", "name its authority's certificate with --ca-file"),
    ("WRONG_VERSION_NUMBER", "no TLS; perhaps it speaks plain grpc://", "give grpc://, or a port that speaks TLS"),
    ("Socket closed", "it closed the connection without an answer", "perhaps it speaks TLS: give grpcs://"),
)
"""Text in gRPC's details, what it means, and what to do."""


class GrpcClient:
    """One channel. A request is given up when the timeout is over.

    Raises InputError: the CA file cannot be read; MissingPackageError: grpc, or tritonclient, which holds the
    protocol's messages, is not installed.
    """

    def __init__(self, connection: Connection):
        purpose = "asking a server over gRPC"
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # failed handshakes come back as errors anyway
        self._grpc = imported("grpc", purpose)
        self._messages = imported("tritonclient.grpc.service_pb2", purpose)
        stub = imported("tritonclient.grpc.service_pb2_grpc", purpose).GRPCInferenceServiceStub
        options = [
            ("grpc.max_receive_message_length", connection.max_response),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),  # otherwise all channels of a process share one connection
            ("grpc.enable_http_proxy", 0),
        ]
        self._model, self._timeout = connection.address.model, connection.timeout
        self._metadata = [("authorization", f"Bearer {connection.token}")] if connection.token else []
        authority = connection.address.authority
        if connection.address.encrypted:
            credentials = self._grpc.ssl_channel_credentials(connection.ca_certificates())
            self._channel = self._grpc.secure_channel(authority, credentials, options)
        else:
            self._channel = self._grpc.insecure_channel(authority, options)
        self._stub = stub(self._channel)

    def server_info(self) -> ServerInfo:
        """The server's metadata."""
        response = self._call(self._stub.ServerMetadata, self._messages.ServerMetadataRequest())
        return ServerInfo(response.name, response.version, tuple(response.extensions))

    def model_info(self, version: str | None) -> ModelInfo:
        """The metadata of a version of the model; None: of the one that the server chooses."""
        request = self._messages.ModelMetadataRequest(name=self._model, version=version or "")
        response = self._call(self._stub.ModelMetadata, request)
        inputs, outputs = (
            tuple(TensorInfo(row.name, row.datatype, tuple(row.shape)) for row in rows)
            for rows in (response.inputs, response.outputs)
        )
        return ModelInfo(tuple(response.versions), inputs, outputs)

    def model_names(self) -> list[str]:
        """All models of the server, by its repository index."""
        response = self._call(self._stub.RepositoryIndex, self._messages.RepositoryIndexRequest())
        return [model.name for model in response.models]

    def infer(self, inputs: Mapping[str, np.ndarray], request_id: str, version: str | None, binary: bool) -> Response:
        """Send rows (rows, ...) by input name."""
        del binary  # tensors are always bytes over gRPC
        request = self._messages.ModelInferRequest(model_name=self._model, model_version=version or "", id=request_id)
        for name, values in inputs.items():
            datatype, encoded = encode(values)
            request.inputs.add(name=name, datatype=datatype, shape=list(values.shape))
            request.raw_input_contents.append(encoded)
        response = self._call(self._stub.ModelInfer, request)
        raw, outputs = list(response.raw_output_contents), dict[str, OutputTensor]()
        if raw and len(raw) != len(response.outputs):
            raise ServerError(f"{len(response.outputs)} outputs with the bytes of {len(raw)}")
        for index, row in enumerate(response.outputs):
            field = _CONTENTS.get(row.datatype)
            data = raw[index] if raw else list(getattr(row.contents, field)) if field is not None else []
            outputs[row.name] = OutputTensor.decode(row.name, row.datatype, list(row.shape), data)
        return Response(outputs, response.model_version, response.id)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except self._grpc.RpcError as error:
            code, details = error.code().name, str(error.details() or "").strip()[:300]
            status = _STATUS.get(code, 500)
            if status == 504:
                details = f"no complete answer within {self._timeout:g} s"
            for text, meaning, hint in _CONNECT_FAILURES:
                if status == 503 and text in details:
                    raise ServerError(meaning, status, unreachable=True, hint=hint) from None
            raise ServerError(f"{code}: {details}", status, unreachable=status == 503) from None
