"""A client for ``mlflow models serve``, whose protocol is its own: one model, one path, tensors as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from runtime.json_types import Json

from .connection import Connection
from .protocol import ModelInfo, OutputTensor, Response, ServerError, ServerInfo
from .rest_client import RestClient

_JSON = {"Content-Type": "application/json"}


class MlflowClient(RestClient):
    """One connection to a server of MLflow, which tells nothing of its model. Raises InputError, as ``RestClient``."""

    def __init__(self, connection: Connection):
        super().__init__(connection)
        self._prefix, self._most_bytes = connection.address.prefix, connection.max_response

    def server_info(self) -> ServerInfo:
        """The version of MLflow."""
        _, body = self.request("GET", f"{self._prefix}/version", None, {})
        return ServerInfo("MLflow", body[:40].decode("utf-8", "replace").strip())

    def model_info(self, version: str | None) -> ModelInfo:
        """Nothing: the protocol has no metadata."""
        del version
        return ModelInfo()

    def model_names(self) -> list[str]:
        """Nothing: the model has no name."""
        return []

    def infer(self, inputs: Mapping[str, np.ndarray], request_id: str, version: str | None, binary: bool) -> Response:
        """Send rows (rows, ...) by input name, as JSON."""
        del request_id, version, binary
        body = json.dumps({"inputs": {name: values.tolist() for name, values in inputs.items()}}).encode()
        _, answer = self.request("POST", f"{self._prefix}/invocations", body, _JSON, self._most_bytes)
        try:
            record: Json = json.loads(answer)
        except (ValueError, RecursionError):
            raise ServerError(f"what came is not JSON: {answer[:60].decode('utf-8', 'replace')!r}") from None
        outputs: Json = record.get("predictions") if isinstance(record, dict) else None
        if not isinstance(outputs, dict):
            raise ServerError("an answer without 'predictions' by the names of the outputs")
        return Response({str(name): _tensor(str(name), values) for name, values in outputs.items()})


def _tensor(name: str, values: Json) -> OutputTensor:
    """From nested lists of numbers, where null becomes NaN. Raises ServerError: anything else."""
    try:
        array = np.array(values, np.float64)
    except (OverflowError, RecursionError, TypeError, ValueError):
        raise ServerError(f"'{name}' is no array of numbers: {str(values)[:40]!r}") from None
    return OutputTensor("FP32", array.shape, array)
