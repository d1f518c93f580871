"""The table of building blocks: a class per block, with its options, its effect on the shape and its module.

To add a block, add a class and list it in ``BLOCKS``; an ``Activation`` is then also recovered from checkpoints, ONNX
files and TorchScript archives. Its module is exported operator by operator (``export/operators/``). torch is imported
only when ``Block.module`` is called.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from .block import (
    FLOAT32_TINY,
    MAX_FEATURES,
    Block,
    Shape,
    ShapeMismatch,
    any_block,
    chain_output_shape,
    feature_count,
    format_shape,
    modules_of,
)

if TYPE_CHECKING:
    from torch import nn

Vector = float | Annotated[list[float], Field(min_length=1)]


class Activation(Block):
    """A block without weights that keeps a row's shape, so that it may follow any layer.

    Where its kind is an ATen operator, its options have the names of that operator's arguments.
    """


def _without_options(kind: str, torch_name: str, formula: str, base: type[Block] = Activation) -> type[Block]:
    names = {"kind": kind, "torch_name": torch_name, "__doc__": formula, "__module__": __name__}
    return type(torch_name, (base,), names)


Sigmoid = _without_options("sigmoid", "Sigmoid", "1 / (1 + e^-x).")
ReLU = _without_options("relu", "ReLU", "max(0, x).")
Tanh = _without_options("tanh", "Tanh", "The hyperbolic tangent.")
SiLU = _without_options("silu", "SiLU", "x / (1 + e^-x).")
ReLU6 = _without_options("relu6", "ReLU6", "min(max(0, x), 6).")
Hardsigmoid = _without_options("hardsigmoid", "Hardsigmoid", "min(max(0, x / 6 + 1/2), 1).")
Identity = _without_options("identity", "Identity", "The input itself.", Block)


class Linear(Block):
    """x·Wᵀ + b: in_features to ``features``. Source of the initialisation: torch.nn.Linear."""

    kind, torch_name, short = "linear", "Linear", "features"
    features: PositiveInt = Field(le=MAX_FEATURES, description="Number of output features.")
    bias: bool = True
    in_features: PositiveInt | None = Field(None, description="Number of input features, if it is to be checked.")

    def output_shape(self, shape: Shape) -> Shape:
        if self.in_features not in (None, feature_count(shape)):
            raise ShapeMismatch(f"expects {self.in_features} features (its in_features)")
        return (self.features,)

    def arguments(self, shape: Shape) -> dict[str, Any]:
        return {"in_features": shape[0], "out_features": self.features, "bias": self.bias}


class LeakyReLU(Activation):
    """x for x > 0, negative_slope·x below."""

    kind, torch_name, short = "leaky_relu", "LeakyReLU", "negative_slope"
    negative_slope: float = 0.01


class Dropout(Activation):
    """Zeroes a proportion p of the entries in training; nothing in evaluation, and nothing in the exported file."""

    kind, torch_name, short = "dropout", "Dropout", "p"
    p: float = Field(0.5, ge=0, le=1)


class ELU(Activation):
    """x for x > 0, alpha·(e^x - 1) below."""

    kind, torch_name, short = "elu", "ELU", "alpha"
    alpha: float = 1.0


class GELU(Activation):
    """x·Φ(x); ``approximate: tanh`` takes the tanh formula instead of the error function."""

    kind, torch_name, short = "gelu", "GELU", "approximate"
    approximate: Literal["none", "tanh"] = "none"


class Softplus(Activation):
    """log(1 + e^(beta·x)) / beta, and x itself where beta·x exceeds the threshold."""

    kind, torch_name, short = "softplus", "Softplus", "beta"
    beta: PositiveFloat = 1.0
    threshold: float = 20.0


class Softmax(Activation):
    """e^x over the sum of e^x, along the features."""

    kind, torch_name = "softmax", "Softmax"

    def arguments(self, shape: Shape) -> dict[str, Any]:
        return {"dim": -1}


class Clip(Activation):
    """min(max(x, min), max), as torch.nn.Hardtanh; ``clip: [-5, 5]`` is the short form."""

    kind, torch_name, short = "clip", "Hardtanh", ("min", "max")
    min: float
    max: float

    @model_validator(mode="after")
    def _in_order(self) -> Clip:
        if not self.min < self.max:
            raise PydanticCustomError("clip", "min must be below max")
        return self

    def arguments(self, shape: Shape) -> dict[str, Any]:
        return {"min_val": self.min, "max_val": self.max}


class _PerFeature(Block):
    """A block for flat rows with constants per feature."""

    width: ClassVar[str] = "features"
    """The module's argument for the number of features."""

    def output_shape(self, shape: Shape) -> Shape:
        width = feature_count(shape)
        for name, value in self.model_dump().items():
            if isinstance(value, list) and len(value) != width:
                raise ShapeMismatch(f"has {len(value)} values in {name}, so it expects {len(value)} features")
        return shape

    def arguments(self, shape: Shape) -> dict[str, Any]:
        return {self.width: shape[0], **self.model_dump()}


class BatchNorm1d(_PerFeature):
    """(x - mean) / sqrt(var + eps)·weight + bias per feature, with the running statistics in evaluation."""

    kind, torch_name, short, width = "batch_norm", "BatchNorm1d", "eps", "num_features"
    eps: PositiveFloat = 1e-5
    momentum: float = Field(0.1, ge=0, le=1)
    affine: bool = True


class LayerNorm(_PerFeature):
    """(x - mean) / sqrt(var + eps)·weight + bias, with the statistics of each row."""

    kind, torch_name, short = "layer_norm", "LayerNorm", "eps"
    width = "normalized_shape"
    eps: PositiveFloat = 1e-5
    elementwise_affine: bool = True
    bias: bool = True


class Flatten(Block):
    """All dimensions of a row into one."""

    kind, torch_name = "flatten", "Flatten"

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)


class Standardize(_PerFeature):
    """(x - mean) / std per feature; values that are not given here come from the weights file."""

    kind, torch_name = "standardize", "Standardize"
    mean: Vector | None = None
    std: Vector | None = None

    @model_validator(mode="after")
    def _positive(self) -> Standardize:
        if self.std is not None and min(self.std if isinstance(self.std, list) else [self.std]) < FLOAT32_TINY:
            raise PydanticCustomError("std", "std must be above 0, in float32, for every feature")
        return self


class Scale(_PerFeature):
    """x·factor + offset per feature; values that are not given here come from the weights file."""

    kind, torch_name, short = "scale", "Scale", "factor"
    factor: Vector | None = None
    offset: Vector | None = None


class Residual(Block):
    """x + blocks(x): a sequence plus its own input."""

    kind, torch_name, short = "residual", "Residual", "blocks"
    blocks: list[AnyBlock] = Field(min_length=1)

    def output_shape(self, shape: Shape) -> Shape:
        try:
            out = chain_output_shape(self.blocks, shape, "the residual's input", within="residual")
        except ShapeMismatch as mismatch:
            raise ShapeMismatch(mismatch.message, ("residual", *mismatch.path)) from None
        if out != shape:
            raise ShapeMismatch(f"adds its input to the {format_shape(out)} that its blocks give")
        return shape

    def module(self, shape: Shape) -> nn.Module:
        from .modules import Residual as Module

        return Module(*modules_of(self.blocks, shape))


BLOCKS: dict[str, type[Block]] = {
    block.kind: block
    for block in (
        *(Linear, Sigmoid, ReLU, LeakyReLU, Dropout, ELU, Tanh, GELU, SiLU, Softplus, Softmax, ReLU6, Hardsigmoid),
        *(Clip, BatchNorm1d, LayerNorm, Flatten, Identity, Standardize, Scale, Residual),
    )
}
"""Every building block by its name in a spec."""
ACTIVATIONS: dict[str, type[Activation]] = {
    kind: block for kind, block in BLOCKS.items() if issubclass(block, Activation)
}


if TYPE_CHECKING:
    AnyBlock = Block
else:
    AnyBlock = any_block(BLOCKS)
    Residual.model_rebuild()
