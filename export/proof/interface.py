"""What a file declares of its inputs and outputs, beside what the spec declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import onnx

from builder import MLPSpec, PortSpec
from builder.block import MAX_FEATURES
from export.declarations import Said, declared
from export.graph import ELEMENT_TYPES, Graph, Input
from export.onnxfile.model import Model, row_shape
from runtime import ModelError, Port, Summary, summary_of
from runtime.model.port import Vocabulary

from .state import Result

_KINDS = ("features", "range", "units", "ranges", "descriptions", "categories", "labels")
"""What a port may declare of its values, besides their shape and type."""
_MOST_VALUES = 2**28
"""Of a batch that a file fixes."""


def said_ports(model: Model, said: Said) -> list[Port]:
    """The file's inputs, with the features and ranges that are said of them, or else those that the file declares."""
    if not model.inputs or not model.proto.graph.output:
        raise ModelError(f"{model.path}: the model has no {'output' if model.inputs else 'input'}")
    own = ports_of(model)
    if not said:
        return own
    bare = [Port(port.name, port.shape, dtype=port.dtype) for port in own]
    return [declared(port, said) if _fits(port, said.get(port.name)) else port for port in bare]


def _fits(port: Port, spec: PortSpec | None) -> bool:
    """Whether an input has as many features as are said of it; a file that does not fit fails for that."""
    return spec is not None and (spec.listed is None or len(spec.listed) == prod(map(int, port.shape[1:])))


def joined_port(ports: Sequence[Port]) -> Port:
    """The port of rows that hold the values of several inputs side by side; the only input's own."""
    if len(ports) == 1:
        return ports[0]
    names: list[str] = []
    units: list[str | None] = []
    ranges: list[tuple[float, float] | None] = []
    for port in ports:
        width = prod(size for size in port.shape[1:] if isinstance(size, int))
        unknown = (None,) * width
        names += port.features or (f"{port.name}[{index}]" for index in range(width))
        units += port.units or unknown
        ranges += [own or port.range for own in port.ranges or unknown]
    has_ranges, missing = tuple(ranges) if any(ranges) else None, any(port.missing for port in ports)
    return Port("the inputs", ("batch", len(names)), tuple(names), tuple(units), None, has_ranges, missing=missing)


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


def compare_interface(model: Model, spec: MLPSpec | None, said: Said, inputs: Mapping[str, Input]) -> Result:
    """Compare the file's names, features, what it says of them, labels and period with the spec's, or with ``said``.

    Programs that read the file rely on them, so a difference is a failure. ``inputs`` are the module's.
    """
    if spec is not None and (problem := _other_ports(model, spec, inputs)) is not None:
        return "failed", problem
    summary, names = _summary(model), [value.name for value in (*model.inputs, *model.proto.graph.output)]
    has_ports = summary is not None and bool(summary.inputs and summary.outputs)
    ports = dict(zip(names, (*summary.inputs, *summary.outputs), strict=False)) if summary and has_ports else {}
    wanted = {name: _declarations(declared(Port(name, ()), {name: each})) for name, each in said.items()}
    if not ports:
        said_kinds = (key for of_port in wanted.values() for key, value in of_port.items() if value and key != "scores")
        kinds = dict.fromkeys(said_kinds)
        if kinds:
            return "warning", f"the file does not say its {', '.join(kinds)}; {_source(spec)}"
        return "passed", "input and output have the spec's names"
    for name, expected in wanted.items():
        if name not in ports:
            return "failed", f"the file declares nothing of '{name}'; {_source(spec)}"
        found, of = _declarations(ports[name]), f" of '{name}'" if len(wanted) > 2 or spec is None else ""
        output = "output " if name not in {value.name for value in model.inputs} else ""
        for key, value in expected.items():
            if found[key] != value and not (key == "scores" and value == "not said"):
                what = f"{'' if key in ('labels', 'scores') else output}{key}{of}"
                have, need = (each or "none" for each in (found[key], value))
                return "failed", f"the {what} of the file are {have}, and {_whose(spec)} {need}"
    if spec is not None and summary is not None and summary.period != spec.period:
        periods = (f"of {each!r} s" if each else "without a period" for each in (summary.period, spec.period))
        return "failed", "the file is {}, and the spec {}".format(*periods)
    return "passed", f"names, features, units, ranges and labels are {_whose(spec)}"


def _source(spec: MLPSpec | None) -> str:
    return "the spec does" if spec is not None else "the given features do"


def _whose(spec: MLPSpec | None) -> str:
    return "the spec's" if spec is not None else "the given ones"


def _other_ports(model: Model, spec: MLPSpec, inputs: Mapping[str, Input]) -> str | None:
    """How the module's rows, or the file's names, are not the spec's."""
    rows, spec_rows = [list(port.row) for port in inputs.values()], [list(port.row_shape) for port in spec.inputs]
    if rows != spec_rows:
        one = len(rows) == len(spec_rows) == 1
        shapes = (f"rows of shape {', '.join(map(str, each))}" for each in (rows, spec_rows))
        has = "the spec's input has {}" if one else "the spec's inputs have {}"
        found, expected = shapes
        return f"the module takes {found}, and {has.format(expected.removeprefix('rows of shape '))}"
    names = [value.name for value in (*model.inputs, *model.proto.graph.output)]
    spec_names = [*(port.name for port in spec.inputs), spec.output.name]
    if names == spec_names:
        return None
    ends = "input and output" if len(names) == 2 else "inputs and outputs"
    have, need = (" and ".join(f"'{name}'" for name in each) for each in (names, spec_names))
    hint = f"input: {{name: {names[0]}}} and output: {{name: {names[-1]}}} in the spec take the file's names"
    hint = f". What to do: {hint}" if len(names) == 2 else ""
    return f"{ends} are {have}, and the spec's are {need}{hint}"


def declared_names(model: Model, graph: Graph) -> list[str]:
    """What the file declares that only a spec can confirm: "the features of 'x'", and so on.

    Missing values are the network's own where it asks which values are NaN.
    """
    imputes = any(node.op == "isnan" for node in graph.nodes)
    summary = _summary(model)
    ports = (*summary.inputs, *summary.outputs) if summary is not None else ()
    names = [f"the {kind} of '{port.name}'" for port in ports for kind in _KINDS if getattr(port, kind)]
    names += [f"the missing values of '{port.name}'" for port in ports if port.missing and not imputes]
    return names + (["the period"] if summary is not None and summary.period else [])


def _declarations(port: Port) -> dict[str, list[object] | str]:
    """What a port declares, by the words of messages."""
    listed: dict[str, list[object] | str] = {kind: list(getattr(port, kind) or ()) for kind in _KINDS}
    listed["categories"] = [None if each is None else _words(each) for each in port.categories or ()]
    listed["missing values"] = "taken" if port.missing else ""
    return listed | ({"scores": port.scores or "not said"} if port.labels else {})


def _words(vocabulary: Vocabulary) -> str:
    other = "" if vocabulary.unknown is None else f", other words are {vocabulary.words[vocabulary.unknown]}"
    return ", ".join(vocabulary.words) + other


def _summary(model: Model) -> Summary | None:
    return summary_of({entry.key: entry.value for entry in model.proto.metadata_props})
