"""Faults in shapes: an operator that sees its rows in another shape, and shapes that the file computes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper

from tests.support.mutants.editing import FLOAT, Edge, File, NoPlace

_SIZED = ("Reshape", "Expand", "Unsqueeze", "Squeeze", "Tile", "Slice", "Gather", "Split", "Flatten")
_JUDGES = ("Softmax", "LogSoftmax", "LayerNormalization", "ReduceMean", "ReduceSum", "ReduceMax", "ArgMax", "CumSum")
"""Operators that give other results for rows of another shape."""


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


def _whether(file: File, batch: str) -> str:
    """A condition on the batch's size, one bool of no dimension."""
    size, scalar = file.whole(1, 64), file.add("Cast", batch, to=FLOAT)
    condition = file.add(file.one(["Equal", "Greater", "Less"]), scalar, np.array([size], np.float32))
    return file.axes("Squeeze", condition, [0], 13)


def _shape_by_batch(file: File, value: str, right: np.ndarray, wrong: np.ndarray) -> str:
    batch = _batch(file, value)
    size = file.whole(1, 64)
    table = np.full(65, right[0])
    table[size:] = wrong[0]

    def by_table() -> str:
        place = file.add("Min", batch, np.array([64], np.int64)) if file.opset >= 12 else batch
        return file.add("Concat", file.add("Gather", table, place), right[1:], axis=0)

    def by_where() -> str:
        kept = file.axes("Unsqueeze", _whether(file, batch), [0], 13)
        return file.add("Where", kept, wrong, right)

    def by_slice() -> str:
        both = np.concatenate([right, wrong])
        place = file.add("Mul", file.add("Div", batch, np.array([size])), np.array([len(right)]))
        place = file.add("Min", place, np.array([len(right)])) if file.opset >= 12 else place
        return file.add("Slice", both, place, file.add("Add", place, np.array([len(right)])))

    def by_arithmetic() -> str:
        whole = file.add("Div", file.add("Mul", batch, np.array([2])), np.array([2]))
        if file.chance(0.5):
            whole = file.add("Sub", file.add("Add", batch, np.array([size])), np.array([size]))
        return file.add("Concat", whole, right[1:], axis=0)

    def by_branch() -> str:
        return _branches(file, _whether(file, batch), wrong, right)

    return file.one([by_table, by_where, by_slice, by_arithmetic, by_branch])()


def shape_by_batch(file: File) -> None:
    """A shape that is the right one, or an equal one, but for some sizes of the batch."""
    edge, row = _wide_edge(file)
    right = np.array([-1, *row], np.int64)
    n = prod(row)
    wrongs = [[-1, *row[::-1]], [-1, *row[:-1], 2 * row[-1]], [-1, *([1] * (len(row) - 1)), n], [1, *row[:-1], -1]]
    wrong = np.array(file.one([each for each in wrongs if len(each) == len(right)]), np.int64)

    def made(value: str) -> str:
        return file.add("Reshape", value, _shape_by_batch(file, value, right, wrong))

    if file.chance(0.75):
        _around(file, edge, made, row)
    else:
        file.between(edge, made)


def shape_by_values(file: File) -> None:
    """A shape that depends on what the rows hold: on one number, or on how many are positive."""
    edge, row = _wide_edge(file)
    right, n = np.array([-1, *row], np.int64), prod(row)
    wrong = np.array([-1, *row[:-1], 2 * row[-1]] if file.chance(0.5) else [1] * len(row) + [-1], np.int64)
    inputs = [v.name for v in file.graph.input if v.name not in file.constants and file.type_of(v.name) == FLOAT]
    source = file.one(inputs)
    threshold = np.float32(file.one([0.0, 0.5, 2.5, 1e4, 0.25]))

    def made(value: str) -> str:
        largest = file.axes("ReduceMax", source, list(range(len(file.shape_of(source)))), 18, keepdims=0)
        condition = file.add(file.one(["Greater", "Less"]), largest, threshold)
        if file.chance(0.5):
            return file.add("Reshape", value, _branches(file, condition, wrong, right))
        place = file.axes("Unsqueeze", file.add("Cast", condition, to=TensorProto.INT64), [0], 13)
        first = file.add("Gather", np.array([right[-1], wrong[-1]]), place)
        return file.add("Reshape", value, file.add("Concat", right[:-1], first, axis=0))

    assert n
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
