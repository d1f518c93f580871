"""What a file says of its inputs and outputs, beside what the spec says: names, features, units, ranges and labels."""

from __future__ import annotations

from builder import MLPSpec
from export.description import declared_input, declared_output
from export.onnxfile.reading import Model
from runtime import Port, summary_of

from .findings import Findings


def compare_interface(model: Model, spec: MLPSpec | None, shape: tuple[int, ...], found: Findings) -> None:
    """A program that reads the file goes by these words, so one that differs from the spec's is a failure.

    ``shape`` is that of the rows which the module takes.
    """
    if spec is None:
        return
    if shape != spec.input.row_shape:
        rows = f"rows of shape {list(shape)}, and the spec's input has {list(spec.input.row_shape)}"
        found.failed("interface", f"the module takes {rows}")
        return
    names = [value.name for value in (*model.inputs, *model.proto.graph.output)]
    wanted = [spec.input.name, spec.output.name]
    if names != wanted:
        what = "input and output" if len(names) == 2 else "inputs and outputs"
        found.failed("interface", f"{what} are {_listed(names)}, and the spec's are {_listed(wanted)}")
        return
    summary = summary_of({entry.key: entry.value for entry in model.proto.metadata_props})
    should = _told(
        declared_input(Port(spec.input.name, ()), spec.input), declared_output(Port(spec.output.name, ()), spec)
    )
    if summary is None or not summary.inputs or not summary.outputs:
        held = ", ".join(key for key, value in should.items() if value)
        if held:
            found.warned("interface", f"the file does not say its {held}; the spec does")
        else:
            found.passed("interface", "input and output have the spec's names")
        return
    says = _told(summary.inputs[0], summary.outputs[0])
    other = next((key for key in should if says[key] != should[key]), None)
    if other is not None:
        found.failed("interface", f"the {other} of the file are {says[other]}, and the spec's {should[other]}")
    else:
        found.passed("interface", "names, features, units, ranges and labels are the spec's")


def _told(source: Port, sink: Port) -> dict[str, list[object]]:
    return {
        "features": list(source.features or ()),
        "units": list(source.units or ()),
        "range": list(source.range or ()),
        "ranges": list(source.ranges or ()),
        "labels": list(sink.labels or ()),
        "output features": list(sink.features or ()),
        "output units": list(sink.units or ()),
        "output ranges": list(sink.ranges or ()),
    }


def _listed(names: list[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
