"""Finds blocks that an ONNX file writes as one or several operators, with the patterns that the proof uses.

Each block that the file may contain is tried with the numbers near the value; so what is recovered is what the proof
accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, get_args

import numpy as np
from onnx import NodeProto

from builder.block import FLOAT32_MAX
from builder.blocks import ACTIVATIONS
from export.graph import Node, Rows, Shape
from export.onnxfile.model import Model, attributes_of
from export.onnxfile.pattern_matching import matches
from export.onnxfile.patterns import PATTERNS

from .graph_blocks import ATEN_BLOCKS, operator_blocks, shortest
from .recovered import NotABlock, Step
from .row_layout import Layout

_NEAR = 6
"""Operators in a row that may hold an option of a block."""
_ALWAYS_A_BLOCK = {"LayerNormalization", "Softmax"}
"""Operators that ``onnx_operators`` reads, with all their options."""
_NOT_BLOCKS = ("hardswish", "mish")
"""Activations of several operators, which are found in order to be refused by their names."""
_CANDIDATES = tuple(
    dict.fromkeys((*(kind for kind in ACTIVATIONS if kind in PATTERNS), "layer_norm", "clamp", *_NOT_BLOCKS))
)
"""Operators by their names in ``torch.ops.aten``. The match with the most operators wins, then the first."""
Attributes = dict[str, Any]


def _choices(kind: str, shape: Shape, numbers: tuple[float, ...]) -> Iterable[Attributes]:
    """The attributes that an operator on a value of ``shape`` may have, with these numbers in the file."""
    width = int(np.prod([size for size in shape if isinstance(size, int)]))
    axes = [axis for axis, size in enumerate(shape) if size == width]
    if kind == "softmax":
        return [{"dim": axis} for axis in axes]
    if kind == "layer_norm":
        return [{"normalized_shape": shape[axis:], "eps": number} for axis in axes for number in numbers]
    if kind == "clamp":
        bounds = product((-np.inf, -FLOAT32_MAX, 0.0, *numbers), (np.inf, FLOAT32_MAX, *numbers))
        return [{"min": low, "max": high} for low, high in bounds if not np.isinf([low, high]).all()]
    options = ACTIVATIONS[kind].model_fields if kind in ACTIVATIONS else {}
    values = [get_args(field.annotation) or (field.default, *numbers) for field in options.values()]
    return [dict(zip(options, chosen, strict=True)) for chosen in product(*values)]


@cache
def _operators(kind: str) -> tuple[frozenset[str], frozenset[str]]:
    """The operators that a block's patterns may begin with, and all operators in them."""
    shape: Shape = (Rows(), 2)
    patterns = [
        pattern
        for attributes in _choices(kind, shape, (0.0, 0.5))
        for pattern in PATTERNS[kind](Node(kind, "", ("x",), "", shape, attributes))
    ]
    first = frozenset(pattern[0].op for pattern in patterns)
    return first, frozenset(step.op for pattern in patterns for step in pattern)


def pattern_operators() -> frozenset[str]:
    """Every operator in the patterns of the blocks."""
    return frozenset[str]().union(*(_operators(kind)[1] for kind in _CANDIDATES))


@dataclass(frozen=True)
class PatternMatch:
    """A block in a file: the operator of PyTorch that it is, and the file's operators."""

    node: Node
    operators: tuple[NodeProto, ...]

    def read(self, model: Model, layout: Layout) -> tuple[list[Step], Layout]:
        """The blocks, and the layout of the result: constants may add dimensions of 1. Raises NotABlock."""
        for operator in self.operators:
            attributes = attributes_of(operator, model.opset)
            constants = [model.constants[name] for name in operator.input if name in model.constants]
            if operator.op_type.startswith("Reduce"):
                if not attributes["keepdims"]:
                    raise NotABlock(f"reduces {layout} without keeping its dimensions")
                for axis in attributes.get("axes", constants[0].tolist() if constants else ()):
                    layout.axis(axis)
            elif operator.op_type != "Clip":
                for constant in constants:
                    if operator.op_type == "PRelu" and constant.ndim > len(layout.dims):
                        words = f"has slopes of {constant.ndim} dimensions; at most {len(layout.dims)} are expected"
                        raise NotABlock(words)
                    _, layout = layout.per_feature(constant, "a number of an activation")
        if self.node.op not in ATEN_BLOCKS:
            raise NotABlock(f"gives a {self.node.op}, an activation that no block has")
        return operator_blocks(self.node), layout


def find_block(model: Model, value: str, layout: Layout, used: set[int]) -> PatternMatch | None:
    """The block whose operators, without those ``used``, are all that read ``value``."""
    source = model.value(value)
    readers = [node for node in model.consumers(source) if id(node) not in used]
    first_operators = {node.op_type for node in readers} - _ALWAYS_A_BLOCK
    kinds = [kind for kind in _CANDIDATES if first_operators & _operators(kind)[0]]
    if not kinds:
        return None
    shape = tuple(Rows() if size is None else size for size in layout.dims)
    numbers = _numbers_near(model, readers)
    longest: PatternMatch | None = None
    for kind in kinds:
        for attributes in _choices(kind, shape, numbers):
            node = Node(kind, "", (value,), "", shape, attributes)
            for operators, _, differences in matches(node, [source], model, used):
                longer = longest is None or len(operators) > len(longest.operators)
                if longer and not differences and _is_closed(model, value, readers, operators):
                    longest = PatternMatch(node, operators)
    return longest


def _is_closed(model: Model, value: str, readers: list[NodeProto], operators: tuple[NodeProto, ...]) -> bool:
    """Whether a block's operators read only the value (in this very shape) and each other, and only they read these."""
    values = {value, "", *(name for node in operators for name in node.output)}
    inputs = {name for node in operators for name in node.input if name not in model.constants}
    inner_readers = [reader for node in operators[:-1] for reader in model.consumers(node.output[0])]
    ids = {id(node) for node in operators}
    return inputs <= values and all(id(node) in ids for node in (*readers, *inner_readers))


def _numbers_near(model: Model, readers: list[NodeProto]) -> tuple[float, ...]:
    """The numbers in the next few operators, each as the shortest decimal of its float32."""
    values: dict[float, None] = {}
    reached: Mapping[int, NodeProto] = {id(node): node for node in readers}
    for _ in range(_NEAR):
        for node in reached.values():
            constants = [model.constants[name] for name in node.input if name in model.constants]
            flat = [constant.reshape(-1) for constant in constants if constant.dtype == np.float32 and constant.size]
            numbers = [entries[0] for entries in flat if bool((entries == entries[0]).all())]
            numbers += [number for number in attributes_of(node, model.opset).values() if isinstance(number, float)]
            values |= dict.fromkeys(shortest(number) for number in numbers)
        reached = {id(n): n for node in reached.values() for name in node.output for n in model.consumers(name)}
    return tuple(number for number in values if np.isfinite(number))
