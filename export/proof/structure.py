"""Which operators of a file are which block of the module, and whether their constants have the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import onnx
from onnx import NodeProto

from export.graph import Graph, Node, Shape, Tensor, rewired

from .affine_bounds import AFFINE
from .differences import Difference
from .findings import counted
from .operators import matches
from .reading import Model, row_shape
from .refolding import as_node, refolded
from .rows import Wiring, output_shapes


@dataclass(frozen=True)
class Layer:
    """One block, or affine blocks folded into one, and the operators of the file that compute it.

    ``held`` is the block as the file should hold it: the module's own, or the folded one. ``inputs`` and ``output`` are
    names of values in the file, ``rows`` the shapes that the module's rows of the inputs have; ``members`` name the
    module's values.
    """

    members: tuple[Node, ...]
    held: Node
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    output: str
    differences: tuple[Difference, ...] = ()
    rows: tuple[Shape, ...] = ()

    @property
    def path(self) -> str:
        return self.held.path

    @property
    def op(self) -> str:
        return " + ".join(member.op for member in self.members)


@dataclass(frozen=True)
class Structure:
    """The layers that were found, in order, and what does not fit, in words; ``complete`` when everything fits."""

    graph: Graph
    wiring: Wiring
    layers: tuple[Layer, ...]
    problem: str | None

    @property
    def complete(self) -> bool:
        return self.problem is None


def acting(graph: Graph) -> Graph:
    """The graph without blocks that give their input back (Dropout, Identity, Flatten of flat rows) or are not read."""
    names: dict[str, str] = {}
    kept = []
    shapes = graph.shapes
    for node in graph.nodes:
        if node.op in ("dropout", "identity") or (node.op == "flatten" and len(shapes[node.inputs[0]]) == 1):
            names[node.output] = names.get(node.inputs[0], node.inputs[0])
        else:
            kept.append(rewired(node, names))
    graph = graph.renamed(names)
    needed = set(graph.outputs.values())
    for node in reversed(kept):
        if node.output in needed:
            needed.update(node.inputs)
    return replace(graph, nodes=tuple(node for node in kept if node.output in needed))


def match(graph: Graph, model: Model) -> Structure:
    """Walk the module's blocks in order, each to the operators of the file that compute it from the same values."""
    graph = acting(graph)
    wiring = wiring_of(graph, model)
    problem = model.problem or _ports(graph, model, wiring)
    if problem is None and not graph.nodes:
        problem = "the module gives its input back: there is nothing to compute"
    if problem is not None:
        return Structure(graph, wiring, (), problem)
    values = dict(zip(graph.inputs, map(model.value, wiring.inputs), strict=True))
    names = dict(zip(graph.outputs.values(), wiring.outputs, strict=True))
    used: set[int] = set()
    layers: list[Layer] = []
    remaining = list(graph.nodes)
    while remaining:
        if remaining[0].op == "flatten":  # on either side it is another shape of the same rows
            values[remaining[0].output] = values[remaining[0].inputs[0]]
            del remaining[0]
            continue
        found = _next(graph, model, remaining, values, names, used)
        if found is None or found.differences:  # other exporters compute once what the module computes twice
            again = _next(graph, model, remaining, values, names, set())
            found = again if again is not None and not again.differences else found
        if found is None:
            return Structure(graph, wiring, tuple(layers), _unmatched(model, remaining[0], values, used))
        layers.append(replace(found, rows=tuple(graph.shapes[name] for name in found.members[0].inputs)))
        used |= {id(node) for node in found.nodes}
        values[found.members[-1].output] = found.output
        gone = {member.path for member in found.members}
        remaining = [node for node in remaining if node.path not in gone]
    return Structure(graph, wiring, tuple(layers), _left_over(graph, model, wiring, values, used))


def wiring_of(graph: Graph, model: Model) -> Wiring:
    """By name where the file has the module's names, else by order."""
    inputs, outputs = [value.name for value in model.inputs], [value.name for value in model.proto.graph.output]
    if set(inputs) == set(graph.inputs):
        inputs = list(graph.inputs)
    if set(outputs) == set(graph.outputs):
        outputs = list(graph.outputs)
    return Wiring(dict(zip(inputs, graph.inputs.values(), strict=False)), tuple(outputs))


def _ports(graph: Graph, model: Model, wiring: Wiring) -> str | None:
    counts = (len(model.inputs), len(model.proto.graph.output))
    wanted = (len(graph.inputs), len(graph.outputs))
    if counts != wanted:
        have, need = (f"{counted(i, 'input')} and {counted(o, 'output')}" for i, o in (counts, wanted))
        return f"the file has {have}, and the module {need}"
    for what, found, own in (("input", wiring.inputs, graph.inputs), ("output", wiring.outputs, graph.outputs)):
        if set(found) != set(own) and set(found) & set(own):
            return f"the file's {what}s are {', '.join(found)}, and the module's {', '.join(own)}: which is which?"
    named = {value.name: value for value in (*model.inputs, *model.proto.graph.output)}
    shapes = [("input", name, shape) for name, shape in wiring.inputs.items()]
    shapes += [("output", name, s) for name, s in zip(wiring.outputs, output_shapes(graph).values(), strict=True)]
    for what, name, shape in shapes:
        value = named[name]
        if value.type.tensor_type.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UNDEFINED):
            return f"the file's {what} '{value.name}' is not float32"
        if not value.type.tensor_type.HasField("shape"):  # what it is is seen when the file is run
            continue
        found = row_shape(value)
        if model.recovering and what == "output" and _size(found) in (None, prod(shape)):
            continue
        if len(found) != len(shape) or any(
            a != b for a, b in zip(found, shape, strict=True) if isinstance(a, int) and a
        ):
            return f"the file's {what} '{value.name}' has rows of shape {list(found)}, and the module's {list(shape)}"
    dropout = next((node for node in model.proto.graph.node if node.op_type == "Dropout"), None)
    dropout = None if model.recovering and dropout not in model.nodes else dropout
    return None if dropout is None else f"a Dropout is left in the file: '{_named(dropout)}'"


def _size(shape: tuple[int | str, ...]) -> int | None:
    sizes = [size for size in shape if isinstance(size, int)]
    return prod(sizes) if len(sizes) == len(shape) else None


def _next(
    graph: Graph,
    model: Model,
    remaining: list[Node],
    values: dict[str, str],
    names: dict[str, str],
    used: set[int],
) -> Layer | None:
    """The first block with the operators that fit it best, folded with the affine blocks after it where that fits."""
    best: Layer | None = None
    for members, held, sought in _candidates(graph, model, remaining, values, used):
        inputs = tuple(values[name] for name in members[0].inputs)
        # Where the same is computed twice, the name says which is which.
        wanted = names.get(members[-1].output, members[-1].output)
        exact: Layer | None = None
        for nodes, output, differences in matches(sought, inputs, model, used):
            found = tuple(replace(difference, folded=len(members) > 1) for difference in differences)
            layer = Layer(tuple(members), held, nodes, inputs, output, found)
            if not found and (exact is None or model.value(wanted) == output):
                exact = layer
            if best is None or _distance(layer) < _distance(best):
                best = layer
        if exact is not None:
            return exact
    return best


def _candidates(
    graph: Graph, model: Model, remaining: list[Node], values: dict[str, str], used: set[int]
) -> Iterator[tuple[list[Node], Node, Node]]:
    """Blocks that the next operators may be, as the file should hold them, and what is sought for that."""
    for members in _groups(graph, remaining):
        if len(members) == 1:
            yield members, members[0], members[0]
            continue
        scaled, folded = _scaled_linear(members), _has_shape(model, members, values, used)
        if scaled is not None or folded:
            held = as_node(members, refolded(members))
            yield from ((members, held, sought) for sought in (scaled, held if folded else None) if sought is not None)


def _scaled_linear(members: list[Node]) -> Node | None:
    """A linear and a scale by one number as the Gemm that they may be: alpha·x·Wᵀ + beta·C."""
    if [member.op for member in members] != ["linear", "scale"]:
        return None
    linear, scale = members
    factor, offset = (scale.tensors[role].values if role in scale.tensors else None for role in ("factor", "offset"))
    if factor is None or not bool((factor == factor[0]).all()):
        return None
    tensors = {"weight": linear.tensors["weight"]}
    if "bias" in linear.tensors and (offset is None or not offset.any()):
        beta_is_alpha = linear.tensors["bias"].values * factor[0]
        tensors["bias"] = Tensor(linear.tensors["bias"].name, beta_is_alpha)
    elif "bias" not in linear.tensors and offset is not None:
        tensors["bias"] = scale.tensors["offset"]
    elif "bias" in linear.tensors:
        return None
    attributes = {"alpha": float(factor[0])}
    return Node("scaled linear", linear.path, linear.inputs, scale.output, scale.shape, attributes, tensors)


def _distance(layer: Layer) -> tuple[int, bool, bool, int]:
    """Attributes first: a transposed weight is another weight, not another way to store it.

    Where all constants differ anyway, the names that mlpx gives to values say how far a layer was folded.
    """
    attributes = [difference for difference in layer.differences if not difference.index]
    count = sum(difference.count for difference in layer.differences)
    return len(attributes), count > 0, layer.output != layer.members[-1].output, count


def _groups(graph: Graph, remaining: list[Node]) -> Iterator[list[Node]]:
    """The first block alone, then with one more affine block that alone reads it, and so on."""
    group = [remaining[0]]
    yield group
    while group[-1].op in AFFINE:
        following = [node for node in remaining if group[-1].output in node.inputs]
        if len(following) != 1 or following[0].op not in AFFINE or graph.consumers(group[-1].output) != 1:
            return
        group = [*group, following[0]]
        yield group


def _has_shape(model: Model, members: list[Node], values: dict[str, str], used: set[int]) -> bool:
    """Whether an operator there holds a constant as large as folding would make: folding large matrices takes long."""
    sizes = [node.tensors["weight"].values.shape for node in members if node.op == "linear"]
    wanted = (sizes[-1][0], sizes[0][1]) if sizes else members[0].shape[-1:]
    readers = [n for n in model.consumers(values[members[0].inputs[0]]) if id(n) not in used]
    shapes = [model.constants[name].shape for node in readers for name in node.input if name in model.constants]
    return wanted in shapes or wanted[::-1] in shapes


def _named(node: NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)


def _unmatched(model: Model, node: Node, values: dict[str, str], used: set[int]) -> str:
    there = [n for n in model.consumers(values[node.inputs[0]]) if id(n) not in used]
    listed = ", ".join(f"{n.op_type} '{_named(n)}'" for n in there) or "nothing that reads it"
    return f"the module has {node.op} at '{node.path}', and the file has {listed} there, which is not a spelling of it"


def _left_over(graph: Graph, model: Model, wiring: Wiring, values: dict[str, str], used: set[int]) -> str | None:
    surplus = next((node for node in model.nodes if id(node) not in used), None)
    if surplus is not None:
        return f"the file has an operator that the module has not: {surplus.op_type} '{_named(surplus)}'"
    for name, value in zip(wiring.outputs, graph.outputs.values(), strict=True):
        output = model.value(name)
        if output != values[value]:
            return f"the file's output '{name}' is '{output}', and the module's last block gives '{values[value]}'"
    return None
