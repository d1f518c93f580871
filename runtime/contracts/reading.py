"""Reads a file's contract from the file alone: its metadata, its operators and the certificate beside it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from runtime.errors import InputError, ModelError
from runtime.files import through_link
from runtime.model.bound import format_bound
from runtime.model.certificate import Certificate, read_certificate
from runtime.model.onnx_header import read_header
from runtime.model.onnx_messages import external_names, parse_model, text
from runtime.model.port import Port, annotate_ports
from runtime.model.summary import Summary, summary_of

from .description import Contract, Proof
from .features import Interface
from .network import Network

_TYPES = {1: "float32", 7: "int64", 10: "float16", 11: "float64"}
"""The element types of TensorProto that a network takes or gives."""


def contract(path: str | Path) -> Contract:
    """The contract of an ONNX file: its features, what it applies to each, its layers, and what is proved of it.

    Only the file is read, and ``NAME.parity.json`` beside it; neither torch nor onnx nor ONNX Runtime is needed.
    Raises ModelError: it is no ONNX file, or its weights cannot be read.

    Examples:
        >>> from mlpx import contract
        >>> contract("comfort.onnx").proof.verdict
        'proved'
    """
    path = through_link(path)
    header = read_header(path)
    content = path.read_bytes()
    summary = summary_of(header.metadata)
    model = parse_model(content, path)
    _refuse_weights_elsewhere(model, path)
    network = Network(model, path.parent, summary)
    inputs, outputs = _ports(model, path, summary)
    proof, certificate = _proof(path)
    try:
        leading = tuple(Interface(port, network.leading(port.name, flat_width(port))) for port in inputs)
        first = [step for each in leading for step in each.steps]
        trailing = tuple(Interface(port, network.trailing(port.name, flat_width(port), first)) for port in outputs)
        last = [step for each in trailing for step in each.steps]
        layers, sources = network.layers([*first, *last])
        trailing = tuple(replace(each, source=source) for each, source in zip(trailing, sources, strict=True))
    except (ModelError, IndexError, OverflowError, ValueError, MemoryError) as error:
        reason = error if isinstance(error, ModelError) else f"its graph is damaged: {error}"
        raise ModelError(f"{path}: {reason}. What to do: export the file again, with its weights beside it") from None
    return Contract(
        name=summary.name if summary is not None else text(model.graph.name) or path.stem,
        inputs=leading,
        outputs=tuple(_bounded(each, certificate) for each in trailing),
        layers=tuple(layers),
        period=None if summary is None else summary.period,
        file=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        proof=proof,
        source=str(path),
        notes=() if summary is None else summary.folded,
    )


def _refuse_weights_elsewhere(model: Any, path: Path) -> None:
    """Raise ModelError for external data that is not below the file's folder: it would be read from anywhere."""
    folder = path.parent.resolve()
    for name in sorted(external_names(model)):
        try:
            inside = (folder / name).resolve().is_relative_to(folder)
        except (OSError, ValueError):  # a name that no file can have
            inside = False
        if not inside:
            hint = "What to do: put its weights into its folder, and export or save it anew"
            raise ModelError(f"{path}: its weights are in {name!r}, outside of its folder. {hint}")


def _ports(model: Any, path: Path, summary: Summary | None) -> list[tuple[Port, ...]]:
    constants = {tensor.name for tensor in model.graph.initializer}
    ports: list[tuple[Port, ...]] = []
    for kind in ("input", "output"):
        values = [value for value in getattr(model.graph, kind) if value.name not in constants]
        own = tuple(_port(value) for value in values)
        if summary is not None:
            own = annotate_ports(summary.inputs if kind == "input" else summary.outputs, own, path)
        ports.append(own)
    return ports


def _port(value: Any) -> Port:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.dim_value > 0 else text(dim.dim_param) or "?" for dim in tensor.shape.dim)
    return Port(text(value.name), shape, dtype=_TYPES.get(tensor.elem_type, f"type {tensor.elem_type}"))


def flat_width(port: Port) -> int | None:
    """The features of a flat row; None for rows of several dimensions, or of a size that is not fixed."""
    sizes = [size for size in port.shape[1:] if isinstance(size, int)]
    return prod(sizes) if len(sizes) == len(port.shape) - 1 == 1 else None


def _proof(path: Path) -> tuple[Proof | None, Certificate | None]:
    """What the certificate beside the file says; the certificate itself if it is of exactly this file."""
    with suppress(InputError):
        certificate = read_certificate(path.with_name(f"{path.stem}.parity.json"))
        if not certificate.is_of(path):
            return Proof(certificate.path.name, "of another file"), None
        bound = certificate.bound
        words = None if bound is None else format_bound(bound)
        largest = None if bound is None else bound.largest
        return Proof(certificate.path.name, certificate.verdict, words, largest), certificate
    return None, None


def _bounded(output: Interface, certificate: Certificate | None) -> Interface:
    bound = None if certificate is None or certificate.bound is None else certificate.bound
    found = None if bound is None else bound.outputs.get(output.port.name)
    return output if found is None or len(found.bound) != output.width else replace(output, bounds=found.bound)
