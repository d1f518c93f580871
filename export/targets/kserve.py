"""KServe: an InferenceService, and the model repository or the image that it runs.

The fields are those of serving.kserve.io/v1beta1, config/crd/full/serving.kserve.io_inferenceservices.yaml of
https://github.com/kserve/kserve.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import mlserver, triton
from .target import Deployment, Files, Target, json_text, yaml_text

_SDK = "0.21.0"
"""The release of the KServe SDK that the "custom" backend runs."""
_BUCKET = "SET-BUCKET"
_REGISTRY = "SET-REGISTRY"
"""Placeholders for what only the user knows, in capitals, which no cluster accepts."""
_PREFIX = "mlpx.github.io"
"""Of annotations."""
_CONCURRENCY = 16
"""Requests in progress in a replica from which on KServe starts another."""
_PORT = 8080
_MEBIBYTES = {"triton": 1536, "mlserver": 768, "custom": 768}
"""Memory of a backend's server without the model."""
_DOCKERFILE = """\
FROM python:3.11-slim
COPY model/requirements.txt /model/requirements.txt
RUN pip install --no-cache-dir --requirement /model/requirements.txt
COPY model /model
WORKDIR /model
USER 1000
"""


def _files(deployment: Deployment) -> Files:
    single = replace(deployment, instances=1)  # copies are replicas here
    if deployment.backend == "triton":
        repository = triton.TARGET.files(replace(single, backend="onnxruntime"))
        return {"inference-service.yaml": _service(deployment, repository), **repository}
    if deployment.backend == "mlserver":
        model = mlserver.model_folder(replace(single, release=mlserver.TARGET.release), host="0.0.0.0")
        command = ["mlserver", "start", "/model"]
    else:
        model = {
            "model-settings.json": json_text(deployment.runner_settings),
            **deployment.runner_files("kserve_model.py", f"kserve=={_SDK}"),
        }
        command = ["python", "/model/kserve_model.py", f"--model_name={deployment.name}"]
    return {
        "inference-service.yaml": _service(deployment, model),
        "Dockerfile": f"{_DOCKERFILE}CMD {json.dumps(command)}\n",
        **{f"model/{name}": content for name, content in model.items()},
    }


def _service(deployment: Deployment, model: Files) -> str:
    """``inference-service.yaml``; ``model`` is the files that the server holds."""
    if deployment.backend == "triton":
        runtime = {
            "modelFormat": {"name": "onnx", "version": "1"},
            "runtime": "kserve-tritonserver",
            "runtimeVersion": f"{deployment.release}-py3",
            "protocolVersion": "v2",
            "storageUri": f"s3://{_BUCKET}/{_service_name(deployment)}/models",
        }
        predictor: dict[str, Any] = {"model": runtime | _container(deployment, model)}
        location = "where the folder models/ was copied to; s3://, gs:// and pvc:// will do"
        comment = f"Set storageUri ({_BUCKET}): {location}."
    else:
        image = {"name": "kserve-container", "image": _image(deployment)}
        ports = [{"name": "http1", "containerPort": _PORT, "protocol": "TCP"}]
        predictor = {"containers": [image | {"ports": ports} | _container(deployment, model)]}
        comment = f"Set image ({_REGISTRY}): the name that the image of the Dockerfile was pushed by."
    scaling = {
        "minReplicas": deployment.instances,
        "maxReplicas": 4 * deployment.instances,
        "scaleMetric": "concurrency",
        "scaleTarget": _CONCURRENCY,
    }
    record = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": _service_name(deployment), "annotations": _provenance(deployment)},
        "spec": {"predictor": scaling | predictor},
    }
    comments = [comment]
    if deployment.backend == "triton":
        comments += [
            "Releases of KServe with a `verification` block (https://github.com/kserve/kserve/issues/5789) take the",
            "digest beside storageUri, as `verification: {digest: ...}`, where that names the file and no folder.",
        ]
    return "".join(f"# {line}\n" for line in comments) + yaml_text(record)


def _provenance(deployment: Deployment) -> dict[str, str]:
    """Which bytes were proved, by what; KServe copies annotations to the pods.

    KServe's proposal of a digest (https://github.com/kserve/kserve/issues/5789) writes it as "sha256:" and its hex
    digits, and has moved from annotations to a `verification` block that no release knows yet. So these have a prefix
    of their own.
    """
    proof = deployment.certificate
    digests = {"model": proof.sha256, "certificate": proof.digest, "weights": proof.weights_sha256}
    return {
        **{f"{_PREFIX}/{name}-digest": f"sha256:{digest}" for name, digest in digests.items() if digest},
        f"{_PREFIX}/verdict": "proved",
        f"{_PREFIX}/proved-by": f"mlpx {proof.mlpx_version}",
        f"{_PREFIX}/proved-on": proof.made,
    }


def _service_name(deployment: Deployment) -> str:
    """The model's name as a cluster takes it: small letters, digits and "-", beginning with a letter."""
    name = deployment.plain_name[:50].strip("-")
    return name if name[0].isalpha() else f"model-{name}"


def _image(deployment: Deployment) -> str:
    """The name of the image that the Dockerfile makes."""
    return f"{_REGISTRY}/{_service_name(deployment)}-{deployment.backend}:1"


def _container(deployment: Deployment, model: Files) -> dict[str, Any]:
    """Resources and probes, and on a GPU the variable that keeps TF32 off in NVIDIA's libraries."""
    size = sum(content.stat().st_size for content in model.values() if isinstance(content, Path))
    # The model three times: as read, as kept, and laid out for the kernels.
    mebibytes = _MEBIBYTES[deployment.backend or ""] + 3 * -(-size // 2**20)
    gpu = {"nvidia.com/gpu": "1"} if deployment.device == "cuda" else {}
    resources = {"cpu": str(deployment.threads), "memory": f"{mebibytes}Mi", **gpu}

    def probe(path: str, **times: int) -> dict[str, Any]:
        return {"httpGet": {"path": f"/v2/health/{path}", "port": _PORT}, **times}

    container: dict[str, Any] = {
        "resources": {"requests": resources, "limits": dict(resources)},  # a copy, so that YAML writes no alias
        "startupProbe": probe("ready", periodSeconds=2, failureThreshold=150),
        "readinessProbe": {**probe("ready", periodSeconds=5, timeoutSeconds=2), **_model_ready(deployment)},
        "livenessProbe": probe("live", periodSeconds=10, timeoutSeconds=2),
    }
    return container | ({"env": [{"name": "NVIDIA_TF32_OVERRIDE", "value": "0"}]} if gpu else {})


def _model_ready(deployment: Deployment) -> dict[str, Any]:
    """The probe's address where the server is always ready, and its model is not: in the KServe SDK."""
    path = f"/v2/models/{deployment.name}/ready"
    return {"httpGet": {"path": path, "port": _PORT}} if deployment.backend == "custom" else {}


def _start(deployment: Deployment) -> str:
    name, image = _service_name(deployment), _image(deployment)
    upload = f"docker build --tag {image} .\ndocker push {image}"
    if deployment.backend == "triton":
        upload = f"aws s3 sync models s3://{_BUCKET}/{name}/models"
    return (
        f"{upload}\nkubectl apply --filename inference-service.yaml\n"
        f"kubectl wait --for=condition=Ready inferenceservice/{name} --timeout=5m\n"
        f"kubectl port-forward deployment/{name}-predictor {_PORT}:{_PORT}"
    )


def _remarks(deployment: Deployment) -> Sequence[str]:
    triton_runs = deployment.backend == "triton"
    placeholder = f"`{_BUCKET}`, your bucket" if triton_runs else f"`{_REGISTRY}`, your registry"
    remarks = [
        f"Set {placeholder}, in inference-service.yaml and in the commands. Behind a port-forward the model is on the "
        "loopback address; in Knative's mode the deployment's name contains the revision (`kubectl get deployments`).",
        f"KServe runs {deployment.instances} to {4 * deployment.instances} replicas, one for every {_CONCURRENCY} "
        "requests in progress. `scaleMetric: concurrency` is for Knative's mode; for plain Kubernetes deployments set "
        "`scaleMetric: cpu` and `scaleTarget: 80`.",
    ]
    if triton_runs:
        remarks.append(
            f"Triton {deployment.release} runs it: `runtimeVersion` takes the place of the image's tag in KServe's "
            "runtime kserve-tritonserver."
        )
    return remarks


TARGET = Target(
    name="kserve",
    title="an InferenceService for KServe",
    files=_files,
    start=_start,
    ports={"REST": _PORT},
    release=triton.TARGET.release,
    server="triton",
    backends=("triton", "mlserver", "custom"),
    bundled=("mlserver", "custom"),
    in_pods=True,
    remarks=_remarks,
)
