"""Files whose computed constants are other numbers for the runtime than for ONNX's reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from tests.support.onnx_drafts import Draft

from .making import F, Maker, ints, written

_PEAK = F(123.456)


class Bump(nn.Module):
    """``height``·exp(-(x - 123.456)²), cut at a bound that only inputs near 123.456 reach: random rows do not."""

    def __init__(self, height: float, low: float | None = None, high: float | None = None):
        super().__init__()
        self.height, self.low, self.high = height, low, high

    def forward(self, x: Tensor) -> Tensor:
        off = x - float(_PEAK)
        return torch.clamp(torch.exp(-(off * off)) * self.height, self.low, self.high)


def bump(d: Draft, height: float) -> str:
    """The same in a file, without the bound."""
    off = d("Sub", "x", _PEAK)
    return d("Mul", d("Exp", d("Neg", d("Mul", off, off))), F(height))


def bound_in_float16(folder: Path) -> tuple[nn.Module, Path]:
    """A Clip's bound by float16 arithmetic, 6.5: in float32, as ONNX Runtime computes it, it is 7.5."""
    d, half = Draft(), np.float16
    lost = d("Sub", d("Add", half(2048), half(1)), half(2048))
    high = d("Cast", d("Add", half(6.5), lost), to=TensorProto.FLOAT)
    return Bump(8, 0.0, 6.5), written(d, d("Clip", bump(d, 8), F(0), high), folder)


def weights_in_float16(folder: Path) -> tuple[nn.Module, Path]:
    """64 weights of a layer of 4,096 by float16 arithmetic: off by a part that its bound cannot see."""
    layer = nn.Linear(4096, 2)
    weight = np.random.default_rng(0).normal(size=(4096, 2)).astype(np.float16)
    moved = np.zeros((4096, 2), np.float16)
    moved[:64] = 2**-13  # lost beside 4 in float16
    d, four = Draft(dims=("batch", 4096)), np.float16(4)
    lost = d("Sub", d("Add", moved, four), four)
    made = d("Cast", d("Add", lost, weight), to=TensorProto.FLOAT)
    layer.weight.data = torch.from_numpy(weight.astype(F).T.copy())
    bias = layer.bias.detach().numpy()
    return layer, written(d, d("Gemm", "x", made, bias), folder)


def bound_from_a_text(folder: Path) -> tuple[nn.Module, Path]:
    """A Clip's bound from the text "1_0", which Python reads as 10."""
    d = Draft()
    d.initializers.append(TensorProto(name="text", data_type=TensorProto.STRING, string_data=[b"1_0"]))
    return Bump(11, 0.0, 10.0), written(
        d, d("Clip", bump(d, 11), F(0), d("Cast", "text", to=TensorProto.FLOAT)), folder
    )


def bound_from_a_constant_text(folder: Path) -> tuple[nn.Module, Path]:
    """The same text in a Constant's attribute value_string."""
    d = Draft()
    d.nodes.append(helper.make_node("Constant", [], ["text"], value_string=b"1_0"))
    return Bump(11, 0.0, 10.0), written(
        d, d("Clip", bump(d, 11), F(0), d("Cast", "text", to=TensorProto.FLOAT)), folder
    )


def bound_by_integer_division(folder: Path) -> tuple[nn.Module, Path]:
    """A Clip's bound from -13 / 2, which is -7 where a quotient is rounded down, and -6 where it is cut."""
    d = Draft()
    low = d("Cast", d("Div", ints(-13).reshape(()), ints(2).reshape(())), to=TensorProto.FLOAT)
    return Bump(-8, -7.0, 0.0), written(d, d("Clip", bump(d, -8), low, F(0)), folder)


def bound_in_an_if(folder: Path) -> tuple[nn.Module, Path]:
    """A Clip's bound that an If gives, on a constant condition: -13 / 2 again."""
    d = Draft()
    held = [helper.make_tensor(n, TensorProto.INT64, [], [v]) for n, v in (("a", -13), ("b", 2))]
    nodes = [
        helper.make_node("Div", ["a", "b"], ["q"]),
        helper.make_node("Cast", ["q"], ["low"], to=TensorProto.FLOAT),
    ]
    result = [helper.make_tensor_value_info("low", TensorProto.FLOAT, [])]
    branch = helper.make_graph(nodes, "branch", [], result, held)
    always = d.constant(np.array(True))
    d.nodes.append(helper.make_node("If", [always], ["bound"], then_branch=branch, else_branch=branch))
    return Bump(-8, -7.0, 0.0), written(d, d("Clip", bump(d, -8), "bound", F(0)), folder)


def bound_in_bfloat16(folder: Path) -> tuple[nn.Module, Path]:
    """A Clip's bound by way of bfloat16: 6.5 and a part that it cannot hold."""
    d = Draft()
    narrow = d("Cast", d("Cast", F(6.51), to=TensorProto.BFLOAT16), to=TensorProto.FLOAT)
    return Bump(8, 0.0, 6.5), written(d, d("Clip", bump(d, 8), F(0), narrow), folder)


class Standardized(nn.Module):
    """(x - mean) / sqrt(variance + 1e-5): the root is a constant that forward computes."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.mean, self.variance = (nn.Buffer(torch.from_numpy(rng.uniform(1, 2, width).astype(F))) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / torch.sqrt(self.variance + 1e-5)


def root_off_by(steps: int, *, mean: int = 0) -> Maker:
    """A computed constant, or a buffer, that is some float32 numbers away from the module's."""

    def make(folder: Path) -> tuple[nn.Module, Path]:
        module, d = Standardized(), Draft(dims=("batch", 64))
        root, offset = torch.sqrt(module.variance + 1e-5).numpy().copy(), module.mean.numpy().copy()
        for values, count in ((root, steps), (offset, mean)):
            for _ in range(count):
                values[5] = np.nextafter(values[5], F(9))
        return module, written(d, d("Div", d("Sub", "x", offset), root), folder)

    make.__doc__ = root_off_by.__doc__
    return make


CONSTANTS: dict[str, Maker] = {
    "a bound in float16": bound_in_float16,
    "weights in float16": weights_in_float16,
    "a bound from a text": bound_from_a_text,
    "a bound from a Constant's text": bound_from_a_constant_text,
    "a bound by integer division": bound_by_integer_division,
    "a bound in an If": bound_in_an_if,
    "a bound in bfloat16": bound_in_bfloat16,
    "a computed constant, 2 ulp": root_off_by(2),
    "a buffer, 1 ulp": root_off_by(0, mean=1),
    "a computed constant and a buffer, 1 ulp": root_off_by(1, mean=1),
}
