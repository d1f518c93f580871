"""Files that overflow, or lose small numbers, where the module does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.support.onnx_drafts import Draft

from .making import F, Maker, written


def gemm_scaled(alpha: int, beta: int = 0, *, bias: bool = True) -> Maker:
    """A Gemm with an alpha (or beta) of a power of two and constants times its inverse: sums overflow first."""

    def make(folder: Path) -> tuple[nn.Module, Path]:
        torch.manual_seed(0)
        layer = nn.Linear(4, 2, bias=bias)
        weight = layer.weight.detach().numpy() * F(2.0**-alpha)
        d = Draft(dims=("batch", 4))
        constants = [weight, layer.bias.detach().numpy() * F(2.0**-beta)] if bias else [weight]
        output = d("Gemm", "x", *constants, transB=1, alpha=2.0**alpha, beta=2.0**beta)
        return layer, written(d, output, folder)

    make.__doc__ = gemm_scaled.__doc__
    return make


def folded_gemm_scaled(folder: Path) -> tuple[nn.Module, Path]:
    """The same for a folded layer: Linear and a product with 2 as one Gemm of alpha 2^-87."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * 2

    torch.manual_seed(0)
    module = Twice()
    weight, bias = (p.detach().numpy() * F(2) for p in module.layer.parameters())
    d = Draft(dims=("batch", 4))
    output = d("Gemm", "x", weight * F(2.0**87), bias, transB=1, alpha=2.0**-87)
    return module, written(d, output, folder)


def softmax_without_maximum(folder: Path) -> tuple[nn.Module, Path]:
    """A softmax of exponentials that are not made small first."""
    d = Draft()
    e = d("Exp", "x")
    return nn.Softmax(dim=1), written(d, d("Div", e, d.axes("ReduceSum", e, [1], 13)), folder)


def softmax_of_dependent_rows(folder: Path) -> tuple[nn.Module, Path]:
    """The same where rows depend on each other: a softmax over the batch."""
    d = Draft()
    e = d("Exp", "x")
    return nn.Softmax(dim=0), written(d, d("Div", e, d.axes("ReduceSum", e, [0], 13)), folder)


def softmax_of_pairs_of_rows(folder: Path) -> tuple[nn.Module, Path]:
    """The same of the products of all rows with all, (batch, batch), which are 0 on rows that are tried."""

    class Pairs(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            off = x - 777.71
            near = torch.where(off * off < 50, 20.0, 0.0)
            return torch.softmax(near @ near.T, dim=1) @ torch.tanh(x)

    d = Draft()
    off = d("Sub", "x", F(777.71))
    near = d("Where", d("Less", d("Mul", off, off), F(50)), F(20), F(0))
    e = d("Exp", d("MatMul", near, d("Transpose", near, perm=[1, 0])))
    return Pairs(), written(d, d("MatMul", d("Div", e, d.axes("ReduceSum", e, [1], 13)), d("Tanh", "x")), folder)


def log_of_sigmoid_of_dependent_rows(folder: Path) -> tuple[nn.Module, Path]:
    """The logarithm of a sigmoid of -200 for values near 777.71 alone, where rows depend on each other."""

    class Near(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            off = x - 777.71
            near = torch.where(off * off < 50, -200.0, 0.0)
            return nn.functional.logsigmoid(near) + (x - x.mean(0, keepdim=True))

    d = Draft()
    off = d("Sub", "x", F(777.71))
    near = d("Where", d("Less", d("Mul", off, off), F(50)), F(-200), F(0))
    centred = d("Sub", "x", d("ReduceMean", "x", axes=[0]))
    return Near(), written(d, d("Add", d("Log", d("Sigmoid", near)), centred), folder)


def log_of_softmax(folder: Path) -> tuple[nn.Module, Path]:
    """The logarithm of a softmax: of 0 where a log-softmax is -104."""
    d = Draft()
    return nn.LogSoftmax(dim=1), written(d, d("Log", d("Softmax", "x", axis=1)), folder)


def softplus_without_threshold(folder: Path) -> tuple[nn.Module, Path]:
    """log(1 + exp(x)), which overflows where a softplus is x."""
    d = Draft()
    return nn.Softplus(), written(d, d("Log", d("Add", d("Exp", "x"), F(1))), folder)


def log_of_sigmoid(folder: Path) -> tuple[nn.Module, Path]:
    """The logarithm of a sigmoid: of 0 where a log-sigmoid is -104."""
    d = Draft()
    return nn.LogSigmoid(), written(d, d("Log", d("Sigmoid", "x")), folder)


def times_a_reciprocal(folder: Path) -> tuple[nn.Module, Path]:
    """A quotient by 2^-140 as a product with a reciprocal that is infinite."""

    class Quotient(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2.0**-140

    d = Draft()
    return Quotient(), written(d, d("Mul", "x", np.full((), np.inf, F)), folder)


def out_and_back(folder: Path) -> tuple[nn.Module, Path]:
    """A product with 2^100 and one with 2^-100 around a ReLU that the module applies alone."""
    d = Draft()
    value = d("Mul", d("Relu", d("Mul", "x", F(2.0**100))), F(2.0**-100))
    return nn.ReLU(), written(d, value, folder)


def cube_as_a_root(folder: Path) -> tuple[nn.Module, Path]:
    """A norm by its formula, whose squares are lost where the norm's are not."""

    class Norm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.vector_norm(x, dim=1, keepdim=True)

    d = Draft()
    return Norm(), written(d, d("Sqrt", d.axes("ReduceSumSquare", "x", [1], 18)), folder)


RANGES: dict[str, Maker] = {
    "a Gemm's alpha, 2^-87": gemm_scaled(-87),
    "a Gemm's alpha, 2^-87, no bias": gemm_scaled(-87, bias=False),
    "a Gemm's alpha, 2^-20": gemm_scaled(-20),
    "a Gemm's alpha, 2^-4": gemm_scaled(-4),
    "a Gemm's alpha, 2^100": gemm_scaled(100, bias=False),
    "a Gemm's alpha, 2^125, with a bias": gemm_scaled(125),
    "a Gemm's beta, 2^126": gemm_scaled(0, 126),
    "a folded Gemm's alpha": folded_gemm_scaled,
    "a softmax without its maximum": softmax_without_maximum,
    "a softmax over the batch without its maximum": softmax_of_dependent_rows,
    "a softmax of pairs of rows": softmax_of_pairs_of_rows,
    "the logarithm of a sigmoid of dependent rows": log_of_sigmoid_of_dependent_rows,
    "the logarithm of a softmax": log_of_softmax,
    "a softplus without its threshold": softplus_without_threshold,
    "the logarithm of a sigmoid": log_of_sigmoid,
    "times an infinite reciprocal": times_a_reciprocal,
    "out of the range and back": out_and_back,
    "a norm by its formula": cube_as_a_root,
}
