"""What a file does between the first mixing of features and the last: its layers, read from its operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime.device.linear_layers import Graph, LinearLayer
from runtime.errors import ModelError
from runtime.model.onnx_messages import FLOAT, float_array, integer, number, text
from runtime.model.summary import BlockSummary, Summary

from .layers import Layer, layer
from .options import ALIKE, block_options, operator_options
from .steps import KINDS, Step, joined
from .wiring import array_words, computed_words, read_by, sources_of, stored_in, tensor_words, whole_numbers

_ROLES = {b"Sub": "mean", b"Div": "std", b"Mul": "factor", b"Add": "offset", b"Max": "min", b"Min": "max"}
"""The constant of an operator of two values; that of the first two must be the second."""
_PASSED = (b"Identity", b"Dropout", b"Flatten")
"""What keeps every value in its place in the row: a Flatten from axis 1 on, a Dropout that is not in training."""
_SAME_RANK = (
    *("Gemm", "Add", "Sub", "Mul", "Div", "Neg", "Clip", "Relu", "LeakyRelu", "Elu", "Tanh", "Sigmoid", "Gelu"),
    *("Softplus", "Softmax", "LogSoftmax", "BatchNormalization", "LayerNormalization", "Identity", "Dropout"),
)
"""Operators whose result has as many dimensions as what they read, with constants of no more."""
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
        self._opset = max((each.version for each in model.opset_import if each.domain in (b"", b"ai.onnx")), default=1)
        self._sizes = Counter(map(_home, model.graph.node))
        self._constant_words: dict[bytes, str] = {}
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
            if not self._passes(node):
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
            if self._uses[value] != 1:
                break  # another operator reads it too, or it is another output
            seen.add(value)
            before = next((each for each in node.input if self._is_computed(each)), b"")
            source = self._made.get(before)
            if node.op_type in (b"Add", b"Sub") and source is not None and source.op_type == b"MatMul":
                break  # the bias of a linear layer
            if not self._passes(node):
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

    def layers(self, taken: Sequence[Step]) -> tuple[list[Layer], list[str]]:
        """The layers in the file's order, without the operators of the steps ``taken``, and what gives each output."""
        nodes = [node for step in taken for node in step.nodes]
        linear = {layer.name: layer for layer in self.linear_layers()}
        made = self._operators(nodes, linear) if self._blocks is None else self._own(self._blocks, nodes, linear)
        found = list(made)
        passing = [*nodes, *(node for node in self.model.graph.node if self._passes(node))]
        passed = {node.output[0]: before for node in passing for before in node.input[:2] if self._is_computed(before)}
        inputs = [each.name for each in self.model.graph.input if each.name not in self._tensors]
        sources = sources_of(self.model.graph, inputs, [group for group, _ in found], passed, self._words)
        layers: list[Layer] = []
        for group, each in found:
            inner = {name for node in group for name in node.output}
            read = [name for node in group for name in node.input if name and name not in inner]
            computed = [sources.get(name, "unknown") for name in read if self._words(name) is None]
            layers.append(replace(each, reads=read_by(each.kind, computed)))
        return layers, [sources.get(each.name, "unknown") for each in self.model.graph.output]

    def _passes(self, node: Any) -> bool:
        if node.op_type == b"Flatten":
            return integer(node, "axis", 1) == 1
        return node.op_type in _PASSED and node.domain in (b"", b"ai.onnx") and len(node.input) < 3

    def _own(
        self, blocks: Sequence[BlockSummary], taken: Sequence[Any], linear: Mapping[str, LinearLayer]
    ) -> Iterator[tuple[list[Any], Layer]]:
        homes = {_home(node) for node in taken}
        by_home: dict[str, list[Any]] = {}
        for node in self.model.graph.node:
            by_home.setdefault(_home(node), []).append(node)
        for block in blocks:
            if block.path in homes:
                continue
            nodes = by_home.get(block.path, [])
            if block.path in linear:
                yield nodes, _linear(linear[block.path])
                continue
            prefix = f"{block.path}."
            named = {text(name).removeprefix(prefix): name for name in self._tensors if text(name).startswith(prefix)}
            tensors = {role: self._tensors[name] for role, name in named.items() if "." not in role}
            constants = {role: float_array(t, self._folder) for role, t in tensors.items() if t.data_type == FLOAT}
            rank = None if block.output_shape is None else 1 + len(block.output_shape)
            known = {named[role] for role in constants}
            others = [
                {i: held for i, held in self._constants(node).items() if node.input[i] not in known} for node in nodes
            ]
            options, weights = block_options(block.op, nodes, constants, others, rank, self._opset)
            yield nodes, layer(block.op, weights, options)

    def _operators(self, taken: Sequence[Any], linear: Mapping[str, LinearLayer]) -> Iterator[tuple[list[Any], Layer]]:
        nodes, rank = list(self.model.graph.node), self._rank()
        biases = [each.following for each in linear.values() if each.following is not None]
        for index, node in enumerate(nodes):
            named = text(node.name or node.output[0])
            if node in taken or node in biases or self._passes(node) or not self._is_computed(node.output[0]):
                continue
            before, after = nodes[index - 1] if index else None, nodes[index + 1] if index + 1 < len(nodes) else None
            if before is not None and self._is_silu(before, node):
                continue
            if named in linear:
                following = linear[named].following
                yield [node] if following is None else [node, following], _linear(linear[named])
                continue
            if after is not None and self._is_silu(node, after):
                yield [node, after], layer("silu", {})
                continue
            kind = _NAMES.get(text(node.op_type), text(node.op_type).lower())
            found = self._constants(node)
            if node.op_type in _COMMUTATIVE and len(node.input) == 2 and list(found) == [0]:
                found = {1: found[0]}
            names = dict(enumerate(_WEIGHTS.get(kind, ()), 1)) | ALIKE.get(text(node.op_type), {})
            constants = {names.get(i, f"input {i}"): each for i, each in found.items()}
            options, weights = operator_options(node, constants, rank, self._opset)
            if node.domain not in (b"", b"ai.onnx") and self.model.functions:
                content = b"".join(each.SerializePartialToString(deterministic=True) for each in self.model.functions)
                options["functions"] = array_words(np.frombuffer(content, np.uint8))
            yield [node], layer(kind, weights, options)

    def _constants(self, node: Any) -> dict[int, np.ndarray | str]:
        """The constants that an operator reads by their place: float32 numbers, or in words."""
        found: dict[int, np.ndarray | str] = {}
        for place, name in enumerate(node.input):
            if name and (words := self._words(name)) is not None:
                values = self._held(name)
                found[place] = words if values is None else values
        return found

    def _words(self, name: bytes) -> str | None:
        """What a constant is, in words; None for a value that is computed of the input."""
        if not self._constant_words:
            self._constant_words = self._all_words()
        return self._constant_words.get(name)

    def _all_words(self) -> dict[bytes, str]:
        found = {b"": ""}
        for name, tensor in self._tensors.items():
            values = whole_numbers(tensor)
            found[name] = tensor_words(tensor) if values is None else array_words(values)
        for sparse in self.model.graph.sparse_initializer:
            found[sparse.values.name] = tensor_words(sparse.values) + tensor_words(sparse.indices)
        for node in self.model.graph.node:
            stored = stored_in(node)
            if stored is None and any(name and name not in found for name in node.input):
                continue
            for place, name in enumerate(node.output):
                if stored is not None:
                    found[name] = array_words(stored)
                elif name not in found:
                    found[name] = computed_words(node, place, [found[each] for each in node.input])
        return found

    def _is_silu(self, sigmoid: Any, product: Any) -> bool:
        """Whether a Sigmoid and the operator after it are a SiLU, and nothing else reads the Sigmoid."""
        if sigmoid.op_type != b"Sigmoid" or product.op_type != b"Mul" or self._uses[sigmoid.output[0]] != 1:
            return False
        return set(product.input) == {sigmoid.input[0], sigmoid.output[0]}

    def _held(self, name: bytes) -> np.ndarray | None:
        """A float32 constant, also one that is an attribute of its operator; None for any other."""
        node = self._made.get(name)
        stored = None if node is None else stored_in(node)
        if stored is None:
            return self._constant(name)
        return stored if stored.dtype == np.float32 else None

    def _rank(self) -> int | None:
        """The number of dimensions of all values; None where they may differ."""
        graph = self.model.graph
        ports = [each for each in (*graph.input, *graph.output) if each.name not in self._tensors]
        ranks = {len(each.type.tensor_type.shape.dim) for each in ports}
        rank = ranks.pop() if len(ranks) == 1 else None
        computed = [node for node in graph.node if self._words(node.output[0]) is None]
        of_matrix = [node.op_type == b"MatMul" and rank == 2 for node in computed]
        same = all(text(node.op_type) in _SAME_RANK or each for node, each in zip(computed, of_matrix, strict=True))
        return rank if same and all(len(each.dims) <= (rank or 0) for each in self._tensors.values()) else None

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
