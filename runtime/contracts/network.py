"""What a file does between the first mixing of features and the last: its layers, read from its operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.device.linear_layers import Graph, LinearLayer
from runtime.errors import ModelError
from runtime.model.onnx_messages import FLOAT, attribute, float_array, number, text
from runtime.model.summary import BlockSummary, Summary

from .layers import Layer, layer
from .options import block_options, operator_options
from .steps import KINDS, Step, joined

_ROLES = {b"Sub": "mean", b"Div": "std", b"Mul": "factor", b"Add": "offset", b"Max": "min", b"Min": "max"}
"""The constant of an operator of two values; that of the first two must be the second."""
_PASSED = (b"Identity", b"Dropout", b"Flatten")
"""What keeps every value in its place in the row."""
_NAMES = {
    "Gemm": "linear",
    "MatMul": "linear",
    "LeakyRelu": "leaky_relu",
    "HardSigmoid": "hardsigmoid",
    "LayerNormalization": "layer_norm",
    "BatchNormalization": "batch_norm",
}
"""The block of an operator, where it is not the operator's name in small letters."""
_COMMUTATIVE = (b"Add", b"Mul", b"Max", b"Min")
"""Where it does not matter which input is the constant."""
_WEIGHTS = {"layer_norm": ("weight", "bias"), "batch_norm": ("weight", "bias", "running_mean", "running_var")}
"""Of a norm's operator what its constants are, from the second input on."""


class Network(Graph):
    """A file's operators. ``summary`` is what its metadata say of it; None for a file of another tool."""

    def __init__(self, model: Any, folder: Path, summary: Summary | None):
        super().__init__(model, folder)
        self._blocks = None if summary is None else summary.blocks
        self._sizes = Counter(map(_home, model.graph.node))
        self._readers: dict[bytes, list[Any]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)

    def leading(self, name: str, width: int | None) -> tuple[Step, ...]:
        """What is done to each feature of an input before they are mixed. ``width``: the features of a flat row."""
        steps: list[Step] = []
        value = name.encode()
        seen = set[bytes]()
        while self._uses[value] == 1 and value not in seen and (readers := self._readers.get(value)):
            (node,) = readers
            seen.add(value)
            if node.op_type not in _PASSED:
                if (step := self._step(node, value, width)) is None:
                    break
                steps.append(step)
            value = node.output[0]
        return tuple(joined(self._whole(steps)))

    def trailing(self, name: str, width: int | None, leading: Sequence[Step]) -> tuple[Step, ...]:
        """What is done to each value of an output last, without what ``leading`` has already."""
        steps: list[Step] = []
        taken = [node for step in leading for node in step.nodes]
        value = name.encode()
        seen = set[bytes]()
        while (node := self._made.get(value)) is not None and node not in taken and value not in seen:
            seen.add(value)
            before = next((each for each in node.input if self._is_computed(each)), b"")
            source = self._made.get(before)
            if node.op_type in (b"Add", b"Sub") and source is not None and source.op_type == b"MatMul":
                break  # the bias of a linear layer
            if node.op_type not in _PASSED:
                if (step := self._step(node, before, width)) is None:
                    break
                steps.append(step)
            value = before
        return tuple(joined(reversed(self._whole(steps))))

    def bypass(self, steps: Sequence[Step]) -> None:
        """Change the model: these steps pass on what they are given."""
        for node in [node for step in steps for node in step.nodes]:
            value = next(name for name in node.input if self._is_computed(name))
            node.op_type, node.input[:] = b"Identity", [value]
            del node.attribute[:]

    def layers(self, taken: Sequence[Step]) -> Iterator[Layer]:
        """The layers in the file's order, without the operators of the steps ``taken``."""
        nodes = [node for step in taken for node in step.nodes]
        linear = {layer.name: layer for layer in self.linear_layers()}
        yield from self._operators(nodes, linear) if self._blocks is None else self._own(self._blocks, nodes, linear)

    def _own(
        self, blocks: Sequence[BlockSummary], taken: Sequence[Any], linear: Mapping[str, LinearLayer]
    ) -> Iterator[Layer]:
        homes = {_home(node) for node in taken}
        by_home: dict[str, list[Any]] = {}
        for node in self.model.graph.node:
            by_home.setdefault(_home(node), []).append(node)
        for block in blocks:
            if block.path in homes:
                continue
            if block.path in linear:
                yield _linear(linear[block.path])
                continue
            prefix = f"{block.path}."
            named = {text(name).removeprefix(prefix): name for name in self._tensors if text(name).startswith(prefix)}
            tensors = {role: self._tensors[name] for role, name in named.items() if "." not in role}
            constants = {role: float_array(t, self._folder) for role, t in tensors.items() if t.data_type == FLOAT}
            rank = None if block.output_shape is None else 1 + len(block.output_shape)
            options, weights = block_options(block.op, by_home.get(block.path, ()), constants, rank)
            yield layer(block.op, weights, options)

    def _operators(self, taken: Sequence[Any], linear: Mapping[str, LinearLayer]) -> Iterator[Layer]:
        nodes, rank = list(self.model.graph.node), self._rank()
        biases = [each.following for each in linear.values() if each.following is not None]
        for index, node in enumerate(nodes):
            named = text(node.name or node.output[0])
            if node in taken or node in biases or node.op_type in _PASSED or not self._is_computed(node.output[0]):
                continue
            if node.op_type == b"Mul" and index and _is_silu(nodes[index - 1], node):
                continue
            if named in linear:
                yield _linear(linear[named])
                continue
            kind = _NAMES.get(text(node.op_type), text(node.op_type).lower())
            if node.op_type == b"Sigmoid" and index + 1 < len(nodes) and _is_silu(node, nodes[index + 1]):
                kind = "silu"
            found = [self._held(name) if name and not self._is_computed(name) else None for name in node.input]
            if node.op_type in _COMMUTATIVE:
                found.sort(key=lambda each: each is not None)
            names = dict(enumerate(_WEIGHTS.get(kind, ()), 1))
            constants = {names.get(i, f"input {i}"): each for i, each in enumerate(found) if each is not None}
            options, weights = operator_options(node, constants, rank)
            yield layer(kind, weights, options)

    def _held(self, name: bytes) -> np.ndarray | None:
        """A constant, also one that is an attribute of its operator."""
        node = self._made.get(name)
        number = None if node is None or node.op_type != b"Constant" else attribute(node, "value_float")
        return self._constant(name) if number is None else np.asarray(number.f, np.float32)

    def _rank(self) -> int | None:
        """The number of dimensions of all inputs and outputs; None where they differ."""
        graph = self.model.graph
        ports = [each for each in (*graph.input, *graph.output) if each.name not in self._tensors]
        ranks = {len(each.type.tensor_type.shape.dim) for each in ports}
        return ranks.pop() if len(ranks) == 1 else None

    def _step(self, node: Any, value: bytes, width: int | None) -> Step | None:
        """What the operator does to each feature of ``value`` by itself; None for any other."""
        if node.domain not in (b"", b"ai.onnx"):
            return None
        if node.op_type == b"Clip":
            values = {role: self._limit(node, place, role, width) for place, role in ((1, "min"), (2, "max"))}
            found = {role: each for role, each in values.items() if each is not None}
            return Step("clip", found, (node,)) if len(found) == 2 else None
        role = _ROLES.get(node.op_type)
        if role is None or len(node.input) != 2 or (role in ("mean", "std") and node.input[0] != value):
            return None
        other = node.input[1 if node.input[0] == value else 0]
        constant = None if self._is_computed(other) else self._per_feature(other, width)
        return None if constant is None else Step(KINDS[role], {role: constant}, (node,))

    def _limit(self, node: Any, place: int, role: str, width: int | None) -> np.ndarray | None:
        """A limit of a Clip: an attribute in old opsets, later an input; infinite where there is none."""
        if len(node.input) > place and node.input[place]:
            return None if self._is_computed(node.input[place]) else self._per_feature(node.input[place], width)
        default = -np.inf if role == "min" else np.inf
        return np.full(width or 1, number(node, role, default), np.float32)

    def _per_feature(self, name: bytes, width: int | None) -> np.ndarray | None:
        """float32 (features,) of a constant that is one number or has one for each; (1,) without a ``width``."""
        try:
            values = self._constant(name)
        except ModelError:
            return None
        if values is None or values.size not in (1, width) or values.ndim > 2 or values.shape[:-1] not in ((), (1,)):
            return None
        return np.broadcast_to(values.reshape(-1), (width or 1,)).astype(np.float32)

    def _whole(self, steps: list[Step]) -> list[Step]:
        """The steps without the last that are only a part of a block that mlpx wrote, as the end of a LayerNorm."""
        while self._blocks is not None and steps:
            home = _home(steps[-1].nodes[0])
            if sum(_home(node) == home for step in steps for node in step.nodes) == self._sizes[home]:
                break
            steps = [step for step in steps if _home(step.nodes[0]) != home]
        return steps


def _linear(found: LinearLayer) -> Layer:
    weights = {"weight": np.float32(found.alpha) * found.weight}
    if found.bias is not None:
        weights["bias"] = found.bias_row(found.bias)
    return layer("linear", weights)


def _home(node: Any) -> str:
    """The path of the block that mlpx wrote an operator for."""
    return text(node.name).partition("/")[0]


def _is_silu(sigmoid: Any, product: Any) -> bool:
    both = {sigmoid.input[0], sigmoid.output[0]} if sigmoid.op_type == b"Sigmoid" else set[bytes]()
    return product.op_type == b"Mul" and set(product.input) == both
