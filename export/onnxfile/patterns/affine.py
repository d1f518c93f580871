"""Products with matrices."""

from __future__ import annotations

from collections.abc import Callable

from export.graph import Node

from .language import Input, Op, Pattern, Tensor, Value, X, free, one, op, option, patterns


def _gemm(*inputs: Input, **attributes: Value) -> Op:
    """A Gemm whose alpha and beta are part of its constants."""
    return free(op("Gemm", *inputs, **attributes), "alpha", "beta")


def _linear(node: Node) -> list[Pattern]:
    weight, turned = Tensor("weight", times="alpha"), Tensor("weight", transposed=True, times="alpha")
    bias = Tensor("bias", times="beta")
    products = [op("MatMul", X, Tensor("weight", transposed=True)), op("MatMul", Tensor("weight"), X)]
    if "bias" in node.tensors:
        added = [op("Add", product, Tensor("bias")) for product in products]
        added += [op("Sub", product, Tensor("bias", negated=True)) for product in products]
        products = added
    return patterns(_gemm(X, weight, bias, transB=1), _gemm(X, turned, bias), *products)


def _scaled_linear(node: Node) -> list[Pattern]:
    """A linear and a scale by one number, as a Gemm with that alpha; see ``export.proof.structure``."""
    alpha = {"alpha": option("alpha")}
    bias = (Tensor("bias", times="beta"),) if "bias" in node.tensors else ()
    products = [op("Gemm", X, Tensor("weight"), *bias, transB=1, **alpha)]
    products.append(op("Gemm", X, Tensor("weight", transposed=True), *bias, **alpha))
    return patterns(*(free(product, "beta") for product in products))


def _batch_norm(node: Node) -> list[Pattern]:
    tensors = Tensor("weight", default=1.0), Tensor("bias", default=0.0), Tensor("running_mean"), Tensor("running_var")
    return patterns(op("BatchNormalization", X, *tensors, epsilon=option("eps")))


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    "linear": _linear,
    "scaled linear": _scaled_linear,
    "matmul": one("MatMul"),
    "batch_norm": _batch_norm,
}
