"""Elementwise arithmetic: sums, products, powers and elementary functions."""

from __future__ import annotations

from functools import partial

from export.emitter import Emitter, Operator, chain, single
from export.graph import Node, width


def _log1p(emit: Emitter, node: Node) -> None:
    emit.last("Log", node, emit.step("Add", node, *node.inputs, emit.constant("one", 1.0)))


def _expm1(emit: Emitter, node: Node) -> None:
    emit.last("Sub", node, emit.step("Exp", node, *node.inputs), emit.constant("one", 1.0))


def _extremum(emit: Emitter, node: Node, op_type: str) -> None:
    if emit.opset < 8:
        emit.refuse(node, 8, f"{op_type} with broadcasting")
    emit.last(op_type, node, *emit.operands(node))


def _sign(emit: Emitter, node: Node) -> None:
    """Sign of NaN is 0 in PyTorch and NaN in ONNX Runtime."""
    (x,) = node.inputs
    zero = emit.constant("zero", 0.0)
    emit.last("Where", node, emit.step("IsNaN", node, x), zero, emit.step("Sign", node, x))


def _scaled_and_shifted(emit: Emitter, node: Node) -> None:
    """The sum offset + factor·x, which folding makes."""
    product = emit.step("Mul", node, *node.inputs, emit.tensor(node.tensors["tensor2"]))
    emit.last("Add", node, product, emit.tensor(node.tensors["self"]))


def _by_constant(node: Node) -> int:
    return width(node) if len(node.inputs) == 1 else 0


OPERATORS = {
    "add": Operator(single("Add"), overloads=()),
    "sub": Operator(single("Sub"), overloads=()),
    "mul": Operator(single("Mul"), overloads=(), multiply_adds=_by_constant),
    "div": Operator(single("Div"), overloads=(), multiply_adds=_by_constant),
    "addcmul": Operator(_scaled_and_shifted, overloads=(), multiply_adds=width),
    "pow": Operator(single("Pow"), overloads=("Tensor_Tensor", "Tensor_Scalar", "Scalar")),
    **{
        name: Operator(single(op_type))
        for name, op_type in (
            *(("neg", "Neg"), ("abs", "Abs"), ("exp", "Exp"), ("log", "Log"), ("sqrt", "Sqrt"), ("sin", "Sin")),
            *(("cos", "Cos"), ("erf", "Erf"), ("floor", "Floor"), ("ceil", "Ceil"), ("round", "Round")),
            *(("reciprocal", "Reciprocal"), ("atan", "Atan"), ("asinh", "Asinh")),
        )
    },
    "maximum": Operator(partial(_extremum, op_type="Max")),
    "minimum": Operator(partial(_extremum, op_type="Min")),
    "rsqrt": Operator(chain("Sqrt", "Reciprocal")),
    "log1p": Operator(_log1p),
    "expm1": Operator(_expm1),
    "sign": Operator(_sign),
}
