"""The table of operators: what each becomes in C; and the reading of a file by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto, NodeProto

from export.errors import TargetError
from export.onnxfile.model import Model, live_and_dead
from export.onnxfile.reading import model_of, read_model

from . import elementwise, linear, movement, segments
from .program import Program
from .step import Steps

OPERATORS: dict[str, Callable[[Program, NodeProto], Steps]] = {
    **linear.OPERATORS,
    **elementwise.OPERATORS,
    **segments.OPERATORS,
    **movement.OPERATORS,
}
"""By the name of the ONNX operator: its steps, for a program that it may add constants and functions to."""


def read_program(source: Path | bytes | Model, prefix: str) -> Program:
    """The program of a file, or of the bytes of one.

    Raises ModelError: not an ONNX file; TargetError: an operator that C cannot hold yet.
    """
    if isinstance(source, bytes):
        proto = ModelProto()
        proto.ParseFromString(source)
        source = model_of(Path("model.onnx"), proto)
    model = read_model(source) if isinstance(source, Path) else source
    if model.problem is not None:  # readers understand the file in different ways
        raise TargetError(f"{model.path.name}: {model.problem}. What to do: export the module again")
    program = Program(model, prefix)
    live, _ = live_and_dead(model.proto.graph.node, program.outputs)
    for node in live:
        if set(node.output) <= model.constants.keys() or model.sizes(node.output[0]) is not None:
            continue
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            program.refuse(node, "there are no C statements for it")
        program.steps.append((node, OPERATORS[node.op_type](program, node)))
    program.finish()
    return program
