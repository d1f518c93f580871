"""Which operators of a file are which node of the module, and whether their constants have the same bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import onnx
from onnx import NodeProto

from export.folding import as_one, is_foldable
from export.graph import ELEMENT_TYPES, Graph, Node, Shape, Tensor
from export.onnxfile.model import RESHAPES, Model, row_shape
from export.onnxfile.pattern_matching import matches

from .alignment import misaligned
from .layer import Layer
from .refolding import refolded
from .report import counted
from .rows import Wiring, output_shapes


@dataclass(frozen=True)
class Structure:
    """The file's layers, in order, and the ``problem`` that kept the match from being complete, if there is one."""

    graph: Graph
    wiring: Wiring
    layers: tuple[Layer, ...]
    problem: str | None
    values: Mapping[str, str] = field(default_factory=dict[str, str])
    """The values that the file's outputs are, seen through copies and changes of shape."""


def match(graph: Graph, model: Model) -> Structure:
    """Match the module's nodes, in order, with the operators of the file that compute them from the same values."""
    graph = graph.without_dead_nodes()
    wiring = wiring_of(graph, model)
    problem = model.problem or _port_problem(graph, model, wiring)
    if not (problem or graph.nodes):
        problem = "the module gives its input back: there is nothing to compute"
    if problem:
        return Structure(graph, wiring, (), problem)
    matching = _Matching(graph, model, wiring)
    problem = matching.run() or _misalignment(matching.layers, model)
    values = {name: model.value(name) for name in wiring.outputs}
    return Structure(graph, wiring, tuple(matching.layers), problem, values)


def _misalignment(layers: Iterable[Layer], model: Model) -> str | None:
    """The first operator that takes other elements together than the module's layer."""
    for layer in layers:
        operator = None if layer.differences else misaligned(layer, model)
        if operator is not None:
            words = f"takes other elements together than {layer.expected.op} at '{layer.path}' does"
            return f"the file's operator '{operator}' {words}: its inputs have other shapes than the module's"
    return None


class _Matching:
    """The match so far: ``values`` maps the module's values to the file's, ``used`` are the matched operators."""

    def __init__(self, graph: Graph, model: Model, wiring: Wiring):
        self.graph, self.model, self.wiring = graph, model, wiring
        self.values = dict(zip(graph.inputs, map(model.value, wiring.inputs), strict=True))
        self.names = dict(zip(graph.outputs.values(), wiring.outputs, strict=True))
        self.shapes, self.dtypes = graph.shapes, graph.dtypes
        self.used: set[int] = set()
        self.layers: list[Layer] = []
        self.remaining: list[Node] = list(graph.nodes)

    def run(self) -> str | None:
        """Match all layers; returns the problem, if there is one."""
        unknown = next((n for n in self.model.nodes if n.op_type in RESHAPES and n.domain in ("", "ai.onnx")), None)
        if unknown is not None:
            words = "whose result has a shape that does not follow from the size of the batch alone"
            return f"the file has a {unknown.op_type} '{_name(unknown)}' {words}"
        while self.remaining:
            node = self.remaining[0]
            layer = self._next(self.used) if node.op != "reshape" else None
            may_vanish = _keeps_order(node, self.shapes)
            if (layer is None or (may_vanish and layer.differences)) and (may_vanish or _is_neutral(node)):
                self.values[node.output] = self.values[node.inputs[0]]
                del self.remaining[0]
                continue
            if layer is None or layer.differences:  # other exporters compute once what the module computes twice
                shared = self._next(set())
                layer = shared if shared is not None and not shared.differences else layer
            if layer is None:
                values = (self.values[name] for name in node.inputs[:1])  # none if it reads constants alone
                readers = [n for value in values for n in self.model.consumers(value) if id(n) not in self.used]
                listed = ", ".join(f"{n.op_type} '{_name(n)}'" for n in readers) or "nothing that reads it"
                words = f"the module has {node.op} at '{node.path}', and the file has {listed} there"
                return f"{words}, which does not match any pattern of it"
            self.layers.append(layer)
            self.used |= {id(node) for node in layer.nodes}
            self.values[layer.source_nodes[-1].output] = layer.output
            matched = {node.path for node in layer.source_nodes}
            self.remaining = [node for node in self.remaining if node.path not in matched]
        surplus = next((node for node in self.model.nodes if id(node) not in self.used), None)
        if surplus is not None:
            return f"the file has an operator that the module lacks: {surplus.op_type} '{_name(surplus)}'"
        for name, value in zip(self.wiring.outputs, self.graph.outputs.values(), strict=True):
            output, last = self.model.value(name), self.values[value]
            if output != last:
                return f"the file's output '{name}' is '{output}', and the module's last block gives '{last}'"
        return None

    def _next(self, used: set[int]) -> Layer | None:
        """The next node with the operators that fit it best, folded with the affine nodes after it where that fits.

        Operators that are ``used`` are not taken.
        """
        best: Layer | None = None
        for group, expected, pattern in self._candidates(used):
            names = group[0].inputs
            inputs = tuple(self.values[name] for name in names)
            shapes, dtypes = tuple(self.shapes[name] for name in names), tuple(self.dtypes[name] for name in names)
            # Where the same is computed twice, the output's name tells which is which.
            wanted = self.names.get(group[-1].output, group[-1].output)
            exact: Layer | None = None
            for nodes, output, differences in matches(pattern, inputs, self.model, used):
                differences = tuple(replace(difference, folded=len(group) > 1) for difference in differences)
                layer = Layer(tuple(group), expected, nodes, inputs, output, differences, shapes, dtypes)
                layer = _with_recomputed(layer) if differences and len(group) == 1 else layer
                differences = layer.differences
                if not differences and (exact is None or self.model.value(wanted) == output):
                    exact = layer
                if best is None or _distance(layer) < _distance(best):
                    best = layer
            if exact is not None:
                return exact
        return best

    def _candidates(self, used: set[int]) -> Iterator[tuple[list[Node], Node, Node]]:
        """Groups of nodes that the next operators may be.

        Each with the node that the file should hold for it, and the node whose patterns the operators may have.
        """
        for group in self._groups():
            if len(group) == 1:
                yield group, group[0], group[0]
                continue
            scaled, may_be_folded = _scaled_linear(group) or _reversed_difference(group), self._has_shape(group, used)
            if scaled is not None or may_be_folded:
                tensors = {role: Tensor(f"{group[-1].home}.{role}", v) for role, v in refolded(group).items()}
                folded = as_one(group, tensors)
                yield from ((group, folded, node) for node in (scaled, folded if may_be_folded else None) if node)

    def _groups(self) -> Iterator[list[Node]]:
        """The next node alone, then with the affine node that alone reads it, and so on."""
        group = self.remaining[:1]
        yield group
        while is_foldable(group[-1]):
            following = [node for node in self.remaining if group[-1].output in node.inputs]
            alone = len(following) == self.graph.consumers(group[-1].output) == 1
            if not alone or not is_foldable(following[0]):
                return
            group = [*group, following[0]]
            yield group

    def _has_shape(self, group: list[Node], used: set[int]) -> bool:
        """Whether a next operator has a constant of the folded weight's shape: folding itself is slow to compute."""
        sizes = [node.tensors["weight"].values.shape for node in group if node.op == "linear"]
        wanted = (sizes[-1][0], sizes[0][1]) if sizes else group[0].shape[-1:]
        readers = [n for n in self.model.consumers(self.values[group[0].inputs[0]]) if id(n) not in used]
        constants = self.model.constants
        shapes = [constants[name].shape for node in readers for name in node.input if name in constants]
        return wanted in shapes or wanted[::-1] in shapes


def _with_recomputed(layer: Layer) -> Layer:
    """The layer with the file's own constants where the forward computes them, and the file's are within 1 ulp."""
    own = {d.role: d.computed for d in layer.differences if d.computed is not None}
    if not own or len(own) < len(layer.differences):
        return layer
    held = {role: replace(layer.expected.tensors[role], values=values) for role, values in own.items()}
    node = replace(layer.expected, tensors={**layer.expected.tensors, **held})
    return replace(layer, source_nodes=(node,), expected=node, differences=(), recomputed=layer.differences)


def _keeps_order(node: Node, shapes: Mapping[str, Shape]) -> bool:
    """Whether a node gives the same elements in the same order: a reshape, or a permutation of dimensions of 1."""
    if node.op == "reshape":
        return True
    if node.op != "permute":
        return False
    before = shapes[node.inputs[0]]
    kept = [dim for dim in node.attributes["dims"] if before[dim] != 1]
    return kept == sorted(kept)


def _is_neutral(node: Node) -> bool:
    """Whether a node adds 0 or multiplies by 1, so that a file may leave it out."""
    neutral = {"add": 0, "sub": 0, "mul": 1, "div": 1}.get(node.op)
    if neutral is None or len(node.inputs) != 1 or node.tensors.get("self", node.attributes.get("self")) is not None:
        return False
    operand = node.tensors["other"].values if "other" in node.tensors else node.attributes["other"]
    return bool(np.all(np.asarray(operand) == neutral))


def wiring_of(graph: Graph, model: Model) -> Wiring:
    """Wire inputs and outputs by name where the file has the module's names, else by order."""
    inputs, outputs = [value.name for value in model.inputs], [value.name for value in model.proto.graph.output]
    if set(inputs) == set(graph.inputs):
        inputs = list(graph.inputs)
    if set(outputs) == set(graph.outputs):
        outputs = list(graph.outputs)
    rows = output_shapes(graph).values()
    return Wiring(dict(zip(inputs, graph.inputs.values(), strict=False)), dict(zip(outputs, rows, strict=False)))


def _port_problem(graph: Graph, model: Model, wiring: Wiring) -> str | None:
    """Where the file's inputs and outputs are not the module's; None where they are."""
    counts = (len(model.inputs), len(model.proto.graph.output)), (len(graph.inputs), len(graph.outputs))
    if counts[0] != counts[1]:
        have, need = (f"{counted(i, 'input')} and {counted(o, 'output')}" for i, o in counts)
        return f"the file has {have}, and the module {need}"
    for what, file, own in (("input", wiring.inputs, graph.inputs), ("output", wiring.outputs, graph.outputs)):
        if set(file) != set(own) and set(file) & set(own):
            return f"the file's {what}s are {', '.join(file)}, and the module's {', '.join(own)}: which is which?"
    named = {value.name: value for value in (*model.inputs, *model.proto.graph.output)}
    ports = [("input", name, declared.row, declared.dtype) for name, declared in wiring.inputs.items()]
    kinds = [graph.dtypes[value] for value in graph.outputs.values()]
    ports += [("output", *sink, dtype) for sink, dtype in zip(wiring.outputs.items(), kinds, strict=True)]
    for what, name, shape, dtype in ports:
        value = named[name]
        if value.type.tensor_type.elem_type not in (ELEMENT_TYPES[dtype], onnx.TensorProto.UNDEFINED):
            return f"the file's {what} '{value.name}' is not {dtype}"
        if not value.type.tensor_type.HasField("shape"):  # seen when the file is run
            continue
        row = row_shape(value)
        known = [size for size in row if isinstance(size, int)]
        if model.recovering and what == "output" and (len(known) < len(row) or prod(known) == prod(shape)):
            continue
        pairs = zip(row, shape, strict=False)
        if len(row) != len(shape) or not all(isinstance(a, str) or a in (0, b) for a, b in pairs):
            return f"the file's {what} '{value.name}' has rows of shape {list(row)}, and the module's {list(shape)}"
    dropout = next((node for node in model.proto.graph.node if node.op_type == "Dropout"), None)
    dropout = None if model.recovering and dropout not in model.nodes else dropout
    return None if dropout is None else f"a Dropout is left in the file: '{_name(dropout)}'"


def _scaled_linear(group: list[Node]) -> Node | None:
    """A linear, a product with a scalar, and perhaps a sum, as the Gemm that they may be: alpha·x·Wᵀ + beta·C."""
    ops = [node.op for node in group]
    if ops not in (["linear", "mul"], ["linear", "mul", "add"]) or (factor := _scalar_factor(group[1])) is None:
        return None
    linear, last, offset = group[0], group[-1], None
    if len(group) == 3:
        operand = _operand(last)
        offset = operand.values if operand is not None else np.float32(last.attributes.get("other", np.nan))
        offset = np.broadcast_to(np.asarray(offset, np.float32).reshape(-1), (len(linear.tensors["weight"].values),))
    tensors, bias = {"weight": linear.tensors["weight"]}, linear.tensors.get("bias")
    if bias is not None and offset is not None and offset.any():
        return None
    if bias is not None:
        tensors["bias"] = Tensor(bias.name, bias.values * factor)  # beta is alpha
    elif offset is not None:
        tensors["bias"] = Tensor(f"{last.path}.bias", np.ascontiguousarray(offset))
    attributes = {"alpha": float(factor)}
    return Node("scaled linear", linear.path, linear.inputs, last.output, last.shape, attributes, tensors)


def _reversed_difference(group: list[Node]) -> Node | None:
    """A product with -1 and a sum, as the difference that they may be: constant - x."""
    if [node.op for node in group] != ["mul", "add"] or _scalar_factor(group[0]) != -1:
        return None
    first, last = group
    offset = _operand(last)
    if offset is None:
        return None
    return Node("sub", last.path, first.inputs, last.output, last.shape, {}, {"self": offset}, "Tensor", home=last.home)


def _operand(node: Node) -> Tensor | None:
    return node.tensors.get("other") or node.tensors.get("self")


def _scalar_factor(node: Node) -> np.float32 | None:
    """The factor of a product, if it is the same for every feature."""
    operand = _operand(node)
    if operand is None:
        return np.float32(node.attributes["other"]) if "other" in node.attributes else None
    flat = operand.values.reshape(-1)
    return flat[0] if flat.size and bool((flat == flat[0]).all()) else None


def _distance(layer: Layer) -> tuple[int, bool, bool, int]:
    """How far a layer is from the file's. Attributes count first: a transposed weight is another weight.

    Where all constants differ anyway, the names that mlpx gives to values tell how far a layer was folded.
    """
    attributes = sum(not difference.index for difference in layer.differences)
    count = sum(difference.count for difference in layer.differences)
    return attributes, count > 0, layer.output != layer.source_nodes[-1].output, count


def _name(node: NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)
