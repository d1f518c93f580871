"""Files that look as odd as those of ``files.py`` and compute the module: each is proved.

By name; the docstring of each maker says what it has.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from export import export
from tests.support.onnx_drafts import Draft

from .constants import root_off_by
from .making import F, Maker, ints, written
from .ranges import gemm_scaled


def tiny_variance(folder: Path) -> tuple[nn.Module, Path]:
    """The file that mlpx writes of a Linear and a BatchNorm whose variances are far below its eps, 1e-3."""
    torch.manual_seed(1)
    norm = nn.BatchNorm1d(256, eps=1e-3)
    norm.running_var = 1e-12 * (1 + 0.1 * torch.rand(256))
    norm.running_mean = torch.randn(256)
    norm.weight.data, norm.bias.data = torch.randn(256), torch.randn(256)
    module = nn.Sequential(nn.Linear(2, 256), norm).eval()
    return module, export(module, folder / "right.onnx").path


def _normalised(d: Draft, x: str, *, centred: bool = True) -> str:
    off = d("Sub", x, d.axes("ReduceMean", x, [-1], 18)) if centred else x
    variance = d.axes("ReduceMean", d("Mul", off, off), [-1], 18)
    return d("Div", off, d("Sqrt", d("Add", variance, F(1e-5))))


def layer_norm_without_ones(folder: Path) -> tuple[nn.Module, Path]:
    """LayerNorm by its formula, without its weight of ones and its bias of zeros, as simplifiers leave it."""
    d = Draft()
    return nn.LayerNorm(6), written(d, _normalised(d, "x"), folder)


def layer_norm_without_zeros(folder: Path) -> tuple[nn.Module, Path]:
    """LayerNormalization without its bias of zeros."""
    d = Draft()
    return nn.LayerNorm(6), written(d, d("LayerNormalization", "x", np.ones(6), axis=-1, epsilon=1e-5), folder)


def rms_norm_without_ones(folder: Path) -> tuple[nn.Module, Path]:
    """RMSNorm by its formula, without its weight of ones."""
    d = Draft()
    return nn.RMSNorm(6, eps=1e-5), written(d, _normalised(d, "x", centred=False), folder)


def linear_without_zeros(folder: Path) -> tuple[nn.Module, Path]:
    """A product with a matrix, without the layer's bias of zeros."""
    layer, d = nn.Linear(6, 4), Draft()
    layer.bias.data.zero_()
    return layer, written(d, d("MatMul", "x", layer.weight.detach().numpy().T.copy()), folder)


class Heads(nn.Module):
    """A softmax over parts of a row, (batch, 2, 3), and a layer on each part."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.layer(x.reshape(-1, 2, 3))
        return torch.softmax(parts, dim=-1).reshape(-1, 6)


def _heads(d: Draft, x: str, first: str, back: str) -> str:
    layer = Heads().layer
    parts = d("Reshape", x, first)
    product = d("Gemm", parts, layer.weight.detach().numpy(), layer.bias.detach().numpy(), transB=1)
    return d("Reshape", d("Softmax", product, axis=-1), back)


def rows_times_two(folder: Path) -> tuple[nn.Module, Path]:
    """Parts of rows as rows of their own, twice the batch, by a product with the batch's size."""
    d = Draft()
    batch = d("Gather", d("Shape", "x"), ints(0))
    first = d("Concat", d("Mul", batch, ints(2)), ints(3), axis=0)
    back = d("Concat", d("Cast", batch, to=TensorProto.INT64), ints(-1), axis=0)
    return Heads(), written(d, _heads(d, "x", first, back), folder)


def rows_left_open(folder: Path) -> tuple[nn.Module, Path]:
    """The same by -1 after a layer, with a declared input of unknown width."""
    d, layer = Draft(dims=("batch", "features")), nn.Linear(5, 6)
    first = d("Gemm", "x", *(p.detach().numpy() for p in layer.parameters()), transB=1)
    back = d("Concat", d("Slice", d("Shape", "x"), ints(0), ints(1)), ints(6), axis=0)
    return nn.Sequential(layer, Heads()), written(d, _heads(d, first, d.constant(ints(-1, 3)), back), folder)


def shape_of_another_value(folder: Path) -> tuple[nn.Module, Path]:
    """A target shape that is the whole shape of the input, by way of a scalar and an Unsqueeze."""
    d = Draft()
    size = d("Gather", d("Shape", "x"), np.array(0), axis=0)
    back = d("Concat", d("Unsqueeze", size, ints(0)), d("Slice", d("Shape", "x"), ints(1), ints(9)), axis=0)
    return Heads(), written(d, _heads(d, "x", d.constant(ints(-1, 3)), back), folder)


def comparison_before_a_reshape(folder: Path) -> tuple[nn.Module, Path]:
    """A comparison that ONNX infers no shape of in opset 13, and a change of shape after it."""

    class Compared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(torch.where(x <= 1, x, 0.0).reshape(-1, 2, 3), -1).reshape(-1, 6)

    d = Draft(13)
    chosen = d("Where", d("LessOrEqual", "x", F(1)), "x", F(0))
    value = d("Softmax", d("Reshape", chosen, ints(-1, 2, 3)), axis=-1)
    return Compared(), written(d, d("Reshape", value, ints(-1, 6)), folder)


RIGHT: dict[str, Maker] = {
    "variances below eps": tiny_variance,
    "a computed constant, 1 ulp": root_off_by(1),
    "a LayerNorm without ones": layer_norm_without_ones,
    "a LayerNormalization without zeros": layer_norm_without_zeros,
    "an RMSNorm without ones": rms_norm_without_ones,
    "a layer without zeros": linear_without_zeros,
    "rows times two": rows_times_two,
    "rows left open": rows_left_open,
    "the shape of another value": shape_of_another_value,
    "a comparison before a reshape": comparison_before_a_reshape,
    "a Gemm's alpha, 1/2": gemm_scaled(-1),
    "a Gemm's alpha, 2": gemm_scaled(1, 1),
}
