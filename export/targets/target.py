"""What a target is given, what it gives back, and the files that several of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from export.servers import number, oldest
from runtime import Certificate, Summary

Files = Mapping[str, str | Path]
"""The files of a package by their path in it, with "/": a text, or a file to copy."""
_TF32_RUNTIME = "1.18"
"""The first ONNX Runtime that knows use_tf32 (https://github.com/microsoft/onnxruntime/pull/19357)."""


@dataclass(frozen=True)
class Deployment:
    """A proved file and how a server is to run it: all that a target makes its files of."""

    name: str
    """Of the model, at the server."""
    file: Path
    summary: Summary
    certificate: Certificate
    """Of this very file, with its ``answers``."""
    release: str
    """Of the server, as "23.10"."""
    device: str = "cpu"
    """"cpu" or "cuda"."""
    backend: str | None = None
    """For targets that can run the file in more than one way."""
    max_batch: int = 1024
    """The most rows of a batch that the server takes or puts together."""
    delay_us: int = 0
    """How long a request may wait for others to share a batch with, microseconds; 0: it takes those that are there."""
    instances: int = 1
    """Copies of the model that run side by side."""
    threads: int = 1
    """Of ONNX Runtime, in each of them."""
    onnxruntime_web: Path | None = None
    """The folder of the npm package, for the browser; None: ./node_modules/onnxruntime-web."""

    @property
    def fixed_batch(self) -> int | None:
        """The rows that every request must have; None where the file takes any number."""
        size = self.summary.inputs[0].shape[0]
        return size if isinstance(size, int) else None

    @property
    def plain_name(self) -> str:
        """The name as Docker and Kubernetes take it: small letters and digits, with single "-" between."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def requirement(self) -> str:
        """Of an ONNX Runtime that reads the file, and on a GPU can leave TF32 out, as pip takes it."""
        release = oldest("onnxruntime", self.summary.opset, self.summary.ir_version) or ""
        if self.device == "cuda":
            return f"onnxruntime-gpu>={max(release, _TF32_RUNTIME, key=number)}"
        return f"onnxruntime>={release}" if release else "onnxruntime"

    @property
    def runner_settings(self) -> dict[str, Any]:
        """How ``OnnxModel`` of the runners runs the file."""
        return {key: getattr(self, key) for key in ("threads", "max_batch", "delay_us", "device")}

    def model_files(self, path: str) -> dict[str, Path]:
        """The model under ``path`` of the package, with its external data, whose names the model holds, beside it."""
        folder = path.rpartition("/")[0]
        beside = {f"{folder}/{name}".lstrip("/"): self.file.parent / name for name in self.certificate.data}
        return {path: self.file, **beside}

    def runner_files(self, runner: str, *requirements: str) -> Files:
        """The model, the code of ``runners`` that runs it in a Python server, and what that server requires."""
        return {
            "requirements.txt": "\n".join([*requirements, self.requirement, "numpy"]) + "\n",
            **{name: source(f"runners/{name}") for name in ("onnx_model.py", runner)},
            **self.model_files("model.onnx"),
        }


@dataclass(frozen=True)
class Target:
    """An inference server that packages are made for."""

    name: str
    words: str
    """In a line: what the package is."""
    files: Callable[[Deployment], Files]
    """The server's own files; README, certificate and smoke test are added to every package."""
    start: Callable[[Deployment], str]
    """The shell commands that start the server, run in the package's folder."""
    url: str
    """Where the model then is, for ``mlpx verify --url`` and the smoke test, with {name} in it."""
    release: str
    """What is packaged for unless another is asked for."""
    server: str = "onnxruntime"
    """The rows of ``export.servers`` that say what a release reads."""
    backends: tuple[str, ...] = ()
    """The first one is used unless another is asked for."""
    oldest: str = ""
    """The oldest release that a package was tried with; a newer one is packaged for, and said to be untried."""
    bundled: tuple[str, ...] = ()
    """Backends that run an ONNX Runtime installed beside the server: its release does not say what they read."""
    remarks: Callable[[Deployment], Sequence[str]] = lambda deployment: ()
    """What a user of the package must know, a paragraph each, for its README."""

    @property
    def speaks_v2(self) -> bool:
        """Whether it is a server of the Open Inference Protocol, which a smoke test can ask."""
        return "/v2/models/" in self.url


def source(path: str) -> str:
    """A file beside this one that packages hold as it is."""
    return (resources("export.targets") / path).read_text(encoding="utf-8")


def installed(command: str) -> str:
    """Shell commands that start a Python server in an environment of its own, in the package's folder."""
    return f"python3 -m venv .venv\n.venv/bin/pip install --requirement requirements.txt\n.venv/bin/{command}"
