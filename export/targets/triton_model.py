"""An ONNX file in Triton's Python backend, on the ONNX Runtime that is installed beside it.

config.pbtxt has the settings: names, threads, and whether requests may share a batch. All requests that Triton hands
over at once are one call of ONNX Runtime.
"""

# pyright: reportMissingModuleSource=false
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The model, with the methods that Triton's Python backend calls."""

    def initialize(self, args: "dict[str, str]") -> None:
        """Open the file. Raises TritonModelException: ONNX Runtime cannot use the GPU that config.pbtxt asks for."""
        config: dict[str, Any] = json.loads(args["model_config"])
        self.inputs: list[str] = [port["name"] for port in config["input"]]
        self.outputs: list[str] = [port["name"] for port in config["output"]]
        self.batches: bool = config["max_batch_size"] > 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(config["parameters"]["intra_op_thread_count"]["string_value"])
        options.inter_op_num_threads = 1
        provider = "CPUExecutionProvider"
        settings: dict[str, str] = {}
        if args["model_instance_kind"] == "GPU":
            provider = "CUDAExecutionProvider"
            settings = {"device_id": args["model_instance_device_id"], "use_tf32": "0"}
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), options, providers=[(provider, settings)])
        if provider not in self.session.get_providers():
            raise pb_utils.TritonModelException(f"ONNX Runtime cannot use the {provider} here, only the CPU's")

    def execute(self, requests: "list[pb_utils.InferenceRequest]") -> "list[pb_utils.InferenceResponse]":
        """An answer or an error for each request, in their order."""
        feeds = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        shared = self._run_batch(feeds) if self.batches and len(feeds) > 1 else None
        # One request, or an invalid one in the batch: each gets its own answer or its own error.
        results = [self._run_alone(feed) for feed in feeds] if shared is None else shared
        return [self._response(request, result) for request, result in zip(requests, results)]

    def finalize(self) -> None:
        """Free the session."""
        del self.session

    def _run(self, feed: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
        results = self.session.run(self.outputs, feed)
        return {name: np.asarray(values) for name, values in zip(self.outputs, results)}

    def _run_alone(self, feed: "dict[str, np.ndarray]") -> "dict[str, np.ndarray] | pb_utils.TritonError":
        try:
            return self._run(feed)
        except Exception as error:
            return pb_utils.TritonError(f"ONNX Runtime cannot run the request: {error}")

    def _run_batch(self, feeds: "list[dict[str, np.ndarray]]") -> "list[dict[str, np.ndarray]] | None":
        """Each feed's part of the outputs of one call; None where the feeds cannot share a call."""
        rows = [len(feed[self.inputs[0]]) for feed in feeds]
        ends = np.cumsum(rows)
        try:
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
            results = self._run(joined)
        except Exception:
            return None
        if any(len(values) != ends[-1] for values in (*joined.values(), *results.values())):
            return None
        return [{name: values[end - count : end] for name, values in results.items()} for count, end in zip(rows, ends)]

    def _response(
        self, request: "pb_utils.InferenceRequest", result: "dict[str, np.ndarray] | pb_utils.TritonError"
    ) -> "pb_utils.InferenceResponse":
        if isinstance(result, pb_utils.TritonError):
            return pb_utils.InferenceResponse(output_tensors=[], error=result)
        names = [name for name in self.outputs if name in request.requested_output_names()]
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, result[name]) for name in names])
