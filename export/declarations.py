"""What is said of a network's inputs and outputs, by its spec or beside its module, and the ports that say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from builder import MLPSpec, PortSpec
from builder.features import FeatureSpec
from builder.ports import port_specs
from builder.values import is_list, is_mapping
from runtime import Port
from runtime.model.port import Vocabulary

from .errors import ExportError
from .graph import Graph
from .operators.movement import MOVES

Said = Mapping[str, PortSpec]
"""What is said of inputs and outputs, by their names."""
FeaturesArgument = Sequence[Any] | Mapping[str, Any]
"""A list of features of the only input, or what is said of inputs and outputs by their names."""
_PROBABILITIES, _LOGITS = ("sigmoid", "softmax", "_softmax"), ("linear", "matmul", "addmm", "mm")


def said_by(spec: MLPSpec) -> Said:
    """What a spec says of each of its inputs, and of its output."""
    said = {
        port.name: PortSpec.model_construct(
            features=port.features if is_list(port.features) else None,
            range=port.range,
            missing=spec.takes_missing(port),
        )
        for port in spec.inputs
    }
    output, scores = spec.output, spec.scores if spec.output.labels else None
    return said | {output.name: PortSpec.model_construct(features=output.features, labels=output.labels, scores=scores)}


def said_of(features: FeaturesArgument | None, inputs: Sequence[str]) -> Said:
    """What a caller says of a module with these inputs. Raises SpecError and ExportError."""
    if features is None:
        return {}
    if isinstance(features, Mapping):
        return port_specs(features)
    if len(inputs) != 1:
        message = f"one list of features is given, and the module takes {len(inputs)} inputs: {', '.join(inputs)}"
        raise ExportError(f"{message}. What to do: give the features by the input's name, {{'{inputs[0]}': [...]}}")
    return port_specs({inputs[0]: list(features)})


def ports_said(said: Said, inputs: Sequence[str], shape: Any, dtype: Any) -> tuple[Any, Any]:
    """The shapes and types of inputs as they are given or, where they are not, as many as the features that are said.

    An input with categories is int64.
    """
    rows = {name: (len(said[name].listed or ()),) for name in inputs if name in said and said[name].listed}
    whole = [name for name in rows if any(feature.categories for feature in said[name].listed or ())]
    if len(inputs) == 1:
        return shape if shape is not None else rows or None, dtype if dtype is not None or not whole else "int64"
    types = dict.fromkeys(whole, "int64")
    shapes = {**rows, **shape} if is_mapping(shape) else shape if shape is not None else rows or None
    return shapes, {**types, **dtype} if is_mapping(dtype) else dtype if dtype is not None else types or None


def declared(port: Port, said: Said) -> Port:
    """The port with the features, units, ranges, labels and so on that are said of it, in place of its own."""
    spec = said.get(port.name)
    if spec is None:
        return port
    indices = port.indices
    vocabularies = _vocabularies(spec.listed)
    if vocabularies is not None and indices is not None:
        indices = tuple(
            limits or (None if vocabulary is None else (0, len(vocabulary.words) - 1))
            for limits, vocabulary in zip(indices, vocabularies, strict=True)
        )
    elif vocabularies is not None:
        indices = tuple(None if v is None else (0, len(v.words) - 1) for v in vocabularies)
    return replace(
        port,
        range=(spec.range[0], spec.range[1]) if spec.range else None,
        labels=tuple(spec.labels) if spec.labels else None,
        scores=spec.scores if spec.labels else None,
        missing=spec.missing,
        categories=vocabularies,
        indices=indices,
        **_features(spec.listed),
    )


def _features(listed: Sequence[FeatureSpec] | None) -> dict[str, Any]:
    units = tuple(feature.unit for feature in listed or ())
    ranges = tuple((feature.range[0], feature.range[1]) if feature.range else None for feature in listed or ())
    descriptions = tuple(feature.description for feature in listed or ())
    return {
        "features": tuple(feature.name for feature in listed) if listed else None,
        "units": units if any(units) else None,
        "ranges": ranges if any(ranges) else None,
        "descriptions": descriptions if any(descriptions) else None,
    }


def _vocabularies(listed: Sequence[FeatureSpec] | None) -> tuple[Vocabulary | None, ...] | None:
    found = tuple(
        None if feature.categories is None else Vocabulary(tuple(feature.categories), feature.unknown_code)
        for feature in listed or ()
    )
    return found if any(found) else None


def with_scores(said: Said, graph: Graph) -> Said:
    """What labelled outputs hold, where it is not said: probabilities or logits, by their last operator."""
    return {
        name: spec.model_copy(update={"scores": _scores(graph, graph.outputs[name])})
        if name in graph.outputs and spec.labels and spec.scores is None
        else spec
        for name, spec in said.items()
    }


def _scores(graph: Graph, value: str) -> str:
    producers = {node.output: node for node in graph.nodes}
    while (node := producers.get(value)) is not None and node.op in MOVES and len(node.inputs) == 1:
        value = node.inputs[0]
    op = "" if node is None else node.op
    return "probabilities" if op in _PROBABILITIES else "logits" if op in _LOGITS else "values"


def refuse_misfits(said: Said, inputs: Iterable[Port], outputs: Iterable[Port]) -> None:
    """Raise ExportError where what is said does not fit the network's inputs and outputs."""
    ports = {port.name: (port, kind) for kind, each in (("input", inputs), ("output", outputs)) for port in each}
    for name, spec in said.items():
        if name not in ports:
            listed = ", ".join(f"'{port}' ({kind})" for port, (_, kind) in ports.items())
            raise ExportError(f"features are given for '{name}'; the module has {listed}")
        port, kind = ports[name]
        if (problem := _misfit(spec, port, kind)) is not None:
            raise ExportError(f"the {kind} '{name}' {problem}")


def _misfit(spec: PortSpec, port: Port, kind: str) -> str | None:
    width, listed = _width(port), spec.listed or []
    if kind == "input" and spec.labels:
        return "has labels, which are the classes of an output"
    if kind == "output" and (spec.missing or spec.range or any(feature.categories for feature in listed)):
        return "has a range, categories or missing values, which an input has; the classes of an output are its labels"
    if kind == "output" and "label" in [feature.name for feature in listed]:
        return "has a feature 'label', a column that predict writes for labels: choose another name"
    if listed and len(listed) != width:
        return f"has {width} values a row, and {len(listed)} features are given"
    if spec.labels and len(spec.labels) != width and (len(spec.labels), width) != (2, 1):
        return f"has {width} values a row, and {len(spec.labels)} labels are given"
    if spec.labels and width == 1 and spec.scores == "values":
        return "has two labels for one value, which is neither of sigmoid nor of a linear layer: say its scores"
    if spec.missing and port.dtype != "float32":
        return f"is {port.dtype}, which has no NaN for a missing value"
    for index, feature in enumerate(listed):
        if feature.categories is None:
            continue
        if port.dtype != "int64":
            return f"is {port.dtype}, and the categories of '{feature.name}' are whole numbers (input_dtype='int64')"
        limits = port.indices[index] if port.indices is not None else None
        if limits is not None and (limits[0] > 0 or limits[1] < len(feature.categories) - 1):
            counts = f"codes from {limits[0]} to {limits[1]}, and {len(feature.categories)} categories are given"
            return f"takes for '{feature.name}' {counts}"
    return None


def _width(port: Port) -> int:
    return prod(size for size in port.shape[1:] if isinstance(size, int))
