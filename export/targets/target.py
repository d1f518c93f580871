"""What a target is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime import Certificate, Summary

Files = Mapping[str, str | bytes | Path]
"""The files of a package by their path in it, with "/": a text, bytes, or a file to copy."""


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
    max_batch: int = 1024
    """What ``Deployment.max_batch`` is unless it is asked for; a file of a fixed batch has its own."""
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


def model_files(deployment: Deployment, path: str) -> dict[str, Path]:
    """The model under ``path`` of the package, with its external data, whose names the model holds, beside it."""
    folder = path.rpartition("/")[0]
    beside = {f"{folder}/{name}".lstrip("/"): deployment.file.parent / name for name in deployment.certificate.data}
    return {path: deployment.file, **beside}
