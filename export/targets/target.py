"""What a target is given and what it gives back, and what several targets write in the same way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.servers import number, oldest

if TYPE_CHECKING:
    from runtime import Certificate, Summary

Files = Mapping[str, str | Path]
"""The files of a package by their path in it, with "/": a text, or a file to copy."""
_TF32_RUNTIME = "1.18"
"""The first ONNX Runtime that knows use_tf32 (https://github.com/microsoft/onnxruntime/pull/19357)."""
DATATYPES = {"float32": "FP32", "int64": "INT64"}
"""The Open Inference Protocol's names of the types that packaged files have."""
_RUNNER_PARTS = "onnx_model.py", "proved.py", "self_check.py"
"""What the code of every Python server has in common."""
_RECORDED = ("name", "release", "backend", "device", "max_batch", "delay_us", "instances", "threads", "verify_every")


@dataclass(frozen=True)
class Deployment:
    """A proved file and how a server is to run it: all that a target makes its files of."""

    name: str
    """The model's name at the server."""
    file: Path
    summary: Summary
    certificate: Certificate
    """The certificate of this file, with its ``answers``."""
    release: str
    """The server's release, as "23.10"."""
    device: str = "cpu"
    """"cpu" or "cuda"."""
    backend: str | None = None
    """For targets that can run the file in more than one way."""
    max_batch: int = 1024
    """The largest batch that the server accepts or puts together, in rows."""
    delay_us: int = 0
    """How long a request may wait for others to share a batch with, microseconds; 0: it shares with those waiting."""
    instances: int = 1
    """Copies of the model that run side by side."""
    threads: int = 1
    """ONNX Runtime's threads in each copy."""
    verify_every: float | None = None
    """Seconds between two checks that the model answers as was proved; None where the package's code does not run it.
    """
    onnxruntime_web: Path | None = None
    """The folder of the npm package, for the browser; None: ./node_modules/onnxruntime-web."""

    @property
    def options(self) -> dict[str, Any]:
        """The options that the manifest and ``mlpx package --json`` record."""
        return {key: getattr(self, key) for key in _RECORDED}

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
        """The pip requirement of an ONNX Runtime that reads the file, and on a GPU can switch TF32 off."""
        release = oldest("onnxruntime", self.summary.opset, self.summary.ir_version) or ""
        if self.device == "cuda":
            return f"onnxruntime-gpu>={max(release, _TF32_RUNTIME, key=number)}"
        return f"onnxruntime>={release}" if release else "onnxruntime"

    @property
    def runner_settings(self) -> dict[str, Any]:
        """The arguments of ``OnnxModel`` in ``runners/onnx_model.py``, and ``verify_every``."""
        return {key: getattr(self, key) for key in ("threads", "max_batch", "delay_us", "device", "verify_every")}

    def model_files(self, path: str) -> dict[str, Path]:
        """The model under ``path`` of the package, with its external data, whose names the model holds, beside it."""
        folder = path.rpartition("/")[0]
        external = {f"{folder}/{name}".lstrip("/"): self.file.parent / name for name in self.certificate.data}
        return {path: self.file, **external}

    def runner_files(self, runner: str, *requirements: str, package: str = "") -> Files:
        """The model with its certificate, the code of ``runners`` that runs it, and the packages that this needs.

        With ``package`` the code is a Python package of this name, and ``runner`` its ``__init__``.
        """
        code = {name: f"{package}/{name}" if package else name for name in _RUNNER_PARTS}
        code[runner] = f"{package}/__init__.py" if package else runner
        return {
            "requirements.txt": "\n".join([*requirements, self.requirement, "numpy"]) + "\n",
            **{path: source(f"runners/{name}") for name, path in code.items()},
            **self.model_files("model.onnx"),
            "model.parity.json": self.certificate.path,
        }


@dataclass(frozen=True)
class Target:
    """An inference server that packages are made for: its row in the table ``TARGETS``."""

    name: str
    title: str
    """What the package is, in a line."""
    files: Callable[[Deployment], Files]
    """The server's own files; README, certificate and smoke test are added to every package."""
    start: Callable[[Deployment], str]
    """The shell commands that start the server, run in the package's folder."""
    ports: Mapping[str, int]
    """The ports of the start command, on the loopback address, by what listens there; REST comes first.

    Empty for a target that is no server: ``start`` then builds and tests what the package holds.
    """
    release: str
    """What is packaged for by default."""
    path: str = "/v2/models/{name}"
    """The model's path at the first port, for ``mlpx verify --url`` and the smoke test."""
    exposed_by: str = ""
    """What opens the ports to other machines; "" where the target's own remarks describe the ports."""
    server: str = "onnxruntime"
    """The rows of ``export.servers`` that say what a release reads; "" where nothing reads the file."""
    backends: tuple[str, ...] = ()
    """The first one is the default."""
    oldest: str = ""
    """The oldest release that a package was tested with; packages for a newer one are made, with a note."""
    bundled: tuple[str, ...] = ()
    """Backends that run an ONNX Runtime installed beside the server: its release does not limit what they read."""
    fixed: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Options that must keep their defaults, each with the reason and what to do instead."""
    in_pods: bool = False
    """Whether it is usually run in a pod of Kubernetes, so that the package holds a container to put beside it."""
    remarks: Callable[[Deployment], Sequence[str]] = lambda _: ()
    """What a user of the package must know, a paragraph each, for its README."""
    sections: Callable[[Files], Sequence[str]] = lambda _: ()
    """What a user must know of the files that were made, a section each, for its README."""
    notes: Callable[[Files], Sequence[str]] = lambda _: ()
    """What is to be said of the files that were made, a line each."""

    @property
    def speaks_v2(self) -> bool:
        """Whether it is a server of the Open Inference Protocol, which a smoke test can ask."""
        return self.path.startswith("/v2/models/")

    def url(self, name: str) -> str:
        """The address of the model ``name`` once the server runs; "" where there is no server."""
        port = next(iter(self.ports.values()), None)
        return "" if port is None else f"http://127.0.0.1:{port}{self.path.format(name=name)}"


def source(path: str) -> str:
    """The text of a file in this folder that packages hold a copy of."""
    return (Path(__file__).parent / path).read_text(encoding="utf-8")


def json_text(record: Mapping[str, Any]) -> str:
    """A configuration file in JSON."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def yaml_text(record: Mapping[str, Any] | Sequence[Any]) -> str:
    """A configuration file in YAML."""
    import yaml  # 30 ms, which the commands that only list the targets do without

    return yaml.safe_dump(record, sort_keys=False, allow_unicode=True)


def published(ports: Mapping[str, int]) -> str:
    """The options of ``docker run`` that open ports of a container on the loopback address."""
    return " ".join(f"-p 127.0.0.1:{port}:{port}" for port in ports.values())


def start_in_venv(command: str) -> str:
    """Shell commands that start a Python server in an environment of its own, in the package's folder."""
    return f"python3 -m venv .venv\n.venv/bin/pip install --requirement requirements.txt\n.venv/bin/{command}"
