"""Which operators of a file are which block of the module, and whether their constants have the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import NodeProto

from export.graph import Graph, Node, Shape, rewired

from .bounds import AFFINE
from .differences import Difference, compared
from .findings import counted
from .reading import Model, row_shape
from .refolding import as_node, refolded
from .rows import Wiring, output_shapes
from .spellings import COMMUTATIVE, SPELLINGS, WITHOUT_EFFECT, Source, Spelling, Step, Tensor


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
    wiring = _wiring(graph, model)
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
        if found is None:
            return Structure(graph, wiring, tuple(layers), _unmatched(model, remaining[0], values, used))
        layers.append(replace(found, rows=tuple(graph.shapes[name] for name in found.members[0].inputs)))
        used |= {id(node) for node in found.nodes}
        values[found.members[-1].output] = found.output
        gone = {member.path for member in found.members}
        remaining = [node for node in remaining if node.path not in gone]
    return Structure(graph, wiring, tuple(layers), _left_over(graph, model, wiring, values, used))


def _wiring(graph: Graph, model: Model) -> Wiring:
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
    named = {value.name: value for value in (*model.inputs, *model.proto.graph.output)}
    shapes = [("input", name, shape) for name, shape in wiring.inputs.items()]
    shapes += [("output", name, s) for name, s in zip(wiring.outputs, output_shapes(graph).values(), strict=True)]
    for what, name, shape in shapes:
        value = named[name]
        found = row_shape(value)
        if len(found) != len(shape) or any(
            a != b for a, b in zip(found, shape, strict=True) if isinstance(a, int) and a
        ):
            return f"the file's {what} '{value.name}' has rows of shape {list(found)}, and the module's {list(shape)}"
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            return f"the file's {what} '{value.name}' is not float32"
    dropout = next((node for node in model.nodes if node.op_type == "Dropout"), None)
    return None if dropout is None else f"a Dropout is left in the file: '{_named(dropout)}'"


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
    for members in _groups(graph, remaining):
        held = members[0]
        if len(members) > 1:
            if not _has_shape(model, members, values, used):
                continue
            held = as_node(members, refolded(members))
        inputs = tuple(values[name] for name in members[0].inputs)
        # Where the same is computed twice, the name says which is which.
        wanted = names.get(members[-1].output, members[-1].output)
        exact: Layer | None = None
        for nodes, output, differences in _matches(held, inputs, model, used):
            found = tuple(replace(difference, folded=len(members) > 1) for difference in differences)
            layer = Layer(tuple(members), held, nodes, inputs, output, found)
            if not found and (exact is None or model.value(wanted) == output):
                exact = layer
            if best is None or _distance(layer) < _distance(best):
                best = layer
        if exact is not None:
            return exact
    return best


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


Match = tuple[tuple[NodeProto, ...], str, list[Difference]]


def _matches(node: Node, inputs: Sequence[str], model: Model, used: set[int]) -> Iterator[Match]:
    for spelling in SPELLINGS[node.op](node):
        given: dict[Source, str] = {"x" if i == 0 else f"x{i}": name for i, name in enumerate(inputs)}
        yield from _extend(node, spelling, given, (), model, used, [])


def _extend(
    node: Node,
    spelling: Spelling,
    values: dict[Source, str],
    nodes: tuple[NodeProto, ...],
    model: Model,
    used: set[int],
    differences: list[Difference],
) -> Iterator[Match]:
    """The rest of a spelling after its first ``nodes``; constants that differ do not end the search, wiring does."""
    if len(nodes) == len(spelling):
        yield nodes, nodes[-1].output[0], differences
        return
    step = spelling[len(nodes)]
    known = next(values[source] for source in step.inputs if source in values)
    for candidate in model.consumers(known):
        if (
            candidate.op_type != step.op
            or id(candidate) in used
            or candidate in nodes
            or candidate.domain not in ("", "ai.onnx")
        ):
            continue
        found = _compare(node, step, candidate, values, model)
        if found is not None:
            held = {**values, len(nodes): candidate.output[0]}
            yield from _extend(node, spelling, held, (*nodes, candidate), model, used, differences + found)


def _compare(
    node: Node, step: Step, candidate: NodeProto, values: dict[Source, str], model: Model
) -> list[Difference] | None:
    """What differs in the constants and attributes of one operator; None where it is wired differently."""
    names = list(candidate.input)
    orders = [names, names[::-1]] if step.op in COMMUTATIVE else [names]
    for order in orders:
        found = [
            _read(node, source, order[i] if i < len(order) else "", values, model)
            for i, source in enumerate(step.inputs)
        ]
        if len(order) <= len(step.inputs) and all(part is not None for part in found):
            try:
                return [d for part in found if part for d in part] + _attributes(node, step, candidate, model)
            except onnx.defs.SchemaError:  # the file's opset has no such operator
                return None
    return None


def _read(node: Node, source: Source, name: str, values: dict[Source, str], model: Model) -> list[Difference] | None:
    if isinstance(source, int | str):
        return [] if model.value(name) == values[source] else None
    if isinstance(source, Tensor):
        tensor = node.tensors.get(source.role)
        if tensor is None and source.default is None:
            return [] if not name or not _nonzero(name, model) else None
        expected = tensor.values if tensor is not None else np.full(node.shape[-1:], source.default, np.float32)
        what = source.role if tensor is None else f"{source.role} ({tensor.name})"
    else:
        value = source.value(node) if callable(source.value) else source.value
        expected, what = np.asarray(value, dtype=np.float32), "a constant"
    if isinstance(source, Tensor) and not name:
        return [Difference(node.path, what, expected.size, expected.size, (), "missing", "there")]
    held = model.constants.get(name)
    if held is None:
        return None
    transposed = isinstance(source, Tensor) and source.transposed
    if expected.ndim == 1 and held.ndim != 1 and held.size in (1, expected.size):
        held = np.broadcast_to(held.reshape(-1), expected.shape)
    return compared(held.T if transposed else held, expected, node.path, what, exact=isinstance(source, Tensor))


def _nonzero(name: str, model: Model) -> bool:
    held = model.constants.get(name)
    return held is None or bool(held.any())


def _attributes(node: Node, step: Step, candidate: NodeProto, model: Model) -> list[Difference]:
    schema = onnx.defs.get_schema(candidate.op_type, max(1, model.opset), "")
    given = {a.name: _value(a) for a in candidate.attribute if (step.op, a.name) not in WITHOUT_EFFECT}
    found = []
    for name, description in schema.attributes.items():
        if (step.op, name) in WITHOUT_EFFECT:
            continue
        default = onnx.helper.get_attribute_value(description.default_value) if description.default_value.name else None
        wanted = step.attributes.get(name, default)
        wanted = wanted(node) if callable(wanted) else wanted
        have = given.pop(name, default)
        if _plain(have) != _plain(wanted):
            found.append(Difference(node.path, name, 1, 1, (), _plain(have), _plain(wanted)))
    found += [Difference(node.path, name, 1, 1, (), _plain(value), "not there") for name, value in given.items()]
    # A spelling of another opset: without the attribute the operator means something else.
    return found + [
        Difference(node.path, name, 1, 1, (), "not there", _plain(value(node) if callable(value) else value))
        for name, value in step.attributes.items()
        if name not in schema.attributes
    ]


def _value(attribute: onnx.AttributeProto) -> object:
    return "a reference" if attribute.ref_attr_name else onnx.helper.get_attribute_value(attribute)


def _plain(value: object) -> float | str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return str(list(value))
    return float(np.float32(value)) if isinstance(value, int | float) else str(value)


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
