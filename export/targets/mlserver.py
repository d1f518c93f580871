"""MLServer: a model folder with a runtime for ONNX files, which MLServer has none of (``runners``)."""

from __future__ import annotations

from collections.abc import Sequence

from .target import Deployment, Files, Target, json_text, start_in_venv

RUNTIME = "mlpx_mlserver"
"""The Python package that holds the runtime, in the folder of the model."""
_PORTS = {"REST": 8080, "gRPC": 8081, "metrics": 8082}


def model_folder(deployment: Deployment, *, host: str) -> Files:
    """The folder that ``mlserver start`` takes; the server listens on ``host``."""
    model = {
        "name": deployment.name,
        "implementation": f"{RUNTIME}.OnnxRuntime",
        "platform": "onnx_onnxv1",
        "versions": ["1"],
        "parameters": {"uri": "./model.onnx", "version": "1", "extra": deployment.runner_settings},
    }
    server = {
        "host": host,
        "http_port": _PORTS["REST"],
        "grpc_port": _PORTS["gRPC"],
        "metrics_port": _PORTS["metrics"],
        # Workers of MLServer's own cost more than a small network does: every request is pickled twice.
        "parallel_workers": 0,
        "debug": False,
    }
    return {
        "settings.json": json_text(server),
        "model-settings.json": json_text(model),
        # uvloop 0.22 and later stop MLServer 1.7 (event loops are no longer made on demand).
        **deployment.runner_files(
            "mlserver_runtime.py", f"mlserver=={deployment.release}", "uvloop<0.22", package=RUNTIME
        ),
    }


def _remarks(deployment: Deployment) -> Sequence[str]:
    return (
        "Binary tensors are for gRPC; MLServer takes only JSON over REST.",
        f'`{RUNTIME}/` runs the file in ONNX Runtime (`"implementation": "{RUNTIME}.OnnxRuntime"`). It checks '
        "every request, answers an invalid one with 400, and runs those that wait at the same time as one batch of at "
        f"most {deployment.max_batch} rows. MLServer's adaptive batching stays off: it merges requests before they are "
        "checked.",
        "JSON has neither NaN nor infinity: such an output is `null`.",
    )


TARGET = Target(
    name="mlserver",
    title="a model folder for MLServer, with a runtime for ONNX files",
    files=lambda deployment: model_folder(deployment, host="127.0.0.1"),
    start=lambda _: start_in_venv("mlserver start ."),
    ports=_PORTS,
    exposed_by="`host` in settings.json",
    release="1.7.1",
    oldest="1.7.1",
    backends=("onnxruntime",),
    bundled=("onnxruntime",),
    fixed={
        "instances": (
            "MLServer's package runs one copy of the model, not {instances}",
            "leave --instances out, and start the server once per copy",
        )
    },
    remarks=_remarks,
)
