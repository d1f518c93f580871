"""What a file declares of its inputs and outputs, beside what the spec declares."""

from __future__ import annotations

from math import prod

import onnx

from builder import MLPSpec
from builder.block import MAX_FEATURES
from export.description import declared_input, declared_output
from export.graph import ELEMENT_TYPES, Row
from export.onnxfile.model import Model, row_shape
from runtime import ModelError, Port, Summary, summary_of

from .state import Result

_KINDS = ("features", "units", "range", "ranges", "descriptions", "labels")
"""What a port may declare of its values, besides their shape and type."""
_OF_FEATURES = ("units", "ranges", "descriptions")
"""What it may declare of each of its features."""
_MOST_VALUES = 2**28
"""Of a batch that a file fixes."""


def first_port(model: Model, spec: MLPSpec | None) -> Port:
    """The file's first input, with the features and ranges that the spec, or else the file, declares for it."""
    if not model.inputs or not model.proto.graph.output:
        raise ModelError(f"{model.path}: the model has no {'output' if model.inputs else 'input'}")
    value = model.inputs[0]
    if spec is not None:
        return declared_input(Port(value.name, ("batch", *row_shape(value))), spec.input)
    return ports_of(model)[0]


def ports_of(model: Model) -> list[Port]:
    """The file's inputs, each with what the file declares for it."""
    summary = _summary(model)
    by_name = {port.name: port for port in summary.inputs} if summary is not None else {}
    types = {number: name for name, number in ELEMENT_TYPES.items()}
    ports: list[Port] = []
    for value in model.inputs:
        dtype = types.get(value.type.tensor_type.elem_type, "float32")
        port = Port(value.name, ("batch", *row_shape(value)), dtype=dtype)
        _refuse_too_large(model, value)
        declared = by_name.get(port.name, port)
        ports.append(declared if declared.shape[1:] == port.shape[1:] and declared.dtype == dtype else port)
    return ports


def output_ports(model: Model) -> list[Port]:
    """The file's outputs, as far as it declares them; none if mlpx did not write it."""
    summary = _summary(model)
    return [] if summary is None else list(summary.outputs)


def _refuse_too_large(model: Model, value: onnx.ValueInfoProto) -> None:
    """Raise ModelError for an input whose rows, or the batch that it fixes, are negative or beyond any network's."""
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if any(size < 0 for size in sizes):
        hint = "What to do: give a size that is open a name"
        raise ModelError(f"{model.path}: the input '{value.name}' has a negative size: {sizes}. {hint}")
    batch, *row = [max(size, 1) for size in sizes] or [1]
    if prod(row) > MAX_FEATURES or batch * prod(row) > _MOST_VALUES:
        raise ModelError(
            f"{model.path}: the input '{value.name}' has the shape {[batch, *row]}, too large for any rows"
        )


def compare_interface(model: Model, spec: MLPSpec, row: Row) -> Result:
    """Compare the file's names, features, what it says of them, labels and period with the spec's.

    Programs that read the file rely on them, so a difference is a failure. ``row`` is the shape of the module's rows.
    """
    if row != spec.input.row_shape:
        rows = f"rows of shape {list(row)}, and the spec's input has {list(spec.input.row_shape)}"
        return "failed", f"the module takes {rows}"
    names = [value.name for value in (*model.inputs, *model.proto.graph.output)]
    spec_names = [spec.input.name, spec.output.name]
    if names != spec_names:
        ends = "input and output" if len(names) == 2 else "inputs and outputs"
        have, need = (" and ".join(f"'{name}'" for name in each) for each in (names, spec_names))
        hint = f"input: {{name: {names[0]}}} and output: {{name: {names[-1]}}} in the spec take the file's names"
        hint = f". What to do: {hint}" if len(names) == 2 else ""
        return "failed", f"{ends} are {have}, and the spec's are {need}{hint}"
    source, sink = Port(spec.input.name, ()), Port(spec.output.name, ())
    expected = _declarations(declared_input(source, spec.input), declared_output(sink, spec))
    summary = _summary(model)
    if summary is None or not summary.inputs or not summary.outputs:
        if missing := ", ".join(key for key, value in expected.items() if value):
            return "warning", f"the file does not say its {missing}; the spec does"
        return "passed", "input and output have the spec's names"
    declared = _declarations(summary.inputs[0], summary.outputs[0])
    for key, value in expected.items():
        if declared[key] != value:
            return "failed", f"the {key} of the file are {declared[key]}, and the spec's {value}"
    if summary.period != spec.period:
        periods = (f"of {each!r} s" if each else "without a period" for each in (summary.period, spec.period))
        return "failed", "the file is {}, and the spec {}".format(*periods)
    return "passed", "names, features, units, ranges and labels are the spec's"


def declared_names(model: Model) -> list[str]:
    """What the file declares that only a spec can confirm: "the features of 'x'", and so on."""
    summary = _summary(model)
    ports = (*summary.inputs, *summary.outputs) if summary is not None else ()
    names = [f"the {kind} of '{port.name}'" for port in ports for kind in _KINDS if getattr(port, kind)]
    return names + (["the period"] if summary is not None and summary.period else [])


def _declarations(source: Port, sink: Port) -> dict[str, list[object]]:
    of_input = {name: getattr(source, name) for name in ("features", "range", *_OF_FEATURES)}
    of_output = {f"output {name}": getattr(sink, name) for name in ("features", *_OF_FEATURES)}
    return {name: list(value or ()) for name, value in (of_input | {"labels": sink.labels} | of_output).items()}


def _summary(model: Model) -> Summary | None:
    return summary_of({entry.key: entry.value for entry in model.proto.metadata_props})
