"""Ray Serve: an application that runs the file with the code of ``runners``, and its ``serve.yaml``."""

from __future__ import annotations

from collections.abc import Sequence

from .target import Deployment, Files, Target, start_in_venv, yaml_text

_REQUESTS = 64
"""The most requests in progress in a replica, which runs those that wait as one batch."""


def _files(deployment: Deployment) -> Files:
    """The application and ``serve.yaml``: between ``instances`` and four times as many replicas."""
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
    application = {
        "name": deployment.name,
        "route_prefix": "/",
        "import_path": "ray_app:build",
        "args": {"name": deployment.name, "settings": deployment.runner_settings},
        "deployments": [replicas],
    }
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": TARGET.ports["REST"]},
        "applications": [application],
    }
    return {
        "serve.yaml": yaml_text(config),
        **deployment.runner_files("ray_app.py", f"ray[serve]=={deployment.release}"),
    }


def _remarks(deployment: Deployment) -> Sequence[str]:
    most = 4 * deployment.instances
    return (
        f"There is no gRPC. Ray Serve runs {deployment.instances} to {most} replicas, one more whenever a replica has "
        f"more than {_REQUESTS // 4} requests in progress; each takes {deployment.threads} of the cluster's CPUs"
        f"{' and a GPU' if deployment.device == 'cuda' else ''}. Requests that wait for the same replica are run as "
        f"one batch of at most {deployment.max_batch} rows.",
        "On a cluster of several machines every node needs this folder: give `serve run` a `--working-dir` that all "
        "nodes can reach.",
        "An invalid request gets 400. JSON has neither NaN nor infinity: such an output is `null` there, and itself in "
        "a binary answer.",
    )


TARGET = Target(
    name="ray-serve",
    title="an application for Ray Serve",
    files=_files,
    start=lambda _: start_in_venv("serve run serve.yaml --app-dir ."),
    ports={"REST": 8000},
    exposed_by="`host` in serve.yaml",
    release="2.60.0",
    oldest="2.60.0",
    backends=("onnxruntime",),
    bundled=("onnxruntime",),
    remarks=_remarks,
)
