"""What the packages share that run ONNX Runtime in a Python server: their code, its settings, its requirement."""

from __future__ import annotations

from importlib.resources import files as resources
from typing import Any

from export.servers import oldest

from .target import Deployment

_TF32_RUNTIME = "1.18"
"""The first release that knows use_tf32 (https://github.com/microsoft/onnxruntime/pull/19357)."""


def code(*names: str) -> dict[str, str]:
    """Files of ``export.targets.runners``, by their names, with the one that they all need."""
    folder = resources("export.targets.runners")
    return {name: (folder / name).read_text(encoding="utf-8") for name in ("onnx_model.py", *names)}


def settings(deployment: Deployment) -> dict[str, Any]:
    """How ``OnnxModel`` runs the file."""
    return {key: getattr(deployment, key) for key in ("threads", "max_batch", "delay_us", "device")}


def requirement(deployment: Deployment) -> str:
    """Of ONNX Runtime: a release that reads the file, and on a GPU one that can leave TF32 out."""
    floor = oldest("onnxruntime", deployment.summary.opset, deployment.summary.ir_version) or ""
    if deployment.device == "cpu":
        return f"onnxruntime>={floor}" if floor else "onnxruntime"
    return f"onnxruntime-gpu>={max(floor, _TF32_RUNTIME, key=lambda text: [int(n) for n in text.split('.') if n])}"


def requirements(deployment: Deployment, *server: str) -> str:
    """requirements.txt: the server, ONNX Runtime and numpy."""
    return "\n".join([*server, requirement(deployment), "numpy"]) + "\n"


def installed(command: str) -> str:
    """Shell commands that start a Python server in an environment of its own, in the package's folder."""
    return f"python3 -m venv .venv\n.venv/bin/pip install --requirement requirements.txt\n.venv/bin/{command}"
