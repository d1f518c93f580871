"""Sums, means, extremes and norms over dimensions."""

from __future__ import annotations

from export.emitter import Emitter
from export.graph import Node

from .table import Lower, Operator


def reduced(emit: Emitter, node: Node, op_type: str, x: str, *, last: bool, keep: bool | None = None) -> str:
    """A reduction over the node's dimensions; the axes are an attribute, or in newer opsets an input."""
    dims = node.attributes["dim"]
    axes = [dims] if isinstance(dims, int) else list(dims)
    kept = int(node.attributes["keepdim"] if keep is None else keep)
    since = 13 if op_type == "ReduceSum" else 18
    emitted = emit.last if last else emit.step
    if emit.opset >= since:
        return emitted(op_type, node, x, emit.integers(f"{node.home}.axes", axes), keepdims=kept)
    return emitted(op_type, node, x, axes=axes, keepdims=kept)


def reduction(op_type: str) -> Lower:
    return lambda emit, node: reduced(emit, node, op_type, node.inputs[0], last=True)


def _extreme(op_type: str) -> Lower:
    """ONNX Runtime's ReduceMax may pass over NaN, and PyTorch's never does: where there is any, NaN is chosen."""

    def lower(emit: Emitter, node: Node) -> None:
        (x,) = node.inputs
        if emit.dtype(x) != "float32":
            reduced(emit, node, op_type, x, last=True)
            return
        missing = emit.step("Cast", node, emit.step("IsNaN", node, x), to=1)
        anywhere = emit.step("Cast", node, reduced(emit, node, "ReduceMax", missing, last=False), to=9)
        found = reduced(emit, node, op_type, x, last=False)
        emit.last("Where", node, anywhere, emit.constant("nan", float("nan")), found)

    return lower


def _norm(emit: Emitter, node: Node) -> None:
    name = {1: "ReduceL1", 2: "ReduceL2"}[node.attributes["ord"]]
    reduced(emit, node, name, node.inputs[0], last=True)


def _refuse_norm(node: Node) -> str | None:
    order = node.attributes["ord"]
    return None if order in (1, 2) else f"a norm of order {order:g} is not one of 1 and 2"


def _variance(emit: Emitter, node: Node) -> None:
    """The sum of the squared distances from the mean, over n minus the correction."""
    (x,) = node.inputs
    mean = reduced(emit, node, "ReduceMean", x, last=False, keep=True)
    off = emit.step("Sub", node, x, mean)
    total = reduced(emit, node, "ReduceSum", emit.step("Mul", node, off, off), last=False)
    emit.last("Div", node, total, emit.constant(f"{node.home}.count", degrees(node)))


def degrees(node: Node) -> float:
    """What a variance is divided by: the count less the correction."""
    correction = node.attributes["correction"]
    return max(0.0, node.attributes["count"] - (1.0 if correction is None else correction))


def _index_of(op_type: str) -> Lower:
    """ONNX Runtime passes over NaN, and PyTorch stops at the first: where there is any, its place is chosen."""

    def lower(emit: Emitter, node: Node) -> None:
        (x,) = node.inputs
        given = {"axis": node.attributes["dim"], "keepdims": int(node.attributes["keepdim"])}
        if emit.dtype(x) != "float32":
            emit.last(op_type, node, x, **given)
            return
        missing = emit.step("Cast", node, emit.step("IsNaN", node, x), to=1)
        anywhere = emit.step("Cast", node, reduced(emit, node, "ReduceMax", missing, last=False), to=9)
        first, found = emit.step("ArgMax", node, missing, **given), emit.step(op_type, node, x, **given)
        emit.last("Where", node, anywhere, first, found)

    return lower


def _truth(op_type: str) -> Lower:
    """any and all: the largest or the smallest of 0 and 1."""

    def lower(emit: Emitter, node: Node) -> None:
        numbers = emit.step("Cast", node, *node.inputs, to=1)
        emit.last("Cast", node, reduced(emit, node, op_type, numbers, last=False), to=9)

    return lower


def _cumsum(emit: Emitter, node: Node) -> None:
    axis = emit.integers(f"{node.home}.axis", node.attributes["dim"])
    emit.last("CumSum", node, *node.inputs, axis)


def _refuse_dimensionless(node: Node) -> str | None:
    return "it runs over all dimensions, the batch too" if node.attributes["dim"] is None else None


OPERATORS = {
    "sum": Operator(reduction("ReduceSum"), overloads=()),
    "mean": Operator(reduction("ReduceMean"), overloads=()),
    "amax": Operator(_extreme("ReduceMax"), overloads=()),
    "amin": Operator(_extreme("ReduceMin"), overloads=()),
    "linalg_vector_norm": Operator(_norm, overloads=(), refuse=_refuse_norm),
    "var": Operator(_variance, overloads=()),
    "argmax": Operator(_index_of("ArgMax"), overloads=(), refuse=_refuse_dimensionless),
    "argmin": Operator(_index_of("ArgMin"), overloads=(), refuse=_refuse_dimensionless),
    "any": Operator(_truth("ReduceMax"), overloads=()),
    "all": Operator(_truth("ReduceMin"), overloads=()),
    "cumsum": Operator(_cumsum, overloads=()),
}
