"""Requests of the V2 protocol made of a certificate's rows, each with the answer that is right for it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from runtime import Certificate

Arrays = Mapping[str, np.ndarray]
HEAD = "Inference-Header-Content-Length"
_GRPC_PREFIX = struct.Struct(">BI")


@dataclass(frozen=True)
class Body:
    """A request for some rows of a model."""

    model: str
    inputs: Arrays
    exact: Arrays
    bound: Arrays

    @cached_property
    def json(self) -> bytes:
        """As numpy's ``tolist`` and Python's json give it, which is what clients send."""
        inputs = [{**entry, "data": self.inputs[entry["name"]].reshape(-1).tolist()} for entry in self._entries()]
        return json.dumps({"inputs": inputs}).encode()

    @cached_property
    def binary(self) -> tuple[int, bytes]:
        """The length of the JSON, and the body: JSON and bytes after it. The answer is asked for in bytes too."""
        sizes = {name: values.nbytes for name, values in self.inputs.items()}
        inputs = [{**e, "parameters": {"binary_data_size": sizes[e["name"]]}} for e in self._entries()]
        outputs = [{"name": name, "parameters": {"binary_data": True}} for name in self.exact]
        head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
        return len(head), b"".join([head, *(values.astype("<f4").tobytes() for values in self.inputs.values())])

    @cached_property
    def grpc(self) -> bytes:
        """A ``ModelInferRequest`` as it goes over the wire: not compressed, its length, the message."""
        from tritonclient.grpc import service_pb2

        request: Any = service_pb2.ModelInferRequest(  # pyright: ignore[reportAttributeAccessIssue]
            model_name=self.model,
            inputs=[{"name": e["name"], "datatype": e["datatype"], "shape": e["shape"]} for e in self._entries()],
            raw_input_contents=[values.astype("<f4").tobytes() for values in self.inputs.values()],
        )
        message = request.SerializeToString()
        return _GRPC_PREFIX.pack(0, len(message)) + message

    def _entries(self) -> list[dict[str, Any]]:
        return [{"name": n, "shape": list(v.shape), "datatype": "FP32"} for n, v in self.inputs.items()]

    def why_wrong(self, outputs: Arrays) -> str | None:
        """What is beyond the proved bound in an answer; None where all of it is right."""
        for name, exact in self.exact.items():
            if name not in outputs or outputs[name].shape != exact.shape:
                shapes = {key: values.shape for key, values in outputs.items()}
                return f"{name} of shape {exact.shape} was expected, and {shapes} came"
            apart = np.abs(outputs[name].astype(np.float64) - exact)
            if not (apart <= self.bound[name]).all():  # NaN is wrong too
                return f"{name} is up to {np.max(apart):.3g} from the exact answer, beyond the proved bound"
        return None


def bodies(certificate: Certificate, model: str, batch: int) -> list[Body]:
    """Requests of ``batch`` rows, one beginning at each row of the certificate's answers, which repeat."""
    answers = certificate.answers
    assert answers is not None, certificate.why
    requests = []
    for first in range(answers.rows):
        at = (first + np.arange(batch)) % answers.rows
        sides = (answers.inputs, answers.exact, answers.bound)
        parts = [{n: np.ascontiguousarray(v[at]) for n, v in side.items()} for side in sides]
        requests.append(Body(model, *parts))
    return requests


def _json_outputs(record: Mapping[str, Any], rest: bytes) -> dict[str, np.ndarray]:
    """The outputs of an answer over REST, float32, from its JSON and the bytes after it."""
    outputs, at = {}, 0
    for entry in record["outputs"]:
        size = (entry.get("parameters") or {}).get("binary_data_size")
        values = np.asarray(entry["data"]) if size is None else np.frombuffer(rest[at : at + size], "<f4")
        at += size or 0
        outputs[entry["name"]] = values.astype(np.float32).reshape(entry["shape"])
    return outputs


def outputs_of(body: bytes, head: int | None) -> dict[str, np.ndarray]:
    """The outputs of an answer over REST; ``head`` is its ``Inference-Header-Content-Length``."""
    return _json_outputs(json.loads(body[:head]), b"" if head is None else body[head:])


def grpc_outputs(response: Any) -> dict[str, np.ndarray]:
    """The outputs of a ``ModelInferResponse``."""
    outputs = {}
    for i, output in enumerate(response.outputs):
        raw = response.raw_output_contents
        values = np.frombuffer(raw[i], "<f4") if raw else np.array(output.contents.fp32_contents, np.float32)
        outputs[output.name] = values.reshape(list(output.shape))
    return outputs


Encoded = Callable[[Body], tuple[dict[str, str], bytes]]


def as_json(body: Body) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request in JSON."""
    return {"Content-Type": "application/json"}, body.json


def as_binary(body: Body) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request in the binary tensor extension."""
    head, content = body.binary
    return {"Content-Type": "application/octet-stream", HEAD: str(head)}, content


REST: dict[str, Encoded] = {"JSON": as_json, "binary": as_binary}
