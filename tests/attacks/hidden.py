"""Files that are wrong where a value is not 0, which it is on every row that is tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from tests.support.onnx_drafts import Draft

from .constants import Bump, bump
from .making import F, Maker, ints, written

_HIDDEN = 50.0
"""The square of the distance from 777.71 from which the value is 0."""


class Hidden(nn.Module):
    """A function of a value that is 0 but near 777.71, and the distances from the mean row, so that rows depend."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        off = x - 777.71
        square = off * off
        peak = torch.where(square < _HIDDEN, torch.exp(-square), 0.0)  # of NaN too
        return self.function(peak, x) + (x - x.mean(0, keepdim=True))


def _peak(d: Draft) -> str:
    off = d("Sub", "x", F(777.71))
    square = d("Mul", off, off)
    return d("Where", d("Less", square, F(_HIDDEN)), d("Exp", d("Neg", square)), F(0))


def _with_mean(d: Draft, value: str, folder: Path) -> Path:
    centred = d("Sub", "x", d("ReduceMean", "x", axes=[0]))
    return written(d, d("Add", d("Reshape", value, ints(-1, 4)), centred), folder)


def _draft(rows: int | str = "batch") -> Draft:
    return Draft(17, (rows, 4))


def sums_over_parts(shape: tuple[int, ...], axis: int) -> Maker:
    """CumSum over parts of a row, or along the batch."""

    def make(folder: Path) -> tuple[nn.Module, Path]:
        d = _draft()
        value = d("CumSum", d("Reshape", _peak(d), ints(*shape)), np.array(axis))
        return Hidden(lambda peak, _: torch.cumsum(peak, 1)), _with_mean(d, value, folder)

    make.__doc__ = sums_over_parts.__doc__
    return make


def exponent_as_an_integer(folder: Path) -> tuple[nn.Module, Path]:
    """The exponent 2.5 as an integer, 2."""
    d = _draft()
    return Hidden(lambda peak, _: peak**2.5), _with_mean(d, d("Pow", _peak(d), np.array(2)), folder)


def columns_for_rows(folder: Path) -> tuple[nn.Module, Path]:
    """A factor for each feature that meets (4, batch), so that each multiplies other elements."""
    d, factors = _draft(), np.array([1, 2, 3, 4], F)

    class Scaled(Hidden):
        def __init__(self) -> None:
            super().__init__(lambda peak, _: peak * self.factors)
            self.factors = nn.Buffer(torch.from_numpy(factors))

    value = d("Mul", d("Reshape", _peak(d), ints(4, -1)), factors.reshape(4, 1))
    return Scaled(), _with_mean(d, value, folder)


def gates_for_other_rows(folder: Path) -> tuple[nn.Module, Path]:
    """A factor for each row that meets (4, batch), so that each multiplies other rows."""
    d = _draft()
    gate = d("Sigmoid", d("ReduceSum", "x", ints(1)))
    value = d("Mul", d("Reshape", _peak(d), ints(4, -1)), d("Reshape", gate, ints(1, -1)))
    return Hidden(lambda peak, x: peak * torch.sigmoid(x.sum(1, keepdim=True))), _with_mean(d, value, folder)


def mean_of_other_rows(folder: Path) -> tuple[nn.Module, Path]:
    """A LayerNorm by its formula, whose means meet (4, batch)."""
    d, eps = _draft(), F(1e-5)
    peak = _peak(d)
    mean = d("Reshape", d("ReduceMean", peak, axes=[-1]), ints(1, -1))
    off = d("Reshape", d("Sub", d("Reshape", peak, ints(4, -1)), mean), ints(-1, 4))
    variance = d("ReduceMean", d("Mul", off, off), axes=[-1])
    value = d("Div", off, d("Sqrt", d("Add", variance, eps)))
    return Hidden(lambda peak, _: nn.functional.layer_norm(peak, (4,))), _with_mean(d, value, folder)


def mean_of_columns(folder: Path) -> tuple[nn.Module, Path]:
    """The same for a batch of exactly 4 rows, by a mean without its dimension."""
    d, eps = _draft(4), F(1e-5)
    peak = _peak(d)
    off = d("Sub", peak, d("ReduceMean", peak, axes=[-1], keepdims=0))
    variance = d("ReduceMean", d("Mul", off, off), axes=[-1])
    value = d("Div", off, d("Sqrt", d("Add", variance, eps)))
    return Hidden(lambda peak, _: nn.functional.layer_norm(peak, (4,))), _with_mean(d, value, folder)


def products_of_single_values(folder: Path) -> tuple[nn.Module, Path]:
    """A product of two matrices of (2, 2) as products of single values."""
    d = _draft()
    single = [d("Reshape", value, ints(-1, 1, 1)) for value in (_peak(d), d("Tanh", "x"))]

    def function(peak: Tensor, x: Tensor) -> Tensor:
        return (peak.reshape(-1, 2, 2) @ torch.tanh(x).reshape(-1, 2, 2)).reshape(-1, 4)

    return Hidden(function), _with_mean(d, d("MatMul", *single), folder)


def product_from_the_left(folder: Path) -> tuple[nn.Module, Path]:
    """A layer as a product from the left, on (4, batch)."""
    d = _draft()

    class Layer(Hidden):
        def __init__(self) -> None:
            super().__init__(lambda peak, _: self.layer(peak))
            self.layer = nn.Linear(4, 4, bias=False)

    module = Layer()
    weight = module.layer.weight.detach().numpy()
    return module, _with_mean(d, d("MatMul", weight, d("Reshape", _peak(d), ints(4, -1))), folder)


def attribute_twice(folder: Path) -> tuple[nn.Module, Path]:
    """A Clip with two upper bounds: 7.5 and 6.5."""
    d = Draft(10)
    d.nodes.append(helper.make_node("Clip", [bump(d, 8)], ["clipped"], min=0.0, max=7.5))
    d.nodes[-1].attribute.append(helper.make_attribute("max", 6.5))
    return Bump(8, 0.0, 6.5), written(d, "clipped", folder)


def two_opsets(folder: Path) -> tuple[nn.Module, Path]:
    """Two versions of ONNX's operators, under its two names."""
    d = Draft(13)
    model = d.model(d("Softmax", d("Reshape", "x", ints(-1, 2, 3)), axis=1))
    model.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    path = folder / "attack.onnx"
    path.write_bytes(model.SerializeToString())

    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x.reshape(-1, 2, 3), 1)

    return Inner(), path


def output_twice(folder: Path) -> tuple[nn.Module, Path]:
    """Two values of one name, one of them in the body of a branch that reads the other."""
    d = Draft()
    inner = helper.make_graph(
        [helper.make_node("Identity", ["bound"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [])],
        [helper.make_tensor("bound", onnx.TensorProto.FLOAT, [], [7.5])],
    )
    always = d.constant(np.array(True))
    d.initializers.append(helper.make_tensor("bound", onnx.TensorProto.FLOAT, [], [6.5]))
    d.nodes.append(helper.make_node("If", [always], ["high"], then_branch=inner, else_branch=inner))
    return Bump(8, 0.0, 6.5), written(d, d("Clip", bump(d, 8), F(0), "high"), folder)


HIDDEN: dict[str, Maker] = {
    "sums over halves": sums_over_parts((-1, 2), -1),
    "sums over halves, a dimension more": sums_over_parts((-1, 2, 2), -1),
    "sums along the batch": sums_over_parts((1, -1), -1),
    "sums of single values": sums_over_parts((-1, 1), -1),
    "sums of rows of 1": sums_over_parts((0, 1, 4), 1),
    "an exponent as an integer": exponent_as_an_integer,
    "columns for rows": columns_for_rows,
    "gates for other rows": gates_for_other_rows,
    "a mean of other rows": mean_of_other_rows,
    "a mean of columns": mean_of_columns,
    "products of single values": products_of_single_values,
    "a product from the left": product_from_the_left,
    "an attribute twice": attribute_twice,
    "two opsets": two_opsets,
    "one name for two values": output_twice,
}
