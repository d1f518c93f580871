"""Blocks in one operator or in several: found with the patterns that the proof uses.

A block that a file may spell is guessed with the numbers that stand near, and its patterns are compared with the file's
operators. So what is read here is what the proof accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from onnx import NodeProto

from builder.block import FLOAT32_MAX as LARGEST
from export.graph import Node, Rows, Shape
from export.onnxfile.model import Model, attributes_of
from export.onnxfile.pattern_matching import matches
from export.onnxfile.patterns import PATTERNS

from .onnx_operators import shortest
from .recovered import Step
from .row_layout import Layout, Unfit

_NEAR = 6
"""Operators in a row among which an option of a block may stand."""
_WITH_TENSORS = {"LayerNormalization", "Softmax"}
"""Operators that are blocks by themselves, whatever their constants."""
_UNBOUNDED = 3.402823e38
"""What ONNX writes for a Clip without a bound."""
Attributes = dict[str, Any]


@dataclass(frozen=True)
class _Candidate:
    """An operator of PyTorch that is a block: its attributes in a shape and with numbers, and the block of those."""

    attributes: Callable[[Shape, tuple[float, ...]], Iterable[Attributes]]
    steps: Callable[[Attributes, str], list[Step]]


def _plain(kind: str) -> _Candidate:
    return _Candidate(lambda shape, numbers: [{}], lambda given, last: [Step(kind)])


def _options(kind: str, **defaults: tuple[float, ...]) -> _Candidate:
    """A block of numbers: those near, and those that it has by default."""

    def attributes(shape: Shape, numbers: tuple[float, ...]) -> Iterator[Attributes]:
        for values in product(*((*default, *numbers) for default in defaults.values())):
            yield dict(zip(defaults, values, strict=True))

    return _Candidate(attributes, lambda given, last: [Step(kind, options=given)])


def _refused(words: str) -> _Candidate:
    def steps(given: Attributes, last: str) -> list[Step]:
        raise Unfit(f"is {words}, an activation that no block has")

    return _Candidate(lambda shape, numbers: [{}], steps)


def _bounds(shape: Shape, numbers: tuple[float, ...]) -> Iterator[Attributes]:
    for low, high in product((-np.inf, -LARGEST, 0.0, *numbers), (np.inf, LARGEST, *numbers)):
        if not np.isinf([low, high]).all():
            yield {"min": low, "max": high}


def clipped(low: float, high: float, *, ramp: bool) -> list[Step]:
    """A value between bounds, infinite ones where there are none; ``ramp``: above, infinity stays. Raises Unfit."""
    low = max(low, -LARGEST) if low > -_UNBOUNDED else -LARGEST
    high = min(high, LARGEST) if high < _UNBOUNDED else LARGEST
    if not low < high:
        raise Unfit(f"is bounded by {low} below and {high} above; the first must be the smaller")
    if (low, high) == (-LARGEST, LARGEST):
        return []
    if low == 0 and (high == 6 or (ramp and high == LARGEST)):
        return [Step("relu6" if high == 6 else "relu")]
    return [Step("clip", options={"min": low, "max": high})]


def _features(shape: Shape) -> list[int]:
    """The axes that hold the whole row."""
    sizes = [size for size in shape if isinstance(size, int)]
    return [axis for axis, size in enumerate(shape) if size == int(np.prod(sizes))]


_CANDIDATES: dict[str, _Candidate] = {
    **{kind: _plain(kind) for kind in ("relu", "sigmoid", "tanh", "silu", "hardsigmoid")},
    "gelu": _Candidate(
        lambda shape, numbers: [{"approximate": name} for name in ("none", "tanh")],
        lambda given, last: [Step("gelu", options=given)],
    ),
    "leaky_relu": _options("leaky_relu", negative_slope=()),
    "elu": _options("elu", alpha=()),
    "softplus": _options("softplus", beta=(1.0,), threshold=(20.0,)),
    "softmax": _Candidate(
        lambda shape, numbers: [{"dim": axis} for axis in _features(shape)], lambda given, last: [Step("softmax")]
    ),
    "layer_norm": _Candidate(
        lambda shape, numbers: [
            {"normalized_shape": shape[axis:], "eps": number} for axis in _features(shape) for number in numbers
        ],
        lambda given, last: [Step("layer_norm", options={"eps": given["eps"]})],
    ),
    # A Clip without an upper bound takes infinity to the largest float32, which a ReLU does not.
    "clamp": _Candidate(_bounds, lambda given, last: clipped(given["min"], given["max"], ramp=last != "Clip")),
    "hardswish": _refused("a Hard Swish"),
    "mish": _refused("a Mish"),
}
"""By the name in ``torch.ops.aten``. Of two that fit, the one of more operators counts, then the first."""


@cache
def _operators(kind: str) -> tuple[frozenset[str], frozenset[str]]:
    """The operators that a block's patterns may begin with, and all that stand in them."""
    shape: Shape = (Rows(), 2)
    steps = [
        pattern
        for attributes in _CANDIDATES[kind].attributes(shape, (0.0, 0.5))
        for pattern in PATTERNS[kind](Node(kind, "", ("x",), "", shape, attributes))
    ]
    return frozenset(pattern[0].op for pattern in steps), frozenset(step.op for pattern in steps for step in pattern)


def spelling_operators() -> frozenset[str]:
    """Every operator that a block may be spelt with."""
    return frozenset().union(*(_operators(kind)[1] for kind in _CANDIDATES))


@dataclass(frozen=True)
class Spelling:
    """A block where it stands in a file: what it is, and its operators."""

    kind: str
    attributes: Attributes
    nodes: tuple[NodeProto, ...]

    def read(self, model: Model, layout: Layout) -> tuple[list[Step], Layout]:
        """The blocks, and the layout of the result: constants may bring further dimensions of 1. Raises Unfit."""
        for node in self.nodes:
            attributes = attributes_of(node, model.opset)
            constants = [model.constants[name] for name in node.input if name in model.constants]
            if node.op_type.startswith("Reduce"):
                if not attributes["keepdims"]:
                    raise Unfit(f"reduces {layout} without keeping its dimensions")
                for axis in attributes.get("axes", constants[0].tolist() if constants else ()):
                    layout.axis(axis)
            elif node.op_type != "Clip":
                for constant in constants:
                    _, layout = layout.spread(constant, "a number of an activation")
        return _CANDIDATES[self.kind].steps(self.attributes, self.nodes[-1].op_type), layout


def find_spelling(model: Model, value: str, layout: Layout, used: set[int]) -> Spelling | None:
    """The block whose operators, less those ``used``, are all that read ``value``."""
    source = model.value(value)
    readers = [node for node in model.consumers(source) if id(node) not in used]
    first = {node.op_type for node in readers} - _WITH_TENSORS
    kinds = [kind for kind in _CANDIDATES if first & _operators(kind)[0]]
    if not kinds:
        return None
    shape = tuple(Rows() if size is None else size for size in layout.dims)
    numbers = _numbers(model, readers)
    longest: Spelling | None = None
    for kind in kinds:
        for attributes in _CANDIDATES[kind].attributes(shape, numbers):
            node = Node(kind, "", (value,), "", shape, attributes)
            for nodes, _, differences in matches(node, [source], model, used):
                longer = longest is None or len(nodes) > len(longest.nodes)
                if longer and not differences and _whole(model, value, readers, nodes):
                    longest = Spelling(kind, attributes, nodes)
    return longest


def _whole(model: Model, value: str, readers: list[NodeProto], nodes: tuple[NodeProto, ...]) -> bool:
    """Whether a block's operators read the value and each other in that very shape, and nothing else reads these."""
    within, block = {value, "", *(name for node in nodes for name in node.output)}, {id(node) for node in nodes}
    inputs = {name for node in nodes for name in node.input if name not in model.constants}
    others = [reader for node in nodes[:-1] for reader in model.consumers(node.output[0])]
    return inputs <= within and all(id(node) in block for node in (*readers, *others))


def _numbers(model: Model, readers: list[NodeProto]) -> tuple[float, ...]:
    """The single numbers that stand in the next few operators, as the shortest decimals of their float32."""
    values: dict[float, None] = {}
    reached: Mapping[int, NodeProto] = {id(node): node for node in readers}
    for _ in range(_NEAR):
        for node in reached.values():
            constants = [model.constants[name] for name in node.input if name in model.constants]
            flat = [constant.reshape(-1) for constant in constants if constant.dtype == np.float32 and constant.size]
            numbers = [each[0] for each in flat if bool((each == each[0]).all())]
            numbers += [number for number in attributes_of(node, model.opset).values() if isinstance(number, float)]
            values |= dict.fromkeys(shortest(number) for number in numbers)
        reached = {id(n): n for node in reached.values() for name in node.output for n in model.consumers(name)}
    return tuple(number for number in values if np.isfinite(number))
