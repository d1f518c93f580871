"""The table of building blocks: a class per block, with its options, its effect on the shape and its module.

To add a block, add a class and list it in ``BLOCKS``; an ``Activation`` is then also recovered from checkpoints, ONNX
files and TorchScript archives. Its module is exported operator by operator (``export/operators/``). torch is imported
only when ``Block.module`` is called.
"""

from __future__ import annotations

from math import inf, prod
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
    products_of,
)
from .values import is_list

if TYPE_CHECKING:
    from torch import nn

Vector = float | Annotated[list[float], Field(min_length=1)]
Limits = float | Annotated[list[float | None], Field(min_length=1)]
"""A limit for all features, or one for each; None: no limit."""


class Activation(Block):
    """A block without weights that keeps a row's shape, so that it may follow any layer.

    Where its kind is an ATen operator, its options have the names of that operator's arguments.
    """


class Sigmoid(Activation, kind="sigmoid"):
    """1 / (1 + e^-x)."""


class ReLU(Activation, kind="relu"):
    """max(0, x)."""


class Tanh(Activation, kind="tanh"):
    """The hyperbolic tangent."""


class SiLU(Activation, kind="silu"):
    """x / (1 + e^-x)."""


class ReLU6(Activation, kind="relu6"):
    """min(max(0, x), 6)."""


class Hardsigmoid(Activation, kind="hardsigmoid"):
    """min(max(0, x / 6 + 1/2), 1)."""


class Softsign(Activation, kind="softsign"):
    """x / (1 + |x|)."""


class Identity(Block, kind="identity"):
    """The input itself."""


class Linear(Block, kind="linear", short="features"):
    """x·Wᵀ + b: in_features to ``features``. Source of the initialisation: torch.nn.Linear."""

    features: PositiveInt = Field(le=MAX_FEATURES, description="Number of output features.")
    bias: bool = True
    in_features: PositiveInt | None = Field(None, description="Number of input features, if it is to be checked.")

    def output_shape(self, shape: Shape) -> Shape:
        """``features``, of a flat row. Raises ShapeMismatch."""
        if self.in_features not in (None, feature_count(shape)):
            raise ShapeMismatch(f"expects {self.in_features} features (its in_features)")
        return (self.features,)

    def products(self, shape: Shape, /) -> int:
        """``in_features`` times ``features``."""
        return shape[0] * self.features

    def arguments(self, shape: Shape, /) -> dict[str, Any]:
        """``in_features`` from the row; the rest as in the spec."""
        return {"in_features": shape[0], "out_features": self.features, "bias": self.bias}


class LeakyReLU(Activation, kind="leaky_relu", short="negative_slope"):
    """x for x > 0, negative_slope·x below."""

    negative_slope: float = 0.01


class Dropout(Activation, kind="dropout", short="p"):
    """Zeroes a proportion p of the entries in training; nothing in evaluation, and nothing in the exported file."""

    p: float = Field(0.5, ge=0, le=1)


class ELU(Activation, kind="elu", short="alpha"):
    """x for x > 0, alpha·(e^x - 1) below."""

    alpha: float = 1.0


class GELU(Activation, kind="gelu", short="approximate"):
    """x·Φ(x); ``approximate: tanh`` takes the tanh formula instead of the error function."""

    approximate: Literal["none", "tanh"] = "none"


class Softplus(Activation, kind="softplus", short="beta"):
    """log(1 + e^(beta·x)) / beta, and x itself where beta·x exceeds the threshold."""

    beta: PositiveFloat = 1.0
    threshold: float = 20.0


class Softmax(Activation, kind="softmax"):
    """e^x over the sum of e^x, along the features."""

    def arguments(self, _shape: Shape, /) -> dict[str, Any]:
        """The last dimension, whatever the row's shape."""
        return {"dim": -1}


def _checked_width(block: Block, shape: Shape) -> Shape:
    """The shape of a flat row with as many features as each list of the block's. Raises ShapeMismatch."""
    width = feature_count(shape)
    for name, value in block.model_dump().items():
        if is_list(value) and len(value) != width:
            raise ShapeMismatch(f"has {len(value)} values in {name}, so it expects {len(value)} features")
    return shape


def _limits(value: float | list[float | None], unlimited: float) -> list[float]:
    """The limits of all features: of one, or of each."""
    values = value if isinstance(value, list) else [value]
    return [unlimited if limit is None else limit for limit in values]


class Clip(Activation, kind="clip", torch_name="Hardtanh", short=("min", "max")):
    """min(max(x, min), max), as torch.nn.Hardtanh; ``clip: [-5, 5]`` is the short form.

    ``min`` and ``max`` may each be a list with a limit for each feature, of flat rows; null there is no limit.
    """

    min: Limits
    max: Limits

    @model_validator(mode="after")
    def _in_order(self) -> Clip:
        lows, highs = (_limits(value, unlimited) for value, unlimited in ((self.min, -inf), (self.max, inf)))
        if len(lows) != len(highs) and 1 not in (len(lows), len(highs)):
            message = "min has {lows} values and max {highs}; expected as many"
            raise PydanticCustomError("clip", message, {"lows": len(lows), "highs": len(highs)})
        count = max(len(lows), len(highs))
        pairs = zip(lows * (count // len(lows)), highs * (count // len(highs)), strict=True)
        if not all(low < high for low, high in pairs):
            raise PydanticCustomError("clip", "min must be below max")
        return self

    @property
    def per_feature(self) -> bool:
        """Whether the limits are a list."""
        return isinstance(self.min, list) or isinstance(self.max, list)

    def output_shape(self, shape: Shape) -> Shape:
        """The row's own, which has as many features as a list of limits. Raises ShapeMismatch."""
        return _checked_width(self, shape) if self.per_feature else shape

    def arguments(self, shape: Shape, /) -> dict[str, Any]:
        """The limits, by Hardtanh's names where they are the same for every feature."""
        if self.per_feature:
            return {"features": shape[0], "min": _limits(self.min, -inf), "max": _limits(self.max, inf)}
        return {"min_val": self.min, "max_val": self.max}

    def module(self, shape: Shape) -> nn.Module:
        """A Hardtanh, or a Clip with limits per feature."""
        if not self.per_feature:
            return super().module(shape)
        from .modules import Clip as Module

        return Module(**self.arguments(shape))


class _PerFeature(Block):
    """A block for flat rows with constants per feature."""

    width: ClassVar[str] = "features"
    """The module's argument for the number of features."""

    def output_shape(self, shape: Shape) -> Shape:
        """The row's own, which is flat and has as many features as each list of constants. Raises ShapeMismatch."""
        return _checked_width(self, shape)

    def arguments(self, shape: Shape, /) -> dict[str, Any]:
        """The number of features and the options."""
        return {self.width: shape[0], **self.model_dump()}


class BatchNorm1d(_PerFeature, kind="batch_norm", short="eps"):
    """(x - mean) / sqrt(var + eps)·weight + bias per feature, with the running statistics in evaluation."""

    width: ClassVar[str] = "num_features"
    eps: PositiveFloat = 1e-5
    momentum: float = Field(0.1, ge=0, le=1)
    affine: bool = True


class LayerNorm(_PerFeature, kind="layer_norm", short="eps"):
    """(x - mean) / sqrt(var + eps)·weight + bias, with the statistics of each row."""

    width: ClassVar[str] = "normalized_shape"
    eps: PositiveFloat = 1e-5
    elementwise_affine: bool = True
    bias: bool = True


class Flatten(Block, kind="flatten"):
    """All dimensions of a row into one."""

    def output_shape(self, shape: Shape) -> Shape:
        """As many features as the row has values."""
        return (prod(shape),)


class Standardize(_PerFeature, kind="standardize"):
    """(x - mean) / std per feature; values that are not given here come from the weights file."""

    mean: Vector | None = None
    std: Vector | None = None

    @model_validator(mode="after")
    def _positive(self) -> Standardize:
        if self.std is not None and min(self.std if isinstance(self.std, list) else [self.std]) < FLOAT32_TINY:
            raise PydanticCustomError("std", "std must be above 0, in float32, for every feature")
        return self


class Scale(_PerFeature, kind="scale", short="factor"):
    """x·factor + offset per feature; values that are not given here come from the weights file."""

    factor: Vector | None = None
    offset: Vector | None = None


class Impute(_PerFeature, kind="impute", short="value"):
    """value where x is NaN, x elsewhere, per feature; a value that is not given here comes from the weights file."""

    value: Vector | None = None


class Residual(Block, kind="residual", short="blocks"):
    """x + blocks(x): a sequence plus its own input."""

    blocks: list[AnyBlock] = Field(min_length=1)

    def output_shape(self, shape: Shape) -> Shape:
        """The row's own, which the blocks must keep. Raises ShapeMismatch."""
        try:
            out = chain_output_shape(self.blocks, shape, "the residual's input", within="residual")
        except ShapeMismatch as mismatch:
            raise ShapeMismatch(mismatch.message, ("residual", *mismatch.path)) from None
        if out != shape:
            raise ShapeMismatch(f"adds its input to the {format_shape(out)} that its blocks give")
        return shape

    def products(self, shape: Shape, /) -> int:
        """Those of its blocks."""
        return products_of(self.blocks, shape)

    def module(self, shape: Shape) -> nn.Module:
        """The sequence's modules in one that adds their input to their output."""
        from .modules import Residual as Module

        return Module(*modules_of(self.blocks, shape))


BLOCKS: dict[str, type[Block]] = {
    block.kind: block
    for block in (
        *(Linear, Sigmoid, ReLU, LeakyReLU, Dropout, ELU, Tanh, GELU, SiLU, Softplus, Softmax, ReLU6, Hardsigmoid),
        Softsign,
        *(Clip, BatchNorm1d, LayerNorm, Flatten, Identity, Standardize, Scale, Impute, Residual),
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
