"""What a target is given, what it gives back, and what every package holds besides: README.md and the smoke test."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path

import numpy as np

from export.servers import number, oldest
from runtime import Certificate, Summary

Files = Mapping[str, str | Path]
"""The files of a package by their path in it, with "/": a text, or a file to copy."""
_ROWS = 4
_NUMBERS = 4096
"""Numbers of an input or an output that the smoke test sends and compares, about; one row at least."""
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

    def model_files(self, path: str) -> dict[str, Path]:
        """The model under ``path`` of the package, with its external data, whose names the model holds, beside it."""
        folder = path.rpartition("/")[0]
        beside = {f"{folder}/{name}".lstrip("/"): self.file.parent / name for name in self.certificate.data}
        return {path: self.file, **beside}


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


def readme(deployment: Deployment, target: Target, notes: tuple[str, ...]) -> str:
    """Markdown, for the person who unpacks the folder on the server's machine."""
    name, summary, certificate = deployment.name, deployment.summary, deployment.certificate
    backend = f", backend {deployment.backend}" if deployment.backend else ""
    batch = f"exactly {deployment.fixed_batch} rows a request" if deployment.fixed_batch else "any number of rows"
    ports = "\n".join(
        f"| {kind} | `{port.name}` | [{', '.join(map(str, port.shape))}] | {port.dtype} |"
        for kind, given in (("input", summary.inputs), ("output", summary.outputs))
        for port in given
    )
    what = f"""# {name}, for {target.name} {deployment.release}

{target.words[0].upper()}{target.words[1:]}{backend}. The model takes {batch}.

| | name | shape | type |
| --- | --- | --- | --- |
{ports}

It is opset {summary.opset}, IR {summary.ir_version}, SHA-256 `{certificate.sha256}`, proved on {certificate.device}
on {certificate.made} by mlpx {certificate.mlpx_version}: `{name}.parity.json` is the certificate."""
    proof = f"""## What is proved

`{name}.parity.json` says of which file, on which device and with which versions it was proved that the file
computes what its network computes. It holds rows, their exact outputs, and how far from these a correct float32
evaluation can be. Keep it with the model."""
    sections = [
        what,
        *(["\n".join(["Of this package:", "", *(f"- {line}" for line in notes)])] if notes else []),
        f"## Start\n\nIn this folder:\n\n{_shell(target.start(deployment))}",
        *target.remarks(deployment),
        *([_queries(name, target.url.format(name=name))] if target.speaks_v2 else []),
        proof,
    ]
    return "\n\n".join(sections) + "\n"


def _queries(name: str, url: str) -> str:
    asked = f"curl --fail --header 'Content-Type: application/json' --data @smoke/request.json {url}/infer"
    return f"""## Ask

A few rows, with curl:

{_shell(asked)}

The same rows, and whether the answers are the proved ones (Python's standard library is enough; exit code 0 if they
are, 1 if not):

{_shell(f"python3 smoke/check.py {url}")}

All rows of the certificate, and what a wrong answer comes from, where mlpx is installed:

{_shell(f"mlpx verify --url {url} --certificate {name}.parity.json")}"""


def _shell(commands: str) -> str:
    return f"```console\n{commands.strip()}\n```"


def smoke(deployment: Deployment, target: Target) -> Files:
    """A request, the answers that were proved for it, and a script that compares.

    ``smoke/``: ``request.json`` of the Open Inference Protocol, ``expected.json`` and ``check.py``.
    """
    answers, outputs = deployment.certificate.answers, [port.name for port in deployment.summary.outputs]
    assert answers is not None  # packaging refuses others
    if deployment.fixed_batch is not None:
        rows = [row % answers.rows for row in range(deployment.fixed_batch)]
    else:  # a few that are spread over the kinds of rows
        widest = max(values[0].size for values in (*answers.inputs.values(), *answers.exact.values()))
        count = min(_ROWS, answers.rows, deployment.max_batch, max(1, _NUMBERS // widest))
        rows = np.linspace(0, answers.rows - 1, count).astype(int).tolist()

    def flat(values: np.ndarray) -> list[float]:
        return values[rows].ravel().tolist()

    inputs = [
        {"name": name, "shape": [len(rows), *values.shape[1:]], "datatype": "FP32", "data": flat(values)}
        for name, values in ((port.name, answers.inputs[port.name]) for port in deployment.summary.inputs)
    ]
    finite = {  # what overflows in a precision is no JSON; the bound tells those answers
        kind: held
        for kind, held in answers.reduced.items()
        if all(np.isfinite(held[name][rows]).all() for name in outputs)
    }
    expected = {
        "url": target.url.format(name=deployment.name),
        "model_sha256": deployment.certificate.sha256,
        "rows": len(rows),
        "outputs": {
            name: {
                "shape": [len(rows), *answers.exact[name].shape[1:]],
                "exact": flat(answers.exact[name]),
                "bound": flat(answers.bound[name]),
                "reduced": {kind: flat(held[name]) for kind, held in finite.items()},
            }
            for name in outputs
        },
    }
    request = {"inputs": inputs, "outputs": [{"name": name} for name in outputs]}
    return {
        "smoke/request.json": json.dumps(request, allow_nan=False) + "\n",
        "smoke/expected.json": json.dumps(expected, allow_nan=False) + "\n",
        "smoke/check.py": source("smoke_check.py"),
    }
