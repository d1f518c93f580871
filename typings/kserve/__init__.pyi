# The SDK of KServe 0.21: the names that export/targets/runners/kserve_model.py uses.
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import logging as logging
from . import model_server as model_server
from .model_server import ModelServer as ModelServer

class InferInput:
    name: str
    datatype: str
    shape: list[int]
    data: Any
    _raw_data: bytes | None

class RequestedOutput:
    name: str

class InferRequest:
    id: str | None
    inputs: list[InferInput]
    request_outputs: list[RequestedOutput] | None
    from_grpc: bool | None
    @property
    def use_binary_outputs(self) -> bool: ...

class InferOutput:
    def __init__(
        self, name: str, shape: list[int], datatype: str, data: list[Any] | np.ndarray | None = ...
    ) -> None: ...
    def set_data_from_numpy(self, output_tensor: np.ndarray, binary_data: bool = ...) -> None: ...

class InferResponse:
    def __init__(
        self,
        response_id: str,
        model_name: str,
        infer_outputs: Sequence[InferOutput],
        *,
        from_grpc: bool | None = ...,
        use_binary_outputs: bool | None = ...,
        requested_outputs: list[RequestedOutput] | None = ...,
    ) -> None: ...

class Model:
    name: str
    ready: bool
    def __init__(self, name: str) -> None: ...
    def load(self) -> bool: ...
    async def healthy(self) -> bool: ...
    def get_input_types(self) -> list[dict[str, Any]]: ...
    def get_output_types(self) -> list[dict[str, Any]]: ...
    # The server passes all of these by position.
    async def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = ...,
        response_headers: dict[str, str] | None = ...,
        /,
    ) -> dict[str, Any] | InferResponse: ...
