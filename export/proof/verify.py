"""Prove that a file, on a device, computes what a module computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from builder import MLPSpec
from export.artifact import Artifact, weights_hash
from export.bounds.bounding import Bounding
from export.bounds.boxes import box_of
from export.bounds.report import BoundReport
from export.declarations import FeaturesArgument, declared, said_by, said_of, with_scores
from export.errors import ExportError, UnsupportedError
from export.evaluation import threads_for
from export.exporting import evaluated_copy
from export.graph import Graph
from export.onnxfile.model import Model
from export.onnxfile.reading import read_model
from export.trace import Signature, signature_of, trace
from export.trace.signature import Example, parameters_of
from runtime import InputError, Port, choose, read_inputs, this_machine
from runtime.data.arrays import as_array
from runtime.data.indices import index_limits
from runtime.data.inputs import as_inputs

from .checks import run_checks
from .instrumented import Recording
from .interface import joined_port, output_ports, ports_of, said_ports
from .report import ParityReport, machine, record_of, versions
from .rows import join, row_shape
from .running import Opener, on_device
from .state import Proof
from .structure import wiring_of

Data = str | Path | np.ndarray | Mapping[str, np.ndarray]


def verify(
    module: nn.Module,
    artifact: str | Path | Artifact,
    *,
    spec: MLPSpec | None = None,
    features: FeaturesArgument | None = None,
    device: str = "auto",
    data: Data | None = None,
    dtype: str | None = None,
    seed: int = 0,
    example: Example | None = None,
    method: str = "forward",
) -> ParityReport:
    """Prove that an ONNX file computes what ``module`` computes in evaluation mode; ``report.proved`` is the verdict.

    The module is not changed. The file may come from any tool: it is proved when each of its operators matches a block
    of the module, with the module's own weights. It runs on ``device`` as ``Session`` runs it.

    Args:
        module: the network, with the weights that the file must have.
        artifact: the file, or what ``export`` returned.
        spec: the names, features, ranges and labels that the file must declare; rows are drawn from its ranges.
        features: where there is no spec: the same of a module without one, as for ``export``.
        device: "cpu", "cuda" or "auto".
        data: rows to try besides the seeded ones: an array (batch, *row), several by the inputs' names, or a file (see
            ``runtime.read_inputs``).
        dtype: "float32" for a module of another dtype, whose weights the file holds rounded.
        seed: of all random draws and samples.
        example: tensors to call the module with, as for ``export``.
        method: the method to call in place of ``forward``.

    Raises ModelError: a file that cannot be read or run; ExportError: a module that cannot be traced at all;
    InputError: data that the model does not take; ProviderError: the device is not available.

    Examples:
        >>> from mlpx import assemble, load_spec, load_weights, verify
        >>> spec = load_spec("spec.yaml")
        >>> module = assemble(spec)
        >>> load_weights(module, "weights.safetensors")
        >>> verify(module, "comfort.onnx", spec=spec, device="cpu").proved
        True
    """
    path = artifact.path if isinstance(artifact, Artifact) else Path(artifact)
    options: dict[str, Any] = {"spec": spec, "features": features, "device": device, "data": data, "dtype": dtype}
    return prove(module, path, seed=seed, example=example, method=method, **options)


def prove(
    module: nn.Module,
    path: Path,
    *,
    spec: MLPSpec | None = None,
    features: FeaturesArgument | None = None,
    device: str = "auto",
    data: Data | None = None,
    dtype: str | None = None,
    seed: int = 0,
    opener: Opener | None = None,
    stop_early: bool = False,
    recovering: bool = False,
    model: Model | None = None,
    recording: Recording | None = None,
    example: Example | None = None,
    method: str = "forward",
    bound_seconds: float | None = None,
) -> ParityReport:
    """``verify``, with hooks for tests, benchmarks and recovery.

    ``opener`` opens the file in place of ONNX Runtime, and ``stop_early`` ends with the first failure. With
    ``recovering`` the file comes from elsewhere, and may have outputs of other shapes with the same elements.
    ``model`` is the file as recovery read it, in a form of its own; the ``opener`` then opens the file itself for it.
    ``recording`` is that of the proof of another file of this network, or an empty one to be filled. With
    ``bound_seconds`` a proved file whose inputs all have ranges is bounded for every input, in about that time.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**63:  # pyright: ignore[reportUnnecessaryIsInstance] the caller's
        raise InputError(f"a seed is a whole number from 0 to 2^63 - 1, not {seed!r}")
    start = perf_counter()
    device = choose(device, this_machine(cuda=device != "cpu")).device
    model = model or read_model(path, recovering=recovering)
    assert model.source is not None
    said = said_of(features, [value.name for value in model.inputs]) if spec is None else said_by(spec)
    ports, evaluated = said_ports(model, said), evaluated_copy(module, dtype)
    proof = Proof(model, ports[0], opener or on_device(device), seed, spec, stop_early, recording)
    try:
        signature, graph = traced_for(evaluated, model, example, method)
    except UnsupportedError as error:
        proof.add("blocks", "unproved", f"the module has a part that no rule bounds: {error}")
    else:
        row, order = row_shape(graph.inputs), tuple(wiring_of(graph, model).inputs)
        rows = {name: declared.row for name, declared in wiring_of(graph, model).inputs.items()}
        proof.model = replace(model, open_rows=rows)
        proof.caller, proof.module, proof.signature, proof.graph = module, evaluated, signature, graph
        proof.said = with_scores(said, graph)
        proof.data, proof.origin = given_rows(data, ports, order, dtype)
        proof.port = joined_port(in_order(ports, order))
        if proof.data is not None and proof.data.shape[1:] != row:
            shapes = f"rows of shape {list(proof.data.shape[1:])}, and the module takes {list(row)}"
            raise InputError(f"the data has {shapes}")
        if proof.port.ranges is not None and len(proof.port.ranges) != prod(row):
            proof.port = replace(proof.port, ranges=None)  # a file of another shape fails for that
        weights = sum(values.size for values in model.constants.values())
        # Gradients are needed, whatever the caller's mode is.
        with torch.inference_mode(False), torch.enable_grad(), threads_for(weights):
            run_checks(proof)
    seconds = round(perf_counter() - start, 3)
    return ParityReport(
        **proof.record(),
        file=record_of(model.proto, model.source),
        weights_sha256=weights_hash(module),
        device=device,
        seed=seed,
        seconds=seconds,
        bound=None if bound_seconds is None or proof.verdict != "proved" else _bounded(proof, ports, bound_seconds),
        made=datetime.now(UTC).date().isoformat(),
        versions=versions(),
        machine=machine(),
    )


def _bounded(proof: Proof, ports: list[Port], seconds: float) -> BoundReport | None:
    """The bound for every input of the declared ranges; None where an input has none."""
    model, outputs = proof.model, output_ports(proof.model)
    try:
        box = box_of(proof.structure.wiring.inputs, ports, None)
    except InputError:
        return None
    scored = outputs[0] if len(outputs) == 1 else None
    if proof.spec is not None:
        scored = declared(Port(proof.spec.output.name, ()), proof.said)
    with proof.runner.open() as run:
        return Bounding(
            proof.structure,
            box,
            file=model.path.name,
            sha256=model.source.sha256 if model.source is not None else "",
            seconds=seconds,
            scored=scored,
            evaluations=[lambda rows: proof.runner.output(run, rows)],
            data=proof.data,
        ).report()


def traced_for(module: nn.Module, model: Model, example: Example | None, method: str) -> tuple[Signature, Graph]:
    """The module's operators for the file's inputs, or, where those do not fit, for inputs that the module takes."""

    def traced(**options: Any) -> tuple[Signature, Graph]:
        signature = signature_of(module, method=method, **options)
        return signature, trace(module, signature)

    if example is not None:
        return traced(example=example)
    parameters = list(parameters_of(module, method))
    names = ["the input"] if len(parameters) == 1 else parameters
    ports = ports_of(model)
    if {port.name for port in ports} == set(names):
        ports = [port for name in names for port in ports if port.name == name]
    pairs = list(zip(names, ports, strict=False))
    shapes = {name: port.shape[1:] for name, port in pairs if all(isinstance(s, int) and s > 0 for s in port.shape[1:])}
    types = {name: port.dtype for name, port in pairs if port.dtype in ("float32", "int64")}
    try:
        return traced(input_shape=shapes, input_dtype=types, input_name=names)
    except UnsupportedError:
        raise
    except ExportError as error:
        try:
            return traced(input_name=names)
        except ExportError:
            raise error from None


def in_order(ports: Sequence[Port], order: Sequence[str]) -> list[Port]:
    """The ports in the order of the module's inputs; as they are where the names are others."""
    by_name = {port.name: port for port in ports}
    return [by_name[name] for name in order] if set(order) == set(by_name) else list(ports)


def given_rows(
    data: Data | None, ports: Sequence[Port], order: tuple[str, ...], dtype: str | None
) -> tuple[np.ndarray | None, str]:
    """The user's rows of all inputs, in the module's order, and where they come from."""
    if data is None:
        return None, ""
    port = ports[0]
    origin = "the given array" if len(ports) == 1 else "the given arrays"
    if isinstance(data, str | Path):
        arrays, origin = read_inputs(data, ports, dtype=dtype)[0], Path(data).name
    elif len(ports) > 1 or port.dtype != "float32" or port.indices is not None or isinstance(data, Mapping):
        arrays = as_inputs(data, ports, dtype=dtype)
    else:  # rows of another shape are refused for the module's shape, not for the file's
        try:
            shape = np.shape(data)
        except ValueError:
            raise InputError("the data's rows have different lengths") from None
        arrays = {port.name: as_array(data, Port(port.name, ("batch", *shape[1:])), dtype=dtype)}
    for limits in index_limits(ports):  # an index beyond the end of its table
        limits.check(arrays)
    return join([arrays[name].astype(np.float32, copy=False) for name in order if name in arrays]), origin
