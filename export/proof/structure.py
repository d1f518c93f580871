"""Which operators of a file are which node of the module, and whether their constants have the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import onnx
from onnx import NodeProto

from export.folding import as_one, is_foldable
from export.graph import ELEMENT_TYPES, Graph, Node, Shape, Tensor
from export.onnxfile.model import Model, row_shape
from export.onnxfile.pattern_matching import Difference, matches

from .refolding import refolded
from .report import counted
from .rows import Wiring, output_shapes


@dataclass(frozen=True)
class Layer:
    """One node, or affine nodes folded into one, and the operators of the file that compute it.

    ``held`` is the node as the file should hold it: the module's own, or the folded one. ``inputs`` and ``output`` are
    names of values in the file, ``shapes`` and ``dtypes`` those of the module's inputs; ``members`` name its values.
    """

    members: tuple[Node, ...]
    held: Node
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    output: str
    differences: tuple[Difference, ...] = ()
    shapes: tuple[Shape, ...] = ()
    dtypes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return self.held.path

    @property
    def op(self) -> str:
        return " + ".join(member.op for member in self.members)

    @property
    def parameters(self) -> int:
        return sum(tensor.values.size for tensor in self.held.tensors.values())


@dataclass(frozen=True)
class Structure:
    """The layers that were found, in order, and what does not fit, in words; None when everything fits."""

    graph: Graph
    wiring: Wiring
    layers: tuple[Layer, ...]
    problem: str | None
    values: Mapping[str, str] = field(default_factory=dict)
    """What the file's outputs are, seen through copies and changes of shape."""


def match(graph: Graph, model: Model) -> Structure:
    """Walk the module's nodes in order, each to the operators of the file that compute it from the same values."""
    graph = graph.without_dead_nodes()
    wiring = wiring_of(graph, model)
    problem = model.problem or _ports(graph, model, wiring)
    if not (problem or graph.nodes):
        problem = "the module gives its input back: there is nothing to compute"
    if problem:
        return Structure(graph, wiring, (), problem)
    matching = _Matching(graph, model, wiring)
    problem = matching.matched()
    seen = {name: model.value(name) for name in wiring.outputs}
    return Structure(graph, wiring, tuple(matching.layers), problem, seen)


class _Matching:
    """The walk itself: ``values`` names what the file has for the module's values, ``used`` its operators so far."""

    def __init__(self, graph: Graph, model: Model, wiring: Wiring):
        self.graph, self.model, self.wiring = graph, model, wiring
        self.values = dict(zip(graph.inputs, map(model.value, wiring.inputs), strict=True))
        self.names = dict(zip(graph.outputs.values(), wiring.outputs, strict=True))
        self.shapes, self.dtypes = graph.shapes, graph.dtypes
        self.used: set[int] = set()
        self.layers: list[Layer] = []
        self.remaining = list(graph.nodes)

    def matched(self) -> str | None:
        """Find all layers; what does not fit, in words."""
        while self.remaining:
            node = self.remaining[0]
            found = self._next(self.used) if node.op != "reshape" else None
            moves = _moves(node, self.shapes)
            if (found is None or (moves and found.differences)) and (moves or _does_nothing(node)):
                self.values[node.output] = self.values[node.inputs[0]]
                del self.remaining[0]
                continue
            if found is None or found.differences:  # other exporters compute once what the module computes twice
                again = self._next(set())
                found = again if again is not None and not again.differences else found
            if found is None:
                there = [n for n in self.model.consumers(self.values[node.inputs[0]]) if id(n) not in self.used]
                listed = ", ".join(f"{n.op_type} '{_named(n)}'" for n in there) or "nothing that reads it"
                words = f"the module has {node.op} at '{node.path}', and the file has {listed} there"
                return f"{words}, which is not a spelling of it"
            self.layers.append(found)
            self.used |= {id(node) for node in found.nodes}
            self.values[found.members[-1].output] = found.output
            gone = {member.path for member in found.members}
            self.remaining = [node for node in self.remaining if node.path not in gone]
        surplus = next((node for node in self.model.nodes if id(node) not in self.used), None)
        if surplus is not None:
            return f"the file has an operator that the module has not: {surplus.op_type} '{_named(surplus)}'"
        for name, value in zip(self.wiring.outputs, self.graph.outputs.values(), strict=True):
            output, last = self.model.value(name), self.values[value]
            if output != last:
                return f"the file's output '{name}' is '{output}', and the module's last block gives '{last}'"
        return None

    def _next(self, used: set[int]) -> Layer | None:
        """The first block with the operators that fit it best, folded with the affine nodes after it where that fits.

        ``used`` are operators that are not to be taken.
        """
        best: Layer | None = None
        for members, held, sought in self._candidates(used):
            given = members[0].inputs
            inputs = tuple(self.values[name] for name in given)
            shapes, dtypes = tuple(self.shapes[name] for name in given), tuple(self.dtypes[name] for name in given)
            # Where the same is computed twice, the name says which is which.
            wanted = self.names.get(members[-1].output, members[-1].output)
            exact: Layer | None = None
            for nodes, output, differences in matches(sought, inputs, self.model, used):
                found = tuple(replace(difference, folded=len(members) > 1) for difference in differences)
                layer = Layer(tuple(members), held, nodes, inputs, output, found, shapes, dtypes)
                if not found and (exact is None or self.model.value(wanted) == output):
                    exact = layer
                if best is None or _distance(layer) < _distance(best):
                    best = layer
            if exact is not None:
                return exact
        return best

    def _candidates(self, used: set[int]) -> Iterator[tuple[list[Node], Node, Node]]:
        """Blocks that the next operators may be, as the file should hold them, and what is sought for that."""
        for members in self._groups():
            if len(members) == 1:
                yield members, members[0], members[0]
                continue
            scaled, folded = _scaled_linear(members) or _taken_from(members), self._has_shape(members, used)
            if scaled is not None or folded:
                tensors = {role: Tensor(f"{members[-1].home}.{role}", v) for role, v in refolded(members).items()}
                held = as_one(members, tensors)
                yield from ((members, held, sought) for sought in (scaled, held if folded else None) if sought)

    def _groups(self) -> Iterator[list[Node]]:
        """The first block alone, then with one more affine block that alone reads it, and so on."""
        group = self.remaining[:1]
        yield group
        while is_foldable(group[-1]):
            following = [node for node in self.remaining if group[-1].output in node.inputs]
            alone = len(following) == self.graph.consumers(group[-1].output) == 1
            if not alone or not is_foldable(following[0]):
                return
            group = [*group, following[0]]
            yield group

    def _has_shape(self, members: list[Node], used: set[int]) -> bool:
        """Whether an operator there holds a constant as large as folding would make, which takes long to compute."""
        sizes = [node.tensors["weight"].values.shape for node in members if node.op == "linear"]
        wanted = (sizes[-1][0], sizes[0][1]) if sizes else members[0].shape[-1:]
        readers = [n for n in self.model.consumers(self.values[members[0].inputs[0]]) if id(n) not in used]
        constants = self.model.constants
        shapes = [constants[name].shape for node in readers for name in node.input if name in constants]
        return wanted in shapes or wanted[::-1] in shapes


def _moves(node: Node, shapes: Mapping[str, Shape]) -> bool:
    """Whether a node gives the same values in the same order: another shape, or dimensions of 1 that change places."""
    if node.op == "reshape":
        return True
    if node.op != "permute":
        return False
    before = shapes[node.inputs[0]]
    kept = [dim for dim in node.attributes["dims"] if before[dim] != 1]
    return kept == sorted(kept)


def _does_nothing(node: Node) -> bool:
    """Whether a sum or a product is with a constant that changes nothing, so that a file may leave it out."""
    neutral = {"add": 0, "sub": 0, "mul": 1, "div": 1}.get(node.op)
    if neutral is None or len(node.inputs) != 1 or node.tensors.get("self", node.attributes.get("self")) is not None:
        return False
    held = node.tensors["other"].values if "other" in node.tensors else node.attributes["other"]
    return bool(np.all(np.asarray(held) == neutral))


def wiring_of(graph: Graph, model: Model) -> Wiring:
    """By name where the file has the module's names, else by order."""
    inputs, outputs = [value.name for value in model.inputs], [value.name for value in model.proto.graph.output]
    if set(inputs) == set(graph.inputs):
        inputs = list(graph.inputs)
    if set(outputs) == set(graph.outputs):
        outputs = list(graph.outputs)
    rows = output_shapes(graph).values()
    return Wiring(dict(zip(inputs, graph.inputs.values(), strict=False)), dict(zip(outputs, rows, strict=False)))


def _ports(graph: Graph, model: Model, wiring: Wiring) -> str | None:
    counts = (len(model.inputs), len(model.proto.graph.output)), (len(graph.inputs), len(graph.outputs))
    if counts[0] != counts[1]:
        have, need = (f"{counted(i, 'input')} and {counted(o, 'output')}" for i, o in counts)
        return f"the file has {have}, and the module {need}"
    for what, found, own in (("input", wiring.inputs, graph.inputs), ("output", wiring.outputs, graph.outputs)):
        if set(found) != set(own) and set(found) & set(own):
            return f"the file's {what}s are {', '.join(found)}, and the module's {', '.join(own)}: which is which?"
    named = {value.name: value for value in (*model.inputs, *model.proto.graph.output)}
    ports = [("input", name, given.row, given.dtype) for name, given in wiring.inputs.items()]
    kinds = [graph.dtypes[value] for value in graph.outputs.values()]
    ports += [("output", *sink, dtype) for sink, dtype in zip(wiring.outputs.items(), kinds, strict=True)]
    for what, name, shape, dtype in ports:
        value = named[name]
        if value.type.tensor_type.elem_type not in (ELEMENT_TYPES[dtype], onnx.TensorProto.UNDEFINED):
            return f"the file's {what} '{value.name}' is not {dtype}"
        if not value.type.tensor_type.HasField("shape"):  # what it is is seen when the file is run
            continue
        found = row_shape(value)
        known = [size for size in found if isinstance(size, int)]
        if model.recovering and what == "output" and (len(known) < len(found) or prod(known) == prod(shape)):
            continue
        pairs = zip(found, shape, strict=False)
        if len(found) != len(shape) or not all(isinstance(a, str) or a in (0, b) for a, b in pairs):
            return f"the file's {what} '{value.name}' has rows of shape {list(found)}, and the module's {list(shape)}"
    dropout = next((node for node in model.proto.graph.node if node.op_type == "Dropout"), None)
    dropout = None if model.recovering and dropout not in model.nodes else dropout
    return None if dropout is None else f"a Dropout is left in the file: '{_named(dropout)}'"


def _scaled_linear(members: list[Node]) -> Node | None:
    """A linear, a product with one number, and perhaps a sum, as the Gemm that they may be: alpha·x·Wᵀ + beta·C."""
    ops = [member.op for member in members]
    if ops not in (["linear", "mul"], ["linear", "mul", "add"]) or (factor := _one_number(members[1])) is None:
        return None
    linear, last, offset = members[0], members[-1], None
    if len(members) == 3:
        held = _operand(last)
        offset = held.values if held is not None else np.float32(last.attributes.get("other", np.nan))
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


def _taken_from(members: list[Node]) -> Node | None:
    """A product with -1 and a sum as the one difference that they may be: constant - x."""
    if [member.op for member in members] != ["mul", "add"] or _one_number(members[0]) != -1:
        return None
    first, last = members
    offset = _operand(last)
    if offset is None:
        return None
    return Node("sub", last.path, first.inputs, last.output, last.shape, {}, {"self": offset}, "Tensor", home=last.home)


def _operand(node: Node) -> Tensor | None:
    return node.tensors.get("other") or node.tensors.get("self")


def _one_number(node: Node) -> np.float32 | None:
    """The factor of a product with one number for every feature."""
    held = _operand(node)
    if held is None:
        return np.float32(node.attributes["other"]) if "other" in node.attributes else None
    flat = held.values.reshape(-1)
    return flat[0] if flat.size and bool((flat == flat[0]).all()) else None


def _distance(layer: Layer) -> tuple[int, bool, bool, int]:
    """Attributes first: a transposed weight is another weight, not another way to store it.

    Where all constants differ anyway, the names that mlpx gives to values say how far a layer was folded.
    """
    attributes = sum(not difference.index for difference in layer.differences)
    count = sum(difference.count for difference in layer.differences)
    return attributes, count > 0, layer.output != layer.members[-1].output, count


def _named(node: NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)
