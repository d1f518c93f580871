"""MLServer and Ray Serve: servers in Python, which run the file with the code of ``runners``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from export.errors import TargetError

from .target import Deployment, Files, Target, source

_REQUESTS = 64
"""That a replica of Ray Serve takes at a time, and puts together."""


def runner_settings(deployment: Deployment) -> dict[str, Any]:
    """How ``OnnxModel`` of the runners runs the file."""
    return {key: getattr(deployment, key) for key in ("threads", "max_batch", "delay_us", "device")}


def runner_files(deployment: Deployment, runner: str, *requirements: str) -> Files:
    """The model, the code of ``runners`` that runs it, and what the server requires."""
    return {
        "requirements.txt": "\n".join([*requirements, deployment.requirement, "numpy"]) + "\n",
        **{name: source(f"runners/{name}") for name in ("onnx_model.py", runner)},
        **deployment.model_files("model.onnx"),
    }


def _installed(command: str) -> str:
    """Shell commands that start a server in an environment of its own, in the package's folder."""
    return f"python3 -m venv .venv\n.venv/bin/pip install --requirement requirements.txt\n.venv/bin/{command}"


def mlserver_folder(deployment: Deployment, *, host: str) -> Files:
    """The folder that ``mlserver start`` takes; the server listens on ``host``. Raises TargetError: several copies."""
    if deployment.instances > 1:
        message = f"MLServer's package runs one copy of the model, not {deployment.instances}"
        raise TargetError(f"{message}. What to do: leave --instances out, and start the server once per copy")
    model = {
        "name": deployment.name,
        "implementation": "mlserver_runtime.OnnxRuntime",
        "platform": "onnx_onnxv1",
        "versions": ["1"],
        "parameters": {"uri": "./model.onnx", "version": "1", "extra": runner_settings(deployment)},
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
        **runner_files(deployment, "mlserver_runtime.py", f"mlserver=={deployment.release}", "uvloop<0.22"),
    }


def _mlserver_remarks(deployment: Deployment) -> Sequence[str]:
    return (
        "REST is on port 8080, gRPC on 8081 and metrics on 8082, on the loopback address only: `host` in settings.json "
        "opens them to others. Binary tensors are for gRPC; MLServer takes only JSON over REST.",
        "`mlserver_runtime.py` and `onnx_model.py` run the file in ONNX Runtime. They check every request and answer a "
        "wrong one with 400, and put those that wait at the same time together, at most "
        f"{deployment.max_batch} rows. MLServer's adaptive batching stays off: it merges requests before anyone has "
        "looked at them.",
        "JSON has neither NaN nor infinity: an output that is one of them is `null`.",
    )


MLSERVER = Target(
    name="mlserver",
    words="a model folder for MLServer, with a runtime for ONNX files",
    files=lambda deployment: mlserver_folder(deployment, host="127.0.0.1"),
    start=lambda deployment: _installed("mlserver start ."),
    url="http://127.0.0.1:8080/v2/models/{name}",
    release="1.7.1",
    oldest="1.7.1",
    backends=("onnxruntime",),
    bundled=("onnxruntime",),
    remarks=_mlserver_remarks,
)


def _ray_files(deployment: Deployment) -> Files:
    """The application and ``serve.yaml``: from as many replicas as copies were asked for to four times as many."""
    gpu = {"num_gpus": 1} if deployment.device == "cuda" else {}
    replicas = {
        "name": "OnnxDeployment",
        "max_ongoing_requests": _REQUESTS,
        "autoscaling_config": {
            "min_replicas": deployment.instances,
            "max_replicas": 4 * deployment.instances,
            "target_ongoing_requests": _REQUESTS // 4,
        },
        "ray_actor_options": {"num_cpus": deployment.threads, **gpu},
    }
    settings = {"name": deployment.name, "settings": runner_settings(deployment)}
    application = {
        "name": deployment.name,
        "route_prefix": "/",
        "import_path": "ray_app:build",
        "args": settings,
        "deployments": [replicas],
    }
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": 8000},
        "applications": [application],
    }
    return {
        "serve.yaml": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        **runner_files(deployment, "ray_app.py", f"ray[serve]=={deployment.release}"),
    }


def _ray_remarks(deployment: Deployment) -> Sequence[str]:
    most = 4 * deployment.instances
    return (
        "It is on port 8000, on the loopback address only: `host` in serve.yaml opens it to others. There is no gRPC.",
        f"Ray Serve runs {deployment.instances} to {most} replicas, one more whenever a replica has more than "
        f"{_REQUESTS // 4} requests in progress; each takes {deployment.threads} of the cluster's CPUs"
        f"{' and a GPU' if deployment.device == 'cuda' else ''}. Requests that wait for the same replica are run "
        f"together, at most {deployment.max_batch} rows.",
        "On a cluster of several machines every node needs this folder: give `serve run` a `--working-dir` that all "
        "can reach.",
        "A wrong request gets 400. JSON has neither NaN nor infinity: an output that is one of them is `null` there, "
        "and itself in a binary answer.",
    )


RAY_SERVE = Target(
    name="ray-serve",
    words="an application for Ray Serve",
    files=_ray_files,
    start=lambda deployment: _installed("serve run serve.yaml --app-dir ."),
    url="http://127.0.0.1:8000/v2/models/{name}",
    release="2.60.0",
    oldest="2.60.0",
    backends=("onnxruntime",),
    bundled=("onnxruntime",),
    remarks=_ray_remarks,
)
