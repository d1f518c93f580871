"""The proof: does this file, on this device, compute what this module computes?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from builder import MLPSpec
from export.artifact import Artifact, weights_hash
from export.description import declared_input, declared_output
from export.errors import ExportError, UnsupportedError
from export.evaluation import threads_for
from export.exporting import evaluated_copy
from export.graph import ELEMENT_TYPES, Graph
from export.onnxfile.model import Model, row_shape
from export.onnxfile.reading import read_model
from export.trace import Signature, signature_of, trace
from export.trace.signature import Example, parameters_of
from runtime import InputError, ModelError, Port, choose, read_inputs, summary_of, this_machine
from runtime.data.arrays import as_array
from runtime.data.indices import index_limits
from runtime.data.inputs import as_inputs

from .checks import Examination
from .instrumented import Recording
from .report import Findings, ParityReport, Stop, file_record, machine, versions
from .rows import joined
from .rows import row_shape as row_shape_of
from .running import Opener, on_device
from .structure import wiring_of

Data = str | Path | np.ndarray | Mapping[str, np.ndarray]


def verify(
    module: nn.Module,
    artifact: str | Path | Artifact,
    *,
    spec: MLPSpec | None = None,
    device: str = "auto",
    data: Data | None = None,
    dtype: str | None = None,
    seed: int = 0,
    example: Example | None = None,
    method: str = "forward",
) -> ParityReport:
    """Prove that an ONNX file computes what ``module`` computes in evaluation mode; ``report.proved`` is the verdict.

    The module is left as it is. The file may be anyone's: it is proved when each of its operators is found to be a
    block of the module, with the module's own weights. It runs on ``device`` as ``Session`` runs it.

    Args:
        spec: the names, features, range and labels that the file must declare; its range is the one that is drawn from.
        data: rows to try besides the seeded ones, an array (batch, *row), several by the inputs' names, or a file (see
            ``runtime.read_inputs``).
        dtype: "float32" for a module of another dtype, whose weights the file holds rounded.
        seed: of everything that is drawn or sampled.
        example: tensors to call the module with, and ``method``: what is called, as for ``export``.

    Raises ModelError: a file that cannot be read or run; ExportError: a module that cannot be traced at all;
    InputError: data that the model cannot take; ProviderError: the device cannot be had.
    """
    path = artifact.path if isinstance(artifact, Artifact) else Path(artifact)
    asked = {"spec": spec, "device": device, "data": data, "dtype": dtype, "seed": seed}
    return examine(module, path, **asked, example=example, method=method)


def examine(
    module: nn.Module,
    path: Path,
    *,
    spec: MLPSpec | None = None,
    device: str = "auto",
    data: Data | None = None,
    dtype: str | None = None,
    seed: int = 0,
    opener: Opener | None = None,
    stop_early: bool = False,
    recovering: bool = False,
    recording: Recording | None = None,
    example: Example | None = None,
    method: str = "forward",
) -> ParityReport:
    """``verify``, with another runtime in the place of ONNX Runtime, or ending with the first check that fails, or of a
    file that is only read back, or beside what was recorded of another file of the network.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"a seed is a whole number from 0 to 2^63 - 1, not {seed!r}")
    start = perf_counter()
    chosen = choose(device, this_machine(cuda=device != "cpu")).device
    model = read_model(path, recovering=recovering)
    port = _port(model, spec)
    evaluated = evaluated_copy(module, dtype)
    examination = Examination(model, port, opener or on_device(chosen), seed, stop_early, recording)
    try:
        signature, graph = _traced(evaluated, model, example, method)
        rows, origin = _data(data, model, port, tuple(wiring_of(graph, model).inputs), dtype)
        if spec is not None:
            _compare_interface(model, spec, row_shape_of(graph.inputs), examination.found)
    except UnsupportedError as error:
        examination.found.unproved("blocks", f"the module has a part that no rule bounds: {error}")
    except Stop:
        pass
    else:
        weights = sum(values.size for values in model.constants.values())
        # Gradients are taken, whatever the caller's mode is.
        with torch.inference_mode(False), torch.enable_grad(), threads_for(weights):
            examination.run(evaluated, signature, graph, rows, origin)
    return ParityReport(
        **examination.record(),
        file=file_record(path),
        weights_sha256=weights_hash(module),
        device=chosen,
        seed=seed,
        seconds=round(perf_counter() - start, 3),
        made=datetime.now(UTC).date().isoformat(),
        versions=versions(),
        machine=machine(),
    )


def _port(model: Model, spec: MLPSpec | None) -> Port:
    """The file's first input, with the features and ranges that the spec, or else the file, declares for it."""
    if not model.inputs or not model.proto.graph.output:
        raise ModelError(f"{model.path}: the model has no {'output' if model.inputs else 'input'}")
    value = model.inputs[0]
    if spec is not None:
        return declared_input(Port(value.name, ("batch", *row_shape(value))), spec.input)
    return _ports(model)[0]


def _ports(model: Model) -> list[Port]:
    """The file's inputs, each with what the file declares for it."""
    summary = summary_of({entry.key: entry.value for entry in model.proto.metadata_props})
    known = {port.name: port for port in summary.inputs} if summary is not None else {}
    kinds = {number: kind for kind, number in ELEMENT_TYPES.items()}
    ports = []
    for value in model.inputs:
        dtype = kinds.get(value.type.tensor_type.elem_type, "float32")
        port = Port(value.name, ("batch", *row_shape(value)), dtype=dtype)
        declared = known.get(port.name, port)
        ports.append(declared if declared.shape[1:] == port.shape[1:] and declared.dtype == dtype else port)
    return ports


def _traced(module: nn.Module, model: Model, example: Example | None, method: str) -> tuple[Signature, Graph]:
    """The module's operators for the rows that the file takes, or, where they do not fit, for the module's own."""

    def traced(**known: Any) -> tuple[Signature, Graph]:
        signature = signature_of(module, method=method, **known)
        return signature, trace(module, signature)

    if example is not None:
        return traced(example=example)
    parameters = list(parameters_of(module, method))
    names = ["the input"] if len(parameters) == 1 else parameters
    ports = _ports(model)
    if {port.name for port in ports} == set(names):
        ports = [port for name in names for port in ports if port.name == name]
    pairs = list(zip(names, ports, strict=False))
    known = {name: port.shape[1:] for name, port in pairs if all(isinstance(s, int) and s > 0 for s in port.shape[1:])}
    types = {name: port.dtype for name, port in pairs if port.dtype in ("float32", "int64")}
    try:
        return traced(input_shape=known, input_dtype=types, input_name=names)
    except UnsupportedError:
        raise
    except ExportError as error:
        try:
            return traced(input_name=names)
        except ExportError:
            raise error from None


def _data(
    data: Data | None, model: Model, port: Port, order: tuple[str, ...], dtype: str | None
) -> tuple[np.ndarray | None, str]:
    """The given rows of all inputs, in the order of the module's, and what they are in words."""
    if data is None:
        return None, ""
    ports = [port] if len(model.inputs) == 1 else _ports(model)
    origin = "the given array" if len(ports) == 1 else "the given arrays"
    if isinstance(data, str | Path):
        held, origin = read_inputs(data, ports, dtype=dtype)[0], Path(data).name
    elif len(ports) > 1 or port.dtype != "float32" or port.indices is not None or isinstance(data, Mapping):
        held = as_inputs(data, ports, dtype=dtype)
    else:  # rows of another shape are refused for what the module takes, not for what the file declares
        try:
            shape = np.shape(data)
        except ValueError:
            raise InputError("the data's rows have different lengths") from None
        held = {port.name: as_array(data, Port(port.name, ("batch", *shape[1:])), dtype=dtype)}
    for limits in index_limits(ports):  # an index beyond the end of its table
        limits.check(held)
    return joined([held[name].astype(np.float32, copy=False) for name in order if name in held]), origin


def _compare_interface(model: Model, spec: MLPSpec, shape: tuple[int, ...], found: Findings) -> None:
    """What the file says of its input and output beside what the spec says: names, features, units, ranges and labels.

    A program that reads the file goes by these words, so one that differs from the spec's is a failure. ``shape`` is
    that of the rows which the module takes.
    """
    if shape != spec.input.row_shape:
        rows = f"rows of shape {list(shape)}, and the spec's input has {list(spec.input.row_shape)}"
        return found.failed("interface", f"the module takes {rows}")
    names = [value.name for value in (*model.inputs, *model.proto.graph.output)]
    wanted = [spec.input.name, spec.output.name]
    if names != wanted:
        what = "input and output" if len(names) == 2 else "inputs and outputs"
        have, need = (" and ".join(f"'{name}'" for name in each) for each in (names, wanted))
        return found.failed("interface", f"{what} are {have}, and the spec's are {need}")
    summary = summary_of({entry.key: entry.value for entry in model.proto.metadata_props})
    source, sink = Port(spec.input.name, ()), Port(spec.output.name, ())
    should = _told(declared_input(source, spec.input), declared_output(sink, spec))
    if summary is None or not summary.inputs or not summary.outputs:
        if held := ", ".join(key for key, value in should.items() if value):
            return found.warned("interface", f"the file does not say its {held}; the spec does")
        return found.passed("interface", "input and output have the spec's names")
    says = _told(summary.inputs[0], summary.outputs[0])
    other = next((key for key in should if says[key] != should[key]), None)
    if other is not None:
        return found.failed("interface", f"the {other} of the file are {says[other]}, and the spec's {should[other]}")
    found.passed("interface", "names, features, units, ranges and labels are the spec's")


def _told(source: Port, sink: Port) -> dict[str, list[object]]:
    of_input = {name: getattr(source, name) for name in ("features", "units", "range", "ranges")}
    of_output = {f"output {name}": getattr(sink, name) for name in ("features", "units", "ranges")}
    return {name: list(value or ()) for name, value in (of_input | {"labels": sink.labels} | of_output).items()}
