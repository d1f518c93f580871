"""From what the checks hold in memory to the records of a report."""

from __future__ import annotations

from export.graph import Shape, row_of

from .layerwise import Element, LayerCheck
from .report import ConstantRecord, ElementRecord, LayerRecord
from .rules.constants import CONSTANTS

_FEATURES = 64


def element_record(element: Element) -> ElementRecord:
    """One element with the input row that led to it."""
    x = element.x.reshape(-1)
    given = {**vars(element), "file": element.found, "x": x[:_FEATURES].tolist(), "features": x.size}
    return ElementRecord.model_validate(given)


def layer_records(checks: list[LayerCheck], shapes: dict[str, Shape]) -> list[LayerRecord]:
    """What was found of every layer."""
    makers = {check.layers[-1].output: check.path for check in checks}
    return [_layer_record(check, shapes, makers) for check in checks]


def _layer_record(check: LayerCheck, shapes: dict[str, Shape], makers: dict[str, str]) -> LayerRecord:
    first, last = check.layers[0], check.layers[-1]
    return LayerRecord(
        path=check.path,
        op=", ".join(layer.op for layer in check.layers),
        inputs=[makers.get(name, "input") for name in first.inputs],
        operators=[node.op_type for layer in check.layers for node in layer.nodes],
        input_shape=[size for name in first.members[0].inputs[:1] for size in row_of(shapes[name])],
        output_shape=list(last.held.row),
        parameters=sum(layer.parameters for layer in check.layers),
        compared=check.compared,
        exempt=check.exempt,
        by_kind=check.by_kind,
        ratio=check.ratio,
        likely=check.likely,
        shares=check.shares,
        histogram=check.histogram.tolist(),
        worst=element_record(check.worst) if check.worst is not None else None,
    )


def constant_record(name: str, share: float | None) -> ConstantRecord:
    """An activation's constants and how much of its bound it took over the whole range."""
    absolute, relative, argument = CONSTANTS[name].limits
    source = CONSTANTS[name].source
    return ConstantRecord(
        block=name, absolute=absolute, relative=relative, argument=argument, source=source, share=share
    )
