"""Faults that hide an operator in a graph of its own: a branch, a loop, a scan, a function, a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from tests.support.mutants.editing import FLOAT, File, NoPlace

_ALTERED = ("Identity", "Neg", "Relu", "Abs", "Tanh")


def _body(file: File, nodes: Sequence[NodeProto], output: str) -> GraphProto:
    result = helper.make_tensor_value_info(output, FLOAT, None)
    return helper.make_graph(nodes, file.name("body"), [], [result])


def _number(file: File, value: str) -> str:
    """One number of what the file is given, as a float32 without dimensions."""
    inputs = [v.name for v in file.graph.input if v.name not in file.constants and file.type_of(v.name) == FLOAT]
    source = file.one(inputs) if inputs else value
    axes = list(range(len(file.shape_of(source))))
    return file.axes(file.one(["ReduceMax", "ReduceMin", "ReduceSum"]), source, axes, 18, keepdims=0)


def _condition(file: File, value: str) -> str:
    """True, false, or a question about the values or the batch."""
    how = file.whole(0, 3)
    if how == 0:
        return file.constant(np.bool_(True))
    if how == 1:
        return file.add(file.one(["Greater", "Less"]), _number(file, value), np.float32(file.one([0.0, 100.0, 1e20])))
    if how == 2:
        size = file.add("Cast", file.add("Gather", file.add("Shape", value), np.int64(0)), to=FLOAT)
        return file.add(file.one(["Greater", "Equal"]), size, np.float32(file.whole(1, 64)))
    return file.add("Greater", np.float32(1), np.float32(0))


def branch(file: File) -> None:
    """An If: one branch does what was done, the other something else or the same."""
    edge, _ = file.rowed_edge()

    def made(value: str) -> str:
        names = file.name("then"), file.name("else")
        kinds = ("Identity", file.one(_ALTERED))
        bodies = [_body(file, [helper.make_node(k, [value], [n])], n) for k, n in zip(kinds, names, strict=True)]
        if file.chance(0.3):
            bodies.reverse()
        return file.add("If", _condition(file, value), then_branch=bodies[0], else_branch=bodies[1])

    file.between(edge, made)


def operator_in_branch(file: File) -> None:
    """An operator inside both branches of an If, in one of them with another constant or kind."""
    node = file.node(fits=lambda node: len(node.output) == 1)
    copies = NodeProto(), NodeProto()
    names = file.name("then"), file.name("else")
    for copy, name in zip(copies, names, strict=True):
        copy.CopyFrom(node)
        copy.output[0] = name
    held = [i for i, name in enumerate(node.input) if name in file.constants]
    if held and file.chance(0.6):
        place = file.one(held)
        values = file.constants[node.input[place]]
        copies[1].input[place] = file.constant(np.asarray(values * 2 if values.dtype.kind == "f" else values))
    target = node.output[0]
    file.before_node(node)
    source = next(name for name in node.input if name in file.varying)
    bodies = [_body(file, [copy], name) for copy, name in zip(copies, names, strict=True)]
    kept = file.add("If", _condition(file, source), then_branch=bodies[0], else_branch=bodies[1])
    del file.graph.node[file.cursor]
    for each in file.graph.node:
        each.output[:] = [target if name == kept else name for name in each.output]


def loop(file: File) -> None:
    """A Loop that carries the value through a few rounds, or as many as the batch has rows."""
    edge, _ = file.rowed_edge()

    def made(value: str) -> str:
        carried, kept, went = file.name("carried"), file.name("kept"), file.name("went")
        rounds, cond = file.name("round"), file.name("condition")
        body = helper.make_graph(
            [
                helper.make_node("Identity", [cond], [went]),
                helper.make_node(file.one(_ALTERED), [carried], [kept]),
            ],
            file.name("loop"),
            [
                helper.make_tensor_value_info(rounds, TensorProto.INT64, []),
                helper.make_tensor_value_info(cond, TensorProto.BOOL, []),
                helper.make_tensor_value_info(carried, FLOAT, None),
            ],
            [
                helper.make_tensor_value_info(went, TensorProto.BOOL, []),
                helper.make_tensor_value_info(kept, FLOAT, None),
            ],
        )
        times = file.constant(np.int64(file.whole(0, 3)))
        if file.chance(0.3):
            times = file.add("Gather", file.add("Shape", value), np.int64(0))
        return file.add("Loop", times, np.bool_(True), value, body=body)

    file.between(edge, made)


def scan(file: File) -> None:
    """A Scan over the rows, which adds up what came before, or gives each row back."""
    edge, row = file.rowed_edge()
    if file.opset < 9:
        raise NoPlace

    def made(value: str) -> str:
        state, part, total, out = (file.name(n) for n in ("state", "part", "total", "out"))
        summed = file.chance(0.5)
        body = helper.make_graph(
            [
                helper.make_node("Add" if summed else "Max", [state, part], [total]),
                helper.make_node("Identity", [total if summed or file.chance(0.5) else part], [out]),
            ],
            file.name("scan"),
            [helper.make_tensor_value_info(name, FLOAT, list(row)) for name in (state, part)],
            [helper.make_tensor_value_info(name, FLOAT, list(row)) for name in (total, out)],
        )
        start = np.zeros(row, np.float32)
        return file.add("Scan", start, value, outputs=2, body=body, num_scan_inputs=1)[1]

    file.between(edge, made)


def function(file: File) -> None:
    """An operator moved into a function of the file, which does the same, more, or takes a standard name."""
    node = file.node(fits=lambda node: len(node.output) == 1)
    domain = file.one(["my.own", "", "ai.onnx", "com.microsoft"])
    name = node.op_type if file.chance(0.5) else file.one(["Relu", "Gemm", "Add", "Own"])
    inner = NodeProto()
    inner.CopyFrom(node)
    parameters = [f"p{i}" for i in range(len(node.input))]
    inner.input[:] = parameters
    inner.output[0] = "inner"
    last = helper.make_node(file.one(_ALTERED), ["inner"], ["result"])
    imports = [helper.make_opsetid("", file.opset)]
    made = helper.make_function(domain, name, parameters, ["result"], [inner, last], imports)
    file.proto.functions.append(made)
    file.proto.ir_version = max(8, file.proto.ir_version)
    if domain not in ("", "ai.onnx"):
        file.proto.opset_import.add(domain=domain, version=1)
    if file.chance(0.8):
        node.op_type, node.domain = name, domain
        del node.attribute[:]


def sequence(file: File) -> None:
    """A value put into a sequence (or an optional) and taken out, perhaps after others."""
    edge, row = file.rowed_edge()

    def made(value: str) -> str:
        how = file.whole(0, 2)
        if how == 0:
            other = file.add("Neg", value)
            place = np.int64(file.whole(-2, 1))
            return file.add("SequenceAt", file.add("SequenceConstruct", value, other), place)
        if how == 1:
            parts = file.add("SplitToSequence", value, axis=len(row))
            return file.add("ConcatFromSequence", parts, axis=file.one([0, len(row)]))
        return file.add("OptionalGetElement", file.add("Optional", value))

    file.between(edge, made)


def unused(file: File) -> None:
    """An operator, a constant or a branch that nothing reads, which may fail, loop or be of no known kind."""
    value = file.one(sorted(file.varying))
    file.before_node(None)
    ways: list[Callable[[], object]] = [
        lambda: file.add("Relu", value),
        lambda: file.add("Unknown", value, domain="my.own"),
        lambda: file.add("Reshape", value, np.array([-1, 12345])),
        lambda: file.add("Dropout", value, np.float32(0.5), np.bool_(True)),
        lambda: file.add("RandomNormalLike", value),
        lambda: file.add("Gather", value, np.array([10**6])),
        lambda: file.constant(np.float32(np.nan)),
    ]
    file.one(ways)()


def random(file: File) -> None:
    """Random numbers added, with a factor of 0, of little, or of 1."""
    edge, _ = file.rowed_edge()
    factor = np.float32(file.one([0.0, 1e-30, 1e-6, 1.0]))
    kind = file.one(["RandomNormalLike", "RandomUniformLike"])
    file.between(edge, lambda v: file.add("Add", v, file.add("Mul", file.add(kind, v), factor)))


def metadata(file: File) -> None:
    """Texts beside the graph: metadata dropped, changed or doubled, names of nodes, documentation, training data."""
    how = file.whole(0, 5)
    properties = file.proto.metadata_props
    if how == 0:
        del properties[:]
    elif how == 1 and properties:
        file.one(properties).value = file.one(["", "{}", "[]", "null", '{"version": 999}', "\ud7ff"])
    elif how == 2 and properties:
        properties.add(key=properties[0].key, value="other")
    elif how == 3:
        for node in file.graph.node:
            node.name, node.doc_string = "same", "text"
    elif how == 4:
        tensor = numpy_helper.from_array(np.zeros(3, np.float32), "sparse")
        places = numpy_helper.from_array(np.arange(3), "places")
        file.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, places, [9]))
    else:
        file.proto.training_info.add().algorithm.name = "training"


NESTED = {
    "a branch": branch,
    "an operator in a branch": operator_in_branch,
    "a loop": loop,
    "a scan": scan,
    "a function of the file": function,
    "a sequence": sequence,
    "something unused": unused,
    "random numbers": random,
    "texts beside the graph": metadata,
}
