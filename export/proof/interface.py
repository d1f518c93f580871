"""What a file says of its inputs and outputs, beside what the spec says: names, features, range and labels."""

from __future__ import annotations

from builder import MLPSpec
from runtime import Summary, summary_of

from .findings import Findings
from .reading import Model


def compare_interface(model: Model, spec: MLPSpec | None, found: Findings) -> None:
    """A program that reads the file goes by these words, so one that differs from the spec's is a failure."""
    if spec is None:
        return
    names = [value.name for value in (*model.inputs, *model.proto.graph.output)]
    wanted = [spec.input.name, spec.output.name]
    if names != wanted:
        found.failed("interface", f"inputs and outputs are {_listed(names)}, and the spec's are {_listed(wanted)}")
        return
    summary = summary_of({entry.key: entry.value for entry in model.proto.metadata_props})
    says, should = _declared(summary), _wanted(spec)
    if summary is None:
        held = ", ".join(key for key, value in should.items() if value)
        if held:
            found.warned("interface", f"the file does not say its {held}; the spec does")
        else:
            found.passed("interface", "input and output have the spec's names")
        return
    other = next((key for key in should if says[key] != should[key]), None)
    if other is not None:
        found.failed("interface", f"the {other} of the file are {says[other]}, and the spec's {should[other]}")
    else:
        found.passed("interface", "names, features, range and labels are the spec's")


def _declared(summary: Summary | None) -> dict[str, object]:
    if summary is None or not summary.inputs or not summary.outputs:
        return {}
    source, sink = summary.inputs[0], summary.outputs[0]
    return {
        "features": list(source.features or ()),
        "range": [float(limit) for limit in source.range or ()],
        "labels": list(sink.labels or ()),
    }


def _wanted(spec: MLPSpec) -> dict[str, object]:
    return {
        "features": list(spec.input.feature_names or ()),
        "range": [float(limit) for limit in spec.input.range or ()],
        "labels": list(spec.output.labels or ()),
    }


def _listed(names: list[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
