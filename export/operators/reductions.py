"""Sums, means, extremes and norms over dimensions."""

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


def _missing(emit: Emitter, node: Node) -> tuple[str, str]:
    """Where the node's input is NaN, as 0 and 1, and whether it is anywhere along the dimensions."""
    missing = emit.step("Cast", node, emit.step("IsNaN", node, *node.inputs), to=1)
    return missing, emit.step("Cast", node, reduced(emit, node, "ReduceMax", missing), to=9)


def _extreme(emit: Emitter, node: Node, op_type: str) -> None:
    """ONNX Runtime's ReduceMax may pass over NaN, and PyTorch's never does: where there is any, NaN is chosen."""
    (x,) = node.inputs
    if emit.dtype(x) != "float32":
        reduced(emit, node, op_type, x, last=True)
        return
    _, anywhere = _missing(emit, node)
    extreme = reduced(emit, node, op_type, x)
    emit.last("Where", node, anywhere, emit.constant("nan", nan), extreme)


def _norm(emit: Emitter, node: Node) -> None:
    _reduction(emit, node, {1: "ReduceL1", 2: "ReduceL2"}[node.attributes["ord"]])


def _refuse_norm(node: Node) -> str | None:
    order = node.attributes["ord"]
    return None if order in (1, 2) else f"a norm of order {order:g} is not one of 1 and 2"


def _variance(emit: Emitter, node: Node) -> None:
    """The sum of the squared distances from the mean, over n minus the correction."""
    (x,) = node.inputs
    off = emit.step("Sub", node, x, reduced(emit, node, "ReduceMean", x, keep=True))
    total = reduced(emit, node, "ReduceSum", emit.step("Mul", node, off, off))
    correction = node.attributes["correction"]
    degrees = max(0.0, node.attributes["count"] - (1.0 if correction is None else correction))
    emit.last("Div", node, total, emit.constant(f"{node.home}.count", degrees))


def _index_of(emit: Emitter, node: Node, op_type: str) -> None:
    """ONNX Runtime passes over NaN, and PyTorch stops at the first: where there is any, its place is chosen."""
    (x,) = node.inputs
    given = {"axis": node.attributes["dim"], "keepdims": int(node.attributes["keepdim"])}
    if emit.dtype(x) != "float32":
        emit.last(op_type, node, x, **given)
        return
    missing, anywhere = _missing(emit, node)
    first, place = emit.step("ArgMax", node, missing, **given), emit.step(op_type, node, x, **given)
    emit.last("Where", node, anywhere, first, place)


def _truth(emit: Emitter, node: Node, op_type: str) -> None:
    """any and all: the largest or the smallest of 0 and 1."""
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
    "amax": Operator(partial(_extreme, op_type="ReduceMax"), overloads=()),
    "amin": Operator(partial(_extreme, op_type="ReduceMin"), overloads=()),
    "linalg_vector_norm": Operator(_norm, overloads=(), refuse=_refuse_norm),
    "var": Operator(_variance, overloads=()),
    "argmax": Operator(partial(_index_of, op_type="ArgMax"), overloads=(), refuse=_refuse_dimensionless),
    "argmin": Operator(partial(_index_of, op_type="ArgMin"), overloads=(), refuse=_refuse_dimensionless),
    "any": Operator(partial(_truth, op_type="ReduceMax"), overloads=()),
    "all": Operator(partial(_truth, op_type="ReduceMin"), overloads=()),
    "cumsum": Operator(_cumsum, overloads=()),
}
