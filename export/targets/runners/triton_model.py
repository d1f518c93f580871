"""An ONNX file in Triton's Python backend, on the ONNX Runtime that is installed beside it.

config.pbtxt has the settings: names, threads, and whether requests may share a batch. All requests that Triton hands
over at once are one call of ONNX Runtime. A thread asks for the rows of the certificate in the same way, again and
again: while the answers are not those that were proved, every request gets an error.
"""

# pyright: reportMissingModuleSource=false
import json
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

from .proved import Proved


class TritonPythonModel:
    """The model, with the methods that Triton's Python backend calls."""

    def initialize(self, args: "dict[str, str]") -> None:
        """Open the file, and check it.

        Raises TritonModelException, so that the model is not loaded: ONNX Runtime cannot use the GPU that config.pbtxt
        asks for, or its answers are not those that were proved.
        """
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
        batch = None if self.batches else config["input"][0]["dims"][0]
        self.proved, self.turns = Proved(file, batch, config["max_batch_size"]), count()
        self.fault, self.ended = "", threading.Event()
        every = float(config["parameters"]["verify_every"]["string_value"])
        self.metrics = _metrics() if every else None  # a metric ends with its family
        labels = {"model": args["model_name"], "instance": args["model_instance_name"]}
        self.metric = None if self.metrics is None else self.metrics.Metric(labels)
        if every:
            self._verify()
            if self.fault:
                raise pb_utils.TritonModelException(f"it does not compute here what was proved: {self.fault}")
            threading.Thread(target=self._keep_verifying, args=(every,), daemon=True).start()

    def execute(self, requests: "list[pb_utils.InferenceRequest]") -> "list[pb_utils.InferenceResponse]":
        """An answer or an error for each request, in their order."""
        if self.fault:
            error = pb_utils.TritonError(f"the model does not compute here what was proved: {self.fault}")
            return [pb_utils.InferenceResponse(output_tensors=[], error=error) for _ in requests]
        feeds = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        return [self._response(request, result) for request, result in zip(requests, self._results(feeds))]

    def is_ready(self) -> bool:
        """The readiness of the model; releases of Triton from 2026 on ask for it."""
        return not self.fault

    def finalize(self) -> None:
        """Check no more."""
        self.ended.set()

    def _keep_verifying(self, every: float) -> None:
        while not self.ended.wait(every):
            self._verify()

    def _verify(self) -> None:
        """Ask for the rows of the certificate; the log and the metric say what came of it."""
        try:
            asked: list[tuple[np.ndarray, Any]] = []
            for requests in self.proved.requests(next(self.turns)):
                results = self._results([self.proved.feed(rows) for rows in requests])
                if errors := [result for result in results if isinstance(result, pb_utils.TritonError)]:
                    raise RuntimeError(errors[0].message())
                asked += zip(requests, results)
            fault = self.proved.fault(asked)
        except Exception as error:  # whatever ONNX Runtime raises, the model is wrong
            fault = f"no answer to the rows of the certificate: {type(error).__name__}: {error}"
        if self.metric is not None:
            self.metric.set(int(not fault))
        before, self.fault = self.fault, fault
        if fault and not before:
            _log(f"the model does not compute here what was proved: {fault}")
        elif before and not fault:
            _log("the model computes what was proved again")

    def _results(self, feeds: "list[dict[str, np.ndarray]]") -> "list[dict[str, np.ndarray] | pb_utils.TritonError]":
        shared = self._run_batch(feeds) if self.batches and len(feeds) > 1 else None
        # One request, or an invalid one in the batch: each gets its own answer or its own error.
        return [self._run_alone(feed) for feed in feeds] if shared is None else list(shared)

    def _run(self, feed: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
        results = self.session.run(self.outputs, feed)
        return {name: np.asarray(values) for name, values in zip(self.outputs, results)}

    def _run_alone(self, feed: "dict[str, np.ndarray]") -> "dict[str, np.ndarray] | pb_utils.TritonError":
        try:
            return self._run(feed)
        except Exception as error:  # ONNX Runtime raises classes of its own
            return pb_utils.TritonError(f"ONNX Runtime cannot run the request: {error}")

    def _run_batch(self, feeds: "list[dict[str, np.ndarray]]") -> "list[dict[str, np.ndarray]] | None":
        """Each feed's part of the outputs of one call; None where the feeds cannot share a call."""
        rows = [len(feed[self.inputs[0]]) for feed in feeds]
        ends = np.cumsum(rows)
        try:
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
            results = self._run(joined)
        except Exception:  # the requests are run one by one then, and say it
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


def _log(message: str) -> None:
    """Into Triton's log, or, in releases without a logger for models, to standard error."""
    logger = getattr(pb_utils, "Logger", None)
    print(f"mlpx: {message}", file=sys.stderr) if logger is None else logger.log_warn(message)


def _metrics() -> "pb_utils.MetricFamily | None":
    """A family of gauges among Triton's metrics; None where the release has none for models, or metrics are off."""
    try:
        description = "1 where the answers to the certificate's rows are those proved."
        return pb_utils.MetricFamily("mlpx_model_right", description, pb_utils.MetricFamily.GAUGE)
    except Exception:  # pb_utils raises classes of its own, by release
        return None
