"""Reductions over dimensions: sums, means, extrema, norms, and cumulative sums."""

from __future__ import annotations

from functools import partial
from math import nan

from export.emitter import Emitter, Operator
from export.graph import Node


def reduced(emit: Emitter, node: Node, op_type: str, x: str, *, last: bool = False, keep: bool | None = None) -> str:
    """A reduction over the node's dimensions."""
    dims = node.attributes["dim"]
    axes = [dims] if isinstance(dims, int) else list(dims)
    kept = int(node.attributes["keepdim"] if keep is None else keep)
    return emit.reduction(op_type, node, x, axes, last=last, keepdims=kept)


def _reduction(emit: Emitter, node: Node, op_type: str) -> None:
    reduced(emit, node, op_type, node.inputs[0], last=True)


def _nans(emit: Emitter, node: Node) -> tuple[str, str]:
    """Where the node's input is NaN, as 0 and 1, and whether any value along the dimensions is."""
    is_nan = emit.step("Cast", node, emit.step("IsNaN", node, *node.inputs), to=1)
    return is_nan, emit.step("Cast", node, reduced(emit, node, "ReduceMax", is_nan), to=9)


def _extremum(emit: Emitter, node: Node, op_type: str) -> None:
    """The operators amax and amin. ONNX Runtime's ReduceMax may skip NaN, PyTorch's gives NaN where there is one."""
    (x,) = node.inputs
    if emit.dtype(x) != "float32":
        reduced(emit, node, op_type, x, last=True)
        return
    _, any_nan = _nans(emit, node)
    extremum = reduced(emit, node, op_type, x)
    emit.last("Where", node, any_nan, emit.constant("nan", nan), extremum)


def _norm(emit: Emitter, node: Node) -> None:
    _reduction(emit, node, {1: "ReduceL1", 2: "ReduceL2"}[node.attributes["ord"]])


def _refuse_norm(node: Node) -> str | None:
    order = node.attributes["ord"]
    return None if order in (1, 2) else f"a norm of order {order:g} is not one of 1 and 2"


def _variance(emit: Emitter, node: Node) -> None:
    """The sum of the squared distances from the mean, over n minus the correction."""
    (x,) = node.inputs
    deviation = emit.step("Sub", node, x, reduced(emit, node, "ReduceMean", x, keep=True))
    total = reduced(emit, node, "ReduceSum", emit.step("Mul", node, deviation, deviation))
    correction = node.attributes["correction"]
    degrees = max(0.0, node.attributes["count"] - (1.0 if correction is None else correction))
    emit.last("Div", node, total, emit.constant(f"{node.home}.count", degrees))


def _arg_extremum(emit: Emitter, node: Node, op_type: str) -> None:
    """The operators argmax and argmin: the first NaN, where there is one, as in PyTorch; ONNX Runtime skips NaN."""
    (x,) = node.inputs
    attributes = {"axis": node.attributes["dim"], "keepdims": int(node.attributes["keepdim"])}
    if emit.dtype(x) != "float32":
        emit.last(op_type, node, x, **attributes)
        return
    is_nan, any_nan = _nans(emit, node)
    first_nan, index = emit.step("ArgMax", node, is_nan, **attributes), emit.step(op_type, node, x, **attributes)
    emit.last("Where", node, any_nan, first_nan, index)


def _truth(emit: Emitter, node: Node, op_type: str) -> None:
    """The operators any and all: the largest or the smallest of 0 and 1."""
    numbers = emit.step("Cast", node, *node.inputs, to=1)
    emit.last("Cast", node, reduced(emit, node, op_type, numbers), to=9)


def _cumsum(emit: Emitter, node: Node) -> None:
    axis = emit.integers(f"{node.home}.axis", node.attributes["dim"])
    emit.last("CumSum", node, *node.inputs, axis)


def _refuse_dimensionless(node: Node) -> str | None:
    return "it runs over all dimensions, the batch too" if node.attributes["dim"] is None else None


OPERATORS = {
    "sum": Operator(partial(_reduction, op_type="ReduceSum"), overloads=()),
    "mean": Operator(partial(_reduction, op_type="ReduceMean"), overloads=()),
    "amax": Operator(partial(_extremum, op_type="ReduceMax"), overloads=()),
    "amin": Operator(partial(_extremum, op_type="ReduceMin"), overloads=()),
    "linalg_vector_norm": Operator(_norm, overloads=(), refuse=_refuse_norm),
    "var": Operator(_variance, overloads=()),
    "argmax": Operator(partial(_arg_extremum, op_type="ArgMax"), overloads=(), refuse=_refuse_dimensionless),
    "argmin": Operator(partial(_arg_extremum, op_type="ArgMin"), overloads=(), refuse=_refuse_dimensionless),
    "any": Operator(partial(_truth, op_type="ReduceMax"), overloads=()),
    "all": Operator(partial(_truth, op_type="ReduceMin"), overloads=()),
    "cumsum": Operator(_cumsum, overloads=()),
}
