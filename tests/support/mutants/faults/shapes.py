"""Faults in shapes: an operator that sees its rows in another shape, and shapes that the file computes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from tests.support.mutants.editing import FLOAT, Edge, File, NoPlace

_SIZED = ("Reshape", "Expand", "Unsqueeze", "Squeeze", "Tile", "Slice", "Gather", "Split", "Flatten")
_JUDGES = ("Softmax", "LogSoftmax", "LayerNormalization", "ReduceMean", "ReduceSum", "ReduceMax", "ArgMax", "CumSum")
"""Operators that give other results for rows of another shape."""
_MOST_ROWS = 6000
"""As large a batch as a proof tries fits into a table by the batch's size."""


def _around(file: File, edge: Edge, made: Callable[[str], str], row: tuple[int, ...]) -> None:
    """Change the shape before an operator, and change it back after it where it is known."""
    node = edge.node
    file.between(edge, made)
    if node is None or len(node.output) != 1:
        return
    try:
        after = file.row_of(node.output[0])
    except NoPlace:
        after = row
    target, inner = node.output[0], file.name("inner")
    node.output[0] = inner
    file.before_node(node)
    file.cursor += 1
    shape = np.array([-1, *after], np.int64)
    kept = file.add("Reshape", inner, shape)
    for each in file.graph.node:
        each.output[:] = [target if name == kept else name for name in each.output]


def _wide_edge(file: File) -> tuple[Edge, tuple[int, ...]]:
    """An edge that a shape matters at, more often than not."""
    if file.chance(0.6):
        try:
            return file.rowed_edge(*_JUDGES)
        except NoPlace:
            pass
    return file.rowed_edge()


def reshaped(file: File) -> None:
    """An operator between two changes of shape: over two rows at once, over half a row, over all rows."""
    edge, row = _wide_edge(file)
    n = prod(row)
    factor = next((d for d in (2, 3, 5, 7) if n % d == 0), n)
    shapes = [[-1], [1, -1], [-1, 1], [2, -1], [-1, n], [0, n // factor, factor], [-1, 2 * n], [-1, n // factor]]
    shapes += [[0, 1, -1], [1, -1, n], [n, -1], [0, *row[::-1]], [-1, *row, 1]]
    shape = np.array(file.one(shapes), np.int64)
    if file.chance(0.75):
        _around(file, edge, lambda value: file.add("Reshape", value, shape), row)
    else:
        file.between(edge, lambda value: file.add("Reshape", value, shape))


def shape_constant(file: File) -> None:
    """Other numbers in a constant that says a shape, axes, places or sizes."""
    nodes = [n for n in file.graph.node if n.op_type in _SIZED and any(name in file.constants for name in n.input[1:])]
    node = file.one(nodes)
    place = file.one(i for i, name in enumerate(node.input) if i and name in file.constants)
    values = file.constants[node.input[place]].copy()
    flat = values.reshape(-1)
    if not flat.size or values.dtype.kind != "i":
        raise NoPlace
    where = file.whole(0, flat.size - 1)
    flat[where] = file.one([each for each in (-1, 0, 1, 2, flat[where] + 1, -flat[where]) if each != flat[where]])
    if file.chance(0.2):
        flat[:] = flat[::-1].copy()
    node.input[place] = file.constant(values, values.dtype)


def _batch(file: File, value: str) -> str:
    """The batch's size, as an int64 of one element."""
    source = file.one([value, next(v.name for v in file.graph.input if v.name not in file.constants)])
    sizes = file.add("Shape", source)
    return file.add("Gather", sizes, np.array([0], np.int64))


def _branches(file: File, condition: str, first: np.ndarray, second: np.ndarray) -> str:
    def body(values: np.ndarray) -> GraphProto:
        name = file.name("branch")
        constant = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))
        output = helper.make_tensor_value_info(name, TensorProto.INT64, list(values.shape))
        return helper.make_graph([constant], name, [], [output])

    return file.add("If", condition, then_branch=body(first), else_branch=body(second))


def _whether(file: File, batch: str, size: int) -> str:
    """A condition on the batch's size, one bool of no dimension."""
    scalar = file.add("Cast", batch, to=FLOAT)
    condition = file.add(file.one(["Equal", "Greater", "Less"]), scalar, np.array([size], np.float32))
    return file.axes("Squeeze", condition, [0], 13)


def _hidden(file: File, made: Callable[[File], str]) -> str:
    """The same operators inside a branch that is always taken, where they are no operators of the file's graph."""
    start, inner = file.cursor, made(file)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in file.graph.node[start : file.cursor]]
    del file.graph.node[start : file.cursor]
    file.cursor = start
    output = helper.make_tensor_value_info(inner, TensorProto.INT64, None)
    bodies = [helper.make_graph(nodes, file.name("body"), [], [output])]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    names = {name: file.name("other") for node in copies for name in node.output}
    for node in copies:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    other = helper.make_tensor_value_info(names[inner], TensorProto.INT64, None)
    bodies.append(helper.make_graph(copies, file.name("body"), [], [other]))
    return file.add("If", np.bool_(True), then_branch=bodies[0], else_branch=bodies[1])


def _by_batch(file: File, value: str, right: np.ndarray, wrong: np.ndarray, size: int) -> str:
    batch = _batch(file, value)
    table = np.tile(right, (_MOST_ROWS, 1))
    table[size] = wrong
    if file.chance(0.2):
        table[size:] = wrong

    def by_table() -> str:
        chosen = file.add("Gather", table, batch)
        return file.axes("Squeeze", chosen, [0], 13)

    def by_where() -> str:
        kept = file.axes("Unsqueeze", _whether(file, batch, size), [0], 13)
        return file.add("Where", kept, wrong, right)

    def by_slice() -> str:
        flat, place = table.reshape(-1), file.add("Mul", batch, np.array([len(right)]))
        return file.add("Slice", flat, place, file.add("Add", place, np.array([len(right)])))

    def by_slice_of_products() -> str:
        flat, place = table.reshape(-1), file.add("Mul", batch, np.array([len(right)]))
        after = file.add("Gather", np.arange(len(right), _MOST_ROWS * len(right) + 1), place)
        return file.add("Slice", flat, place, after)

    def by_arithmetic() -> str:
        whole = file.add("Div", file.add("Mul", batch, np.array([2])), np.array([2]))
        if file.chance(0.5):
            whole = file.add("Sub", file.add("Add", batch, np.array([size])), np.array([size]))
        return file.add("Concat", whole, right[1:], axis=0)

    def by_branch() -> str:
        return _branches(file, _whether(file, batch, size), wrong, right)

    return file.one([by_table, by_table, by_where, by_slice, by_slice_of_products, by_arithmetic, by_branch])()


def _two_shapes(file: File, row: tuple[int, ...], even: bool) -> tuple[np.ndarray, np.ndarray]:
    """The right shape, and another that as many elements have; two rows as one only where there is an even number."""
    right, n = [-1, *row], prod(row)
    wrongs = [
        [-1, *row[::-1]],
        [-1, *([1] * (len(row) - 1)), n],
        [1, *row[:-1], -1],
        [-1, *row[1:], 1],
        [n, *row[1:], -1],
    ]
    wrongs += [[-1, *row[:-1], 2 * row[-1]]] * 3 if even else []
    wrong = file.one(each for each in wrongs if each != right and len(each) == len(right))
    return np.array(right, np.int64), np.array(wrong, np.int64)


def shape_by_batch(file: File) -> None:
    """A shape that is the right one, or an equal one, but for some sizes of the batch."""
    edge, row = _wide_edge(file)
    size = file.one([1, 2, 4, 4, 6, 8, 13, 16, 31, 32, 32, 33, 64])
    right, wrong = _two_shapes(file, row, size % 2 == 0)

    def shape(value: str) -> str:
        if file.chance(0.2):
            return _hidden(file, lambda file: _by_batch(file, value, right, wrong, size))
        return _by_batch(file, value, right, wrong, size)

    _around(file, edge, lambda value: file.add("Reshape", value, shape(value)), row)


def shape_by_values(file: File) -> None:
    """A shape that depends on what the rows hold: on whether a number is 0, on the largest one."""
    edge, row = _wide_edge(file)
    inputs = [v.name for v in file.graph.input if v.name not in file.constants and file.type_of(v.name) == FLOAT]
    source = file.one(inputs)
    axes = list(range(len(file.shape_of(source))))
    right, wrong = _two_shapes(file, row, file.chance(0.5))
    threshold = np.float32(file.one([0.0, 0.5, 2.5, 1e4, 0.25]))

    def first_number(file: File) -> str:
        first = source
        for axis in reversed(axes):
            first = file.add("Gather", first, np.int64(0) if axis else np.array([0]), axis=axis)
        return first

    def whether_zero(file: File) -> str:
        place = file.add("Cast", file.add("Cast", first_number(file), to=TensorProto.BOOL), to=TensorProto.INT64)
        return file.axes("Squeeze", file.add("Gather", np.stack([wrong, right]), place), [0], 13)

    def largest(file: File) -> str:
        found = file.axes("ReduceMax", source, axes, 18, keepdims=0)
        condition = file.add(file.one(["Greater", "Less"]), found, threshold)
        if file.chance(0.5):
            return _branches(file, condition, wrong, right)
        return file.add("Where", file.axes("Unsqueeze", condition, [0], 13), wrong, right)

    way = file.one([whether_zero, whether_zero, largest])

    def made(value: str) -> str:
        return file.add("Reshape", value, _hidden(file, way) if file.chance(0.4) else way(file))

    _around(file, edge, made, row)


def shape_computed(file: File) -> None:
    """A constant shape that the file computes instead, to the same numbers or to others."""
    node = file.one(n for n in file.graph.node if n.op_type in _SIZED and len(n.input) > 1)
    held = file.constants.get(node.input[1])
    if held is None or held.dtype != np.int64 or not held.size:
        raise NoPlace
    file.before_node(node)
    wrong = held.copy().reshape(-1)
    wrong[-1] = file.one([1, -1, 2, wrong[-1]])
    other = wrong.reshape(held.shape)
    ways: list[Callable[[], str]] = [
        lambda: file.add("Sub", held + 1, np.ones_like(held)),
        lambda: file.add("Cast", file.add("Cast", held, to=FLOAT), to=TensorProto.INT64),
        lambda: file.add("Cast", held.astype(np.float32) + np.float32(0.6), to=TensorProto.INT64),
        lambda: file.add("Gather", np.stack([held, other]), np.int64(file.whole(-1, 1)), axis=0),
        lambda: file.add("Max", held, other) if file.opset >= 12 else file.add("Identity", other),
        lambda: file.add("Where", np.zeros(held.shape, bool), other, held),
        lambda: file.add("Shape", np.zeros([max(0, int(each)) for each in held.reshape(-1)[:4]], np.float32)),
        lambda: _branches(file, file.constant(np.bool_(file.chance(0.5))), held, other),
    ]
    node.input[1] = file.one(ways)()


def batch_merged(file: File) -> None:
    """Rows and features exchanged by a transposition, an operator, and a transposition back."""
    edge, row = _wide_edge(file)
    node = edge.node
    if len(row) != 1 or node is None or len(node.output) != 1:
        raise NoPlace
    file.between(edge, lambda value: file.add("Transpose", value, perm=[1, 0]))
    target, inner = node.output[0], file.name("inner")
    node.output[0] = inner
    file.before_node(node)
    file.cursor += 1
    kept = file.add("Transpose", inner, perm=[1, 0])
    for each in file.graph.node:
        each.output[:] = [target if name == kept else name for name in each.output]


def expanded(file: File) -> None:
    """A value expanded or tiled to the shape of another, or by a number of rows that the file computes."""
    edge, row = file.rowed_edge()
    ones = np.ones(1 + len(row), np.int64)

    def made(value: str) -> str:
        how = file.whole(0, 3)
        if how == 0:
            return file.add("Expand", value, file.add("Shape", value))
        if how == 1:
            return file.add("Expand", file.add("Gather", value, np.array([0])), file.add("Shape", value))
        if how == 2:
            wide = file.axes("Unsqueeze", value, [1], 13)
            return file.axes(
                "ReduceMean", file.add("Expand", wide, np.array([1, 3, *([1] * len(row))])), [1], 18, keepdims=0
            )
        times = file.add("Concat", file.add("Div", _batch(file, value), np.array([33])), ones[1:], axis=0)
        return file.add("Tile", value, file.add("Add", times, np.array([1] + [0] * len(row))))

    file.between(edge, made)


SHAPES = {
    "an operator in another shape": reshaped,
    "a constant of a shape": shape_constant,
    "a shape by the batch": shape_by_batch,
    "a shape by the values": shape_by_values,
    "a shape computed": shape_computed,
    "rows and features exchanged": batch_merged,
    "expanded": expanded,
}
