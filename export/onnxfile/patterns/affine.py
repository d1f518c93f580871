"""Products with matrices, and BatchNorm with running statistics."""

from __future__ import annotations

from collections.abc import Callable

from export.graph import Node

from .language import Input, NodeTensor, Op, Pattern, Value, X, free, is_filled_with, op, option, patterns, single


def _gemm(*inputs: Input, **attributes: Value) -> Op:
    """A Gemm whose alpha and beta are part of its constants."""
    return free(op("Gemm", *inputs, **attributes), "alpha", "beta")


def _linear(node: Node) -> list[Pattern]:
    weight, transposed = NodeTensor("weight", times="alpha"), NodeTensor("weight", transposed=True, times="alpha")
    bias = NodeTensor("bias", times="beta")
    products = [op("MatMul", X, NodeTensor("weight", transposed=True)), op("MatMul", NodeTensor("weight"), X)]
    if "bias" in node.tensors:
        sums = [op("Add", product, NodeTensor("bias")) for product in products]
        sums += [op("Sub", product, NodeTensor("bias", negated=True)) for product in products]
        products = [*sums, *(products if is_filled_with(node, "bias", 0) else [])]
    return patterns(_gemm(X, weight, bias, transB=1), _gemm(X, transposed, bias), *products)


def _scaled_linear(node: Node) -> list[Pattern]:
    """A linear times one number, as a Gemm with that alpha; see ``export.proof.structure``."""
    alpha = {"alpha": option("alpha")}
    bias = (NodeTensor("bias", times="beta"),) if "bias" in node.tensors else ()
    products = [op("Gemm", X, NodeTensor("weight"), *bias, transB=1, **alpha)]
    products.append(op("Gemm", X, NodeTensor("weight", transposed=True), *bias, **alpha))
    return patterns(*(free(product, "beta") for product in products))


def _batch_norm(_node: Node) -> list[Pattern]:
    scale, shift = NodeTensor("weight", default=1.0), NodeTensor("bias", default=0.0)
    statistics = NodeTensor("running_mean"), NodeTensor("running_var")
    return patterns(op("BatchNormalization", X, scale, shift, *statistics, epsilon=option("eps")))


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    "linear": _linear,
    "scaled linear": _scaled_linear,
    "matmul": single("MatMul"),
    "batch_norm": _batch_norm,
}
