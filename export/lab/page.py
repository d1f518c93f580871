"""Writing the page of ``mlpx lab``: its template, its scripts, and the network of a file."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import runtime.server
from export.errors import ExportError
from export.offline_page import embedded, offline_page, policy
from export.proof.rules.constants import CONSTANTS
from runtime import read_header, sha256, summary_of, write_whole
from runtime.version import VERSION

if TYPE_CHECKING:
    from export import Recovered

MOST_PARAMETERS = 20_000
"""The largest network in a page: a hundred rows of it and every fault take about a second, a thousand about five."""
_WIDGETS = ("ports.js",)
_SCRIPTS = ("float32.js", "networks.js", "faults.js", "checks.js", "making.js", "page.js")
_PLAIN = ("relu", "sigmoid", "tanh", "silu")
_BOUNDED = ("sigmoid", "tanh", "silu", "elu")
"""The functions of the page whose bounds have constants."""


@dataclass(frozen=True)
class LabPage:
    """The page that was written, and the network of FILE in it, where one was given."""

    path: Path
    file: Path | None = None
    operators: int = 0
    parameters: int = 0


def write_lab(path: str | Path, file: str | Path | None = None) -> LabPage:
    """Write the page, whole or not at all; with the dense network of an ONNX ``file`` of at most MOST_PARAMETERS.

    Raises RecoveryError: the file is no dense network; ExportError: one that the page does not compute; OutputError.
    """
    path, given = Path(path), None if file is None else Path(file)
    if given is not None and path.exists() and given.exists() and path.samefile(given):
        raise ExportError(f"{path} is FILE itself. What to do: name the page to write with -o")
    limits = {name: CONSTANTS[name].limits for name in _BOUNDED}
    about = {"written by": f"mlpx {VERSION}"}
    record: dict[str, Any] = {"name": "", "network": None, "limits": limits, "about": about}
    written = LabPage(path)
    if given is not None:
        record |= {"name": given.name, "network": _network(given)}
        about |= {"file": given.name, "SHA-256": sha256(given)}
        layers = record["network"]["layers"]
        written = LabPage(path, given, len(layers), record["network"].pop("parameters"))
    shared, own = (Path(module).parent for module in (runtime.server.__file__, __file__))
    style = "".join(part.read_text("utf-8") for part in (shared / "page.css", own / "lab.css"))
    sources = [*(shared / name for name in _WIDGETS), *(own / name for name in _SCRIPTS)]
    script = "".join(part.read_text("utf-8") for part in sources)
    parts = {
        "POLICY": policy([script], style),
        "NAME": html.escape(f"mlpx lab: {given.name}" if given is not None else "mlpx lab"),
        "STYLE": style,
        "RECORD": embedded(record),
        "SCRIPT": script,
    }
    write_whole(path, offline_page((own / "lab.html").read_text("utf-8"), parts).encode())
    return written


def _network(file: Path) -> dict[str, Any]:
    """The layers of a file, as the page computes them, and the ranges that rows are drawn over."""
    from export.recovery.onnx_network import read_onnx

    found = read_onnx(file)
    if not found.spec.is_plain:
        listed = ", ".join(f"'{port.name}'" for port in found.spec.inputs)
        hint = "What to do: take another file, or build a network on the page: leave out FILE"
        raise ExportError(f"{file} takes {listed}, and the page computes networks of one input of numbers. {hint}")
    parameters = sum(value.numel() for value in found.weights.values())
    if parameters > MOST_PARAMETERS:
        most = f"the page computes networks of at most {MOST_PARAMETERS:,}"
        hint = "What to do: take a smaller one, or build one on the page: leave out FILE"
        raise ExportError(f"{file} has {parameters:,} weights, and {most}. {hint}")
    layers = _layers(found, file)
    features = found.spec.input.row_shape[0]
    return {"features": features, "layers": layers, "ranges": _ranges(file, features), "parameters": parameters}


def _layers(found: Recovered, file: Path) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = []
    for index, block in enumerate(found.spec.blocks):
        kind, options, path = block.kind, block.model_dump(exclude_none=True), str(index)
        tensors = {
            role: found.weights[f"{path}.{role}"].numpy()
            for role in ("weight", "bias", "mean", "std", "factor", "offset")
            if f"{path}.{role}" in found.weights
        }
        if kind == "linear":
            outputs, inputs = tensors["weight"].shape
            weights = {
                "weight": _base64(tensors["weight"]),
                "bias": _base64(tensors["bias"]) if options["bias"] else None,
            }
            layers.append({"op": kind, "path": path, "inputs": inputs, "outputs": outputs, **weights})
        elif kind in _ARITHMETIC:
            for op, role in _ARITHMETIC[kind]:
                value = _base64(tensors[role])
                layers.append({"op": op, "path": f"{path}/{op}", "value": value, "block": kind})
        elif kind in _OPTIONS and not _differs(options):
            given = {name: float(np.float32(options[option])) for name, option in _OPTIONS[kind].items()}
            layers.append({"op": kind, "path": path, **given})
        elif kind in _PLAIN:
            layers.append({"op": kind, "path": path})
        else:
            known = ", ".join(("linear", *_ARITHMETIC, *_PLAIN, *_OPTIONS))
            which = f"{kind} whose limits differ between features" if kind in _OPTIONS else kind
            message = f"{file}: block {index} is a {which}, and the page computes only {known}"
            raise ExportError(
                f"{message}. What to do: take another file, or build a network on the page: leave out FILE"
            )
    return layers


def _differs(options: dict[str, Any]) -> bool:
    """Whether an option is a list, of a number for each feature."""
    return any(isinstance(value, list) for value in options.values())


_ARITHMETIC = {"standardize": (("sub", "mean"), ("div", "std")), "scale": (("mul", "factor"), ("add", "offset"))}
"""The operators of a block, and the tensors that they read."""
_OPTIONS = {"leaky_relu": {"slope": "negative_slope"}, "elu": {"alpha": "alpha"}, "clip": {"min": "min", "max": "max"}}
"""The options of a layer on the page, by their names in a spec."""


def _ranges(file: Path, features: int) -> list[tuple[float, float]] | None:
    """The declared range of every feature; None where one has none."""
    summary = summary_of(read_header(file).metadata)
    if summary is None or len(summary.inputs) != 1:
        return None
    (port,) = summary.inputs
    ranges = [own or port.range for own in port.ranges or [None] * features]
    found = [each for each in ranges if each is not None]
    return found if len(found) == features else None


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()
