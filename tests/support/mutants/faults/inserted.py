"""Operators put between two others: some change nothing, some a few values only, some mix the rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from tests.support.mutants.editing import FLOAT, File, NoPlace

Inserted = Callable[[File, str, tuple[int, ...]], str]
"""Adds operators after a value with rows of this shape."""
S = np.float32
_END = np.array([2**62], np.int64)


def _dropout(file: File, value: str, training: bool) -> str:
    ratio = file.one([0.0, 0.1, 0.5])
    if file.opset < 12:
        return file.add("Dropout", value, ratio=ratio)
    return file.add("Dropout", value, S(ratio), np.bool_(training))


def _cast_through(file: File, value: str, kind: int) -> str:
    return file.add("Cast", file.add("Cast", value, to=kind), to=FLOAT)


def _clip(file: File, value: str, low: float, high: float) -> str:
    if file.opset < 11:
        return file.add("Clip", value, min=low, max=high)
    return file.add("Clip", value, S(low), S(high))


def _turned(file: File, value: str, row: tuple[int, ...], back: bool) -> str:
    order = [0, *(1 + file.rng.permutation(len(row))).tolist()]
    turned = file.add("Transpose", value, perm=order)
    return file.add("Transpose", turned, perm=np.argsort(order).tolist() if back else order[:1] + order[1:][::-1])


def _slice(file: File, value: str, start: int, step: int, axis: int) -> str:
    if file.opset < 10:
        raise NoPlace
    end = _END if step > 0 else -_END
    return file.add("Slice", value, np.array([start]), end, np.array([axis]), np.array([step]))


def _where(file: File, value: str, low: float) -> str:
    return file.add("Where", file.add("Greater", value, S(low)), value, S(low))


def _split(file: File, value: str, row: tuple[int, ...], swap: bool) -> str:
    if row[-1] < 2 or file.opset < 13:
        raise NoPlace
    sizes = np.array([1, row[-1] - 1])
    parts = file.add("Split", value, sizes, outputs=2, axis=len(row))
    return file.add("Concat", *(parts[::-1] if swap else parts), axis=len(row))


NEUTRAL: dict[str, Inserted] = {
    "Identity": lambda f, v, _: f.add("Identity", v),
    "Cast": lambda f, v, _: f.add("Cast", v, to=FLOAT),
    "Cast to float64": lambda f, v, _: _cast_through(f, v, TensorProto.DOUBLE),
    "Neg twice": lambda f, v, _: f.add("Neg", f.add("Neg", v)),
    "Mul 1": lambda f, v, _: f.add("Mul", v, S(1)),
    "Div 1": lambda f, v, _: f.add("Div", v, S(1)),
    "Add 0": lambda f, v, _: f.add("Add", v, S(0)),
    "Sub -0": lambda f, v, _: f.add("Sub", v, S(-0.0)),
    "Pow 1": lambda f, v, _: f.add("Pow", v, S(1)),
    "Mul 2 and Div 2": lambda f, v, _: f.add("Div", f.add("Mul", v, S(2)), S(2)),
    "Max of itself": lambda f, v, _: f.add("Max", v, v),
    "Sum of one": lambda f, v, _: f.add("Sum", v),
    "Concat of one": lambda f, v, _: f.add("Concat", v, axis=1),
    "Transpose and back": lambda f, v, r: _turned(f, v, r, True),
    "Unsqueeze and Squeeze": lambda f, v, _: f.axes("Squeeze", f.axes("Unsqueeze", v, [1], 13), [1], 13),
    "Slice of all": lambda f, v, r: _slice(f, v, 0, 1, f.whole(0, len(r))),
    "Split and Concat": lambda f, v, r: _split(f, v, r, False),
    "Dropout": lambda f, v, _: _dropout(f, v, False),
    "Tile 1": lambda f, v, r: f.add("Tile", v, np.ones(1 + len(r), np.int64)),
    "Expand to 1": lambda f, v, r: f.add("Expand", v, np.ones(1 + len(r), np.int64)),
    "Gather of all": lambda f, v, r: f.add("Gather", v, np.arange(r[-1]), axis=len(r)),
    "Flatten or Reshape": lambda f, v, r: f.add("Reshape", v, np.array([0, *r] if f.chance(0.5) else [-1, *r])),
}
PARTLY: dict[str, Inserted] = {
    "Abs": lambda f, v, _: f.add("Abs", v),
    "Relu": lambda f, v, _: f.add("Relu", v),
    "Cast to float16": lambda f, v, _: _cast_through(f, v, TensorProto.FLOAT16),
    "Cast to bfloat16": lambda f, v, _: _cast_through(f, v, TensorProto.BFLOAT16),
    "Cast to int64": lambda f, v, _: _cast_through(f, v, TensorProto.INT64),
    "wide Clip": lambda f, v, _: _clip(f, v, -f.one([1e3, 1e30, 3.4e38]), f.one([1e3, 1e30, 3.4e38])),
    "Clip from below": lambda f, v, _: _clip(f, v, f.one([-1e-6, -5.0, 0.0]), 3e38),
    "Where": lambda f, v, _: _where(f, v, f.one([-50.0, -1e20, 0.0])),
    "scaled far and back": lambda f, v, _: f.add("Mul", f.add("Mul", v, S(2.0**100)), S(2.0**-100)),
    "added far and back": lambda f, v, _: f.add("Sub", f.add("Add", v, S(64)), S(64)),
    "Tanh of little": lambda f, v, _: f.add("Mul", f.add("Tanh", f.add("Mul", v, S(1e-3))), S(1e3)),
    "Round at 2^-20": lambda f, v, _: f.add("Mul", f.add("Floor", f.add("Mul", v, S(2.0**20))), S(2.0**-20)),
    "NaN to 0": lambda f, v, _: f.add("Where", f.add("IsNaN", v), S(0), v),
    "infinity to 0": lambda f, v, _: f.add("Where", f.add("IsInf", v), S(0), v),
    "one number": lambda f, v, _: f.add("Where", f.add("Equal", v, S(f.one([0.0, 1.0, 0.5]))), S(2), v),
    "LeakyRelu": lambda f, v, _: f.add("LeakyRelu", v, alpha=f.one([1.0, 0.999999, 1.0000001])),
    "Exp of Log": lambda f, v, _: f.add("Log", f.add("Exp", v)),
}
OF_ROWS: dict[str, Inserted] = {
    "less the batch's mean": lambda f, v, _: f.add("Sub", v, f.axes("ReduceMean", v, [0], 18)),
    "the batch's largest": lambda f, v, _: f.add("Min", v, f.axes("ReduceMax", v, [0], 18)),
    "the batch's mean of little": lambda f, v, _: f.add(
        "Add", v, f.add("Mul", f.axes("ReduceMean", v, [0], 18), S(f.one([0.0, 1e-7, 1e-3])))
    ),
    "Softmax of the batch": lambda f, v, _: f.add("Softmax", v, axis=0),
    "rows summed up": lambda f, v, _: f.add("CumSum", v, np.int64(0)),
    "rows reversed": lambda f, v, _: _slice(f, v, -1, -1, 0),
    "row 0 for all": lambda f, v, _: f.add("Add", f.add("Mul", v, S(0)), f.add("Gather", v, np.array([0]), axis=0)),
    "another row added as 0": lambda f, v, _: f.add("Add", v, f.add("Mul", f.add("Gather", v, np.array([0])), S(0))),
    "rows sorted": lambda f, v, _: f.add("TopK", v, np.array([1]), axis=0, outputs=2)[0],
    "every other row": lambda f, v, _: _slice(f, v, 0, 2, 0),
    "rows twice": lambda f, v, _: f.add("Concat", v, v, axis=0),
    "some rows at least": lambda f, v, _: _slice(f, f.add("Concat", v, v, axis=0), 0, 2, 0),
}
OF_FEATURES: dict[str, Inserted] = {
    "reversed": lambda f, v, r: _slice(f, v, -1, -1, len(r)),
    "one for all": lambda f, v, r: f.add("Add", f.add("Mul", v, S(0)), f.add("Gather", v, np.array([0]), axis=len(r))),
    "permuted": lambda f, v, r: f.add("Gather", v, f.rng.permutation(r[-1]), axis=len(r)),
    "the mean": lambda f, v, r: f.add("Sub", v, f.axes("ReduceMean", v, [len(r)], 18)),
    "halves exchanged": lambda f, v, r: _split(f, v, r, True),
    "turned": lambda f, v, r: _turned(f, v, r, False),
    "repeated": lambda f, v, r: f.add("Tile", v, np.array([1] * len(r) + [2])),
    "one more": lambda f, v, r: f.add("Concat", v, f.add("Gather", v, np.array([0]), axis=len(r)), axis=len(r)),
    "padded": lambda f, v, r: f.add("Pad", v, np.array([0] * (1 + 2 * len(r)) + [1])),
    "normalised": lambda f, v, _: f.add("LpNormalization", v, axis=-1),
    "a norm over all": lambda f, v, r: f.add("LayerNormalization", v, np.ones(r[-1:], S), axis=-1),
    "sorted": lambda f, v, r: f.add("TopK", v, np.array([r[-1]]), axis=len(r), outputs=2)[0],
}


def _inserting(table: dict[str, Inserted], about: str) -> Callable[[File], None]:
    def fault(file: File) -> None:
        edge, row = file.rowed_edge()
        made = file.one(table.values())
        file.between(edge, lambda value: made(file, value, row))

    fault.__doc__ = about
    return fault


def dropout_in_training(file: File) -> None:
    """A Dropout with its training mode on, or with a ratio that is an input."""
    edge, _ = file.rowed_edge()
    file.between(edge, lambda value: _dropout(file, value, True))


def reordered_sum(file: File) -> None:
    """A chain of sums or products in another order, or a difference as the sum with the negative."""
    node = file.node("Add", "Mul", "Sub", "Div")
    file.before_node(node)
    first, second = node.input
    if node.op_type in ("Sub", "Div"):
        turned = file.add("Neg" if node.op_type == "Sub" else "Reciprocal", second)
        node.op_type = {"Sub": "Add", "Div": "Mul"}[node.op_type]
        node.input[:] = [first, turned]
        return
    inner = next((n for n in file.graph.node if n.output and n.output[0] in node.input), None)
    if inner is None or inner.op_type != node.op_type:
        raise NoPlace
    other = second if inner.output[0] == first else first
    node.input[:] = [inner.input[0], file.add(node.op_type, inner.input[1], other)]


INSERTED = {
    "inserted: nothing changes": _inserting(NEUTRAL, "Operators that give their input back."),
    "inserted: a few values change": _inserting(PARTLY, "Operators that change some numbers, or all by a little."),
    "inserted: rows are mixed": _inserting(OF_ROWS, "Operators whose rows depend on the other rows of a batch."),
    "inserted: features are mixed": _inserting(OF_FEATURES, "Operators that change the order or number of features."),
    "inserted: a Dropout in training": dropout_in_training,
    "a sum in another order": reordered_sum,
}
