"""The kinds of reduced precision, and how each spells a linear layer in ONNX operators.

A kind may have several ways, the fastest first; the one that is written is the first whose products are exact on the
machine (``export.variants.exactness``): on some processors a fast one saturates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from export.emitter import unique
from runtime.processor import PAIRS

from .layers import Layer
from .quantising import activation_range, per_block, per_column

MICROSOFT = "com.microsoft"
Range = tuple[float, float]


@dataclass
class Spelling:
    """Takes the operators and constants of one layer, under names of its own."""

    layer: Layer
    taken: set[str]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def constant(self, role: str, values: np.ndarray) -> str:
        name = unique(f"{self.layer.name}.{role}", self.taken)
        self.constants[name] = values
        return name

    def step(self, op_type: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """An operator inside the layer; the names of its outputs."""
        path = f"{self.layer.name}/{op_type}"
        made = [unique(f"{path}.output", self.taken) for _ in range(outputs)]
        self._add(op_type, inputs, made, path, attributes)
        return made

    def last(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> None:
        """The operator that gives the layer's value."""
        self._add(op_type, inputs, [self.layer.output], f"{self.layer.name}/{op_type}", attributes)

    def _add(self, op_type: str, inputs: Sequence[str], outputs: list[str], path: str, given: dict[str, Any]) -> None:
        name = unique(path, self.taken)
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, name=name, **given))


Spell = Callable[[Spelling, Range], None]


@dataclass(frozen=True)
class Kind:
    """A way to hold a network in fewer bits."""

    words: str
    ways: dict[str, Spell]
    opset: int
    """The lowest that has its operators."""
    calibrated: bool = False
    """Whether it needs the ranges of the layers' inputs on rows of the user."""
    by_batch: bool = False
    """Whether a row's result depends on the rows beside it."""
    domains: tuple[str, ...] = ()
    """Of operators beside those of ONNX."""


def _float16(spelling: Spelling, _: Range) -> None:
    """The weight is stored as float16; ONNX Runtime makes it float32 once, when it opens the file."""
    layer = spelling.layer
    held = spelling.constant("weight.float16", np.ascontiguousarray(layer.weight.T).astype(np.float16))
    (weight,) = spelling.step("Cast", [held], to=TensorProto.FLOAT)
    bias = [] if layer.bias is None else [spelling.constant("bias", layer.bias)]
    spelling.last("Gemm", [layer.input, weight, *bias], transB=1)


def _dynamic(signed: bool) -> Spell:
    """Rows become uint8 by the range of the batch; in this order ONNX Runtime makes all of it one operator."""

    def spell(spelling: Spelling, _: Range) -> None:
        layer = spelling.layer
        held, scale = per_column(layer.weight)
        zero = []
        if not signed:
            held, zero = (held.astype(np.int16) + 128).astype(np.uint8), [np.asarray(128, np.uint8)]
        weight = spelling.constant("weight.int8", held)
        zeros = [spelling.constant("weight.zero_point", value) for value in zero]
        quantised, step, zero_point = spelling.step("DynamicQuantizeLinear", [layer.input], 3)
        (product,) = spelling.step("MatMulInteger", [quantised, weight, zero_point, *zeros])
        (product,) = spelling.step("Cast", [product], to=TensorProto.FLOAT)
        (factor,) = spelling.step("Mul", [step, spelling.constant("weight.scale", scale)])
        if layer.bias is None:
            spelling.last("Mul", [product, factor])
            return
        (product,) = spelling.step("Mul", [product, factor])
        spelling.last("Add", [product, spelling.constant("bias", layer.bias)])

    return spell


def _static(spelling: Spelling, limits: Range) -> None:
    """Input, weight and bias are quantised and read back: ONNX Runtime makes a product of integers of it."""
    layer = spelling.layer
    step, zero = activation_range(*limits)
    least = None if layer.bias is None else np.abs(layer.bias) / (step * np.float32(2**30))  # the bias is an int32
    held, scale = per_column(layer.weight, least)
    read = []
    constants = [("weight", np.ascontiguousarray(held.T), scale)]
    if layer.bias is not None:
        joint = (step * scale).astype(np.float32)
        joint = np.where(joint == 0, np.float32(1), joint)
        limit = 2**31 - 1
        bias = np.clip(np.rint(layer.bias.astype(np.float64) / joint), -limit, limit).astype(np.int32)
        constants.append(("bias", bias, joint))
    for role, values, each in constants:
        names = [spelling.constant(f"{role}.{values.dtype}", values), spelling.constant(f"{role}.scale", each)]
        names.append(spelling.constant(f"{role}.zero_point", np.zeros(len(each), values.dtype)))
        read += spelling.step("DequantizeLinear", names, axis=0)
    names = [spelling.constant("input.scale", step), spelling.constant("input.zero_point", zero)]
    (quantised,) = spelling.step("QuantizeLinear", [layer.input, *names])
    (rows,) = spelling.step("DequantizeLinear", [quantised, *names])
    spelling.last("Gemm", [rows, *read], transB=1)


def _blocks(bits: int, block: int, accuracy_level: int) -> Spell:
    """Accuracy level 4 makes integers of the rows too, block by block; level 1 computes in float32."""

    def spell(spelling: Spelling, _: Range) -> None:
        layer = spelling.layer
        rows, columns = layer.weight.shape
        size = min(block, max(16, 2 ** (rows - 1).bit_length()))
        held, scale = per_block(layer.weight, bits, size)
        names = [layer.input, spelling.constant(f"weight.{bits}bit", held), spelling.constant("weight.scale", scale)]
        names += [] if layer.bias is None else ["", "", spelling.constant("bias", layer.bias)]
        options = {"K": rows, "N": columns, "bits": bits, "block_size": size, "accuracy_level": accuracy_level}
        spelling.last("MatMulNBits", names, domain=MICROSOFT, **options)

    return spell


def _weights_only(bits: int, block: int) -> Kind:
    ways = {"rows as int8": _blocks(bits, block, 4), "rows as float32": _blocks(bits, block, 1)}
    words = f"{bits}-bit weights, a scale for every {block} of them"
    return Kind(words, ways, opset=7, domains=(MICROSOFT,))


KINDS: dict[str, Kind] = {
    "float16": Kind("weights stored as float16, computed in float32", {"float32 products": _float16}, opset=9),
    "int8-dynamic": Kind(
        "8-bit weights, a scale for every output; rows become 8-bit by the range of their batch",
        {PAIRS: _dynamic(signed=True), "u8 rows, u8 weights": _dynamic(signed=False)},
        opset=11,
        by_batch=True,
    ),
    "int8-static": Kind(
        "8-bit weights, a scale for every output; rows become 8-bit by ranges found on your rows",
        {"s8 rows, s8 weights": _static},
        opset=13,
        calibrated=True,
    ),
    "weights8": _weights_only(8, 128),
    "weights4": _weights_only(4, 32),
}
"""By the name that stands in the file's name."""
