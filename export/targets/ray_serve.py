"""Ray Serve: an application that answers the Open Inference Protocol, and its config."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from .target import Deployment, Files, Target, installed

_TOGETHER = 64
"""Requests of one replica: as many as it takes at a time, and puts together."""


def _files(deployment: Deployment) -> Files:
    """The application and ``serve.yaml``: from as many replicas as copies were asked for to four times as many."""
    gpu = {"num_gpus": 1} if deployment.device == "cuda" else {}
    replicas = {
        "name": "OnnxDeployment",
        "max_ongoing_requests": _TOGETHER,
        "autoscaling_config": {
            "min_replicas": deployment.instances,
            "max_replicas": 4 * deployment.instances,
            "target_ongoing_requests": _TOGETHER // 4,
        },
        "ray_actor_options": {"num_cpus": deployment.threads, **gpu},
    }
    settings = {"name": deployment.name, "batch_requests": _TOGETHER, "settings": deployment.runner_settings}
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
        **deployment.runner_files("ray_app.py", f"ray[serve]=={deployment.release}"),
    }


def _remarks(deployment: Deployment) -> Sequence[str]:
    most = 4 * deployment.instances
    return (
        "It is on port 8000, on the loopback address only: `host` in serve.yaml opens it to others. There is no gRPC.",
        f"Ray Serve runs {deployment.instances} to {most} replicas, one more whenever a replica has more than "
        f"{_TOGETHER // 4} requests in progress; each takes {deployment.threads} of the cluster's CPUs"
        f"{' and a GPU' if deployment.device == 'cuda' else ''}. Requests that wait for the same replica are run "
        f"together, at most {deployment.max_batch} rows.",
        "On a cluster of several machines every node needs this folder: give `serve run` a `--working-dir` that all "
        "can reach.",
        "A wrong request gets 400. JSON has neither NaN nor infinity: an output that is one of them is `null` there, "
        "and itself in a binary answer.",
    )


TARGET = Target(
    name="ray-serve",
    words="an application for Ray Serve",
    files=_files,
    start=lambda deployment: installed("serve run serve.yaml --app-dir ."),
    url="http://127.0.0.1:8000/v2/models/{name}",
    release="2.60.0",
    oldest="2.60.0",
    backends=("onnxruntime",),
    bundled=("onnxruntime",),
    remarks=_remarks,
)
