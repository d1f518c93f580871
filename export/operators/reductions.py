"""Sums, means, extremes and norms over dimensions."""

from __future__ import annotations

from math import nan

from export.emitter import Emitter, Lower, Operator
from export.graph import Node


def reduced(emit: Emitter, node: Node, op_type: str, x: str, *, last: bool = False, keep: bool | None = None) -> str:
    """A reduction over the node's dimensions."""
    dims = node.attributes["dim"]
    axes = [dims] if isinstance(dims, int) else list(dims)
    kept = int(node.attributes["keepdim"] if keep is None else keep)
    return emit.reduction(op_type, node, x, axes, last=last, keepdims=kept)


def _reduction(op_type: str) -> Lower:
    return lambda emit, node: reduced(emit, node, op_type, node.inputs[0], last=True)


def _missing(emit: Emitter, node: Node) -> tuple[str, str]:
    """Where the node's input is NaN, as 0 and 1, and whether it is anywhere along the dimensions."""
    missing = emit.step("Cast", node, emit.step("IsNaN", node, *node.inputs), to=1)
    return missing, emit.step("Cast", node, reduced(emit, node, "ReduceMax", missing), to=9)


def _extreme(op_type: str) -> Lower:
    """ONNX Runtime's ReduceMax may pass over NaN, and PyTorch's never does: where there is any, NaN is chosen."""

    def lower(emit: Emitter, node: Node) -> None:
        (x,) = node.inputs
        if emit.dtype(x) != "float32":
            reduced(emit, node, op_type, x, last=True)
            return
        _, anywhere = _missing(emit, node)
        extreme = reduced(emit, node, op_type, x)
        emit.last("Where", node, anywhere, emit.constant("nan", nan), extreme)

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
    off = emit.step("Sub", node, x, reduced(emit, node, "ReduceMean", x, keep=True))
    total = reduced(emit, node, "ReduceSum", emit.step("Mul", node, off, off))
    correction = node.attributes["correction"]
    degrees = max(0.0, node.attributes["count"] - (1.0 if correction is None else correction))
    emit.last("Div", node, total, emit.constant(f"{node.home}.count", degrees))


def _index_of(op_type: str) -> Lower:
    """ONNX Runtime passes over NaN, and PyTorch stops at the first: where there is any, its place is chosen."""

    def lower(emit: Emitter, node: Node) -> None:
        (x,) = node.inputs
        given = {"axis": node.attributes["dim"], "keepdims": int(node.attributes["keepdim"])}
        if emit.dtype(x) != "float32":
            emit.last(op_type, node, x, **given)
            return
        missing, anywhere = _missing(emit, node)
        first, place = emit.step("ArgMax", node, missing, **given), emit.step(op_type, node, x, **given)
        emit.last("Where", node, anywhere, first, place)

    return lower


def _truth(op_type: str) -> Lower:
    """any and all: the largest or the smallest of 0 and 1."""

    def lower(emit: Emitter, node: Node) -> None:
        numbers = emit.step("Cast", node, *node.inputs, to=1)
        emit.last("Cast", node, reduced(emit, node, op_type, numbers), to=9)

    return lower


def _cumsum(emit: Emitter, node: Node) -> None:
    axis = emit.integers(f"{node.home}.axis", node.attributes["dim"])
    emit.last("CumSum", node, *node.inputs, axis)


def _refuse_dimensionless(node: Node) -> str | None:
    return "it runs over all dimensions, the batch too" if node.attributes["dim"] is None else None


OPERATORS = {
    "sum": Operator(_reduction("ReduceSum"), overloads=()),
    "mean": Operator(_reduction("ReduceMean"), overloads=()),
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
