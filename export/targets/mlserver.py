"""MLServer: a model folder, and the ONNX runtime that MLServer does not have of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence

from export.errors import TargetError

from .target import Deployment, Files, Target, installed


def model_folder(deployment: Deployment, *, host: str) -> Files:
    """The folder that ``mlserver start`` takes; the server listens on ``host``. Raises TargetError: several copies."""
    if deployment.instances > 1:
        message = f"MLServer's package runs one copy of the model, not {deployment.instances}"
        raise TargetError(f"{message}. What to do: leave --instances out, and start the server once per copy")
    model = {
        "name": deployment.name,
        "implementation": "mlserver_runtime.OnnxRuntime",
        "platform": "onnx_onnxv1",
        "versions": ["1"],
        "parameters": {"uri": "./model.onnx", "version": "1", "extra": deployment.runner_settings},
    }
    # Workers of MLServer's own cost more than a small network does: every request is pickled twice.
    server = {
        "host": host,
        "http_port": 8080,
        "grpc_port": 8081,
        "metrics_port": 8082,
        "parallel_workers": 0,
        "debug": False,
    }
    return {
        "settings.json": json.dumps(server, indent=2) + "\n",
        "model-settings.json": json.dumps(model, indent=2) + "\n",
        # uvloop 0.22 and later stop MLServer 1.7 (event loops are no longer made on demand).
        **deployment.runner_files("mlserver_runtime.py", f"mlserver=={deployment.release}", "uvloop<0.22"),
    }


def _remarks(deployment: Deployment) -> Sequence[str]:
    return (
        "REST is on port 8080, gRPC on 8081 and metrics on 8082, on the loopback address only: `host` in settings.json "
        "opens them to others. Binary tensors are for gRPC; MLServer takes only JSON over REST.",
        "`mlserver_runtime.py` and `onnx_model.py` run the file in ONNX Runtime. They check every request and answer a "
        "wrong one with 400, and put those that wait at the same time together, at most "
        f"{deployment.max_batch} rows. MLServer's adaptive batching stays off: it merges requests before anyone has "
        "looked at them.",
        "JSON has neither NaN nor infinity: an output that is one of them is `null`.",
    )


TARGET = Target(
    name="mlserver",
    words="a model folder for MLServer, with a runtime for ONNX files",
    files=lambda deployment: model_folder(deployment, host="127.0.0.1"),
    start=lambda deployment: installed("mlserver start ."),
    url="http://127.0.0.1:8080/v2/models/{name}",
    release="1.7.1",
    oldest="1.7.1",
    backends=("onnxruntime",),
    bundled=("onnxruntime",),
    remarks=_remarks,
)
