"""The table of building blocks: a class per block, with its options, its effect on the shape and its module.

Adding a block here is adding a class and naming it in ``BLOCKS``; ``export/blocks.py`` is the matching table of
what the block becomes in an ONNX file. Shapes are those of one row, without the batch dimension. Nothing here
imports torch before ``Block.module`` is called.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    WrapSerializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .suggestions import suggestion

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
Vector = float | Annotated[list[float], Field(min_length=1)]


class ShapeMismatch(Exception):
    """A block that cannot take the shape it is given: what it expects, and the path to it where it lies deeper."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()):
        super().__init__(message)
        self.message = message
        self.path = path


class Block(BaseModel):
    """One building block and its options. Frozen; an option that the block does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    kind: ClassVar[str]
    """The block's name in a spec: torch's functional name."""
    torch_name: ClassVar[str]
    """The class's name, which a spec may use too."""
    short: ClassVar[str | None] = None
    """The option that a bare value stands for: ``linear: 128`` is ``linear: {features: 128}``."""

    @classmethod
    def expand(cls, value: Any) -> Any:
        """The options that a bare value stands for."""
        if cls.short is None:
            message = "{kind} takes no bare value; it is written `{kind}` or with options"
            raise PydanticCustomError("no_short_form", message, {"kind": cls.kind})
        return {cls.short: value}

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one row after the block. Raises ShapeMismatch."""
        return shape

    def module(self, shape: Shape) -> nn.Module:
        """The block as a module for rows of ``shape``. Parameters are initialised from torch's random state."""
        from torch import nn

        return getattr(nn, self.torch_name)(**self.model_dump())


class Linear(Block):
    """x·Wᵀ + b: in_features to ``features``. Source of the initialisation: torch.nn.Linear."""

    kind, torch_name, short = "linear", "Linear", "features"
    features: PositiveInt = Field(description="Number of features that come out.")
    bias: bool = True
    in_features: PositiveInt | None = Field(None, description="Number of features that go in, if it is to be checked.")

    def output_shape(self, shape: Shape) -> Shape:
        (width,) = _flat(shape)
        if self.in_features not in (None, width):
            raise ShapeMismatch(f"expects {self.in_features} features (its in_features)")
        return (self.features,)

    def module(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Linear(shape[0], self.features, bias=self.bias)


class Sigmoid(Block):
    """1 / (1 + e^-x)."""

    kind, torch_name = "sigmoid", "Sigmoid"


class ReLU(Block):
    """max(0, x)."""

    kind, torch_name = "relu", "ReLU"


class LeakyReLU(Block):
    """x for x > 0, negative_slope·x below."""

    kind, torch_name, short = "leaky_relu", "LeakyReLU", "negative_slope"
    negative_slope: float = 0.01


class Dropout(Block):
    """Zeroes a proportion p of the entries in training; nothing in evaluation, and nothing in the exported file."""

    kind, torch_name, short = "dropout", "Dropout", "p"
    p: float = Field(0.5, ge=0, le=1)


class ELU(Block):
    """x for x > 0, alpha·(e^x - 1) below."""

    kind, torch_name, short = "elu", "ELU", "alpha"
    alpha: float = 1.0


class Tanh(Block):
    """The hyperbolic tangent."""

    kind, torch_name = "tanh", "Tanh"


class GELU(Block):
    """x·Φ(x); ``approximate: tanh`` takes the tanh formula instead of the error function."""

    kind, torch_name, short = "gelu", "GELU", "approximate"
    approximate: Literal["none", "tanh"] = "none"


class SiLU(Block):
    """x / (1 + e^-x)."""

    kind, torch_name = "silu", "SiLU"


class Softplus(Block):
    """log(1 + e^(beta·x)) / beta, and x itself where beta·x exceeds the threshold."""

    kind, torch_name, short = "softplus", "Softplus", "beta"
    beta: PositiveFloat = 1.0
    threshold: float = 20.0


class Softmax(Block):
    """e^x over the sum of e^x, along the features."""

    kind, torch_name = "softmax", "Softmax"

    def module(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Softmax(dim=-1)


class ReLU6(Block):
    """min(max(0, x), 6)."""

    kind, torch_name = "relu6", "ReLU6"


class Hardsigmoid(Block):
    """min(max(0, x / 6 + 1/2), 1)."""

    kind, torch_name = "hardsigmoid", "Hardsigmoid"


class Clip(Block):
    """min(max(x, min), max), as torch.nn.Hardtanh; ``clip: [-5, 5]`` is the short form."""

    kind, torch_name = "clip", "Hardtanh"
    min: float
    max: float

    @classmethod
    def expand(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) == 2:
            return {"min": value[0], "max": value[1]}
        raise PydanticCustomError("clip", "clip takes two numbers, as in `clip: [-5, 5]`")

    @model_validator(mode="after")
    def _in_order(self) -> Clip:
        if not self.min < self.max:
            raise PydanticCustomError("clip", "min must be below max")
        return self

    def module(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.Hardtanh(self.min, self.max)


class BatchNorm1d(Block):
    """(x - mean) / sqrt(var + eps)·weight + bias per feature, with the running statistics in evaluation."""

    kind, torch_name, short = "batch_norm", "BatchNorm1d", "eps"
    eps: PositiveFloat = 1e-5
    momentum: float = Field(0.1, ge=0, le=1)
    affine: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        return _flat(shape)

    def module(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.BatchNorm1d(shape[0], **self.model_dump())


class LayerNorm(Block):
    """(x - mean) / sqrt(var + eps)·weight + bias, with the statistics of each row."""

    kind, torch_name, short = "layer_norm", "LayerNorm", "eps"
    eps: PositiveFloat = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        return _flat(shape)

    def module(self, shape: Shape) -> nn.Module:
        from torch import nn

        return nn.LayerNorm(shape[0], **self.model_dump())


class Flatten(Block):
    """All dimensions of a row into one."""

    kind, torch_name = "flatten", "Flatten"

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)


class Identity(Block):
    """The input itself."""

    kind, torch_name = "identity", "Identity"


class _PerFeature(Block):
    """A block with constants per feature."""

    def output_shape(self, shape: Shape) -> Shape:
        (width,) = _flat(shape)
        for name, value in self.model_dump().items():
            if isinstance(value, list) and len(value) != width:
                raise ShapeMismatch(f"has {len(value)} values in {name}, so it expects {len(value)} features")
        return shape

    def module(self, shape: Shape) -> nn.Module:
        from . import modules

        return getattr(modules, self.torch_name)(shape[0], **self.model_dump())


class Standardize(_PerFeature):
    """(x - mean) / std per feature; values that are left out come with the weights."""

    kind, torch_name = "standardize", "Standardize"
    mean: Vector | None = None
    std: Vector | None = None

    @model_validator(mode="after")
    def _positive(self) -> Standardize:
        if self.std is not None and min(self.std if isinstance(self.std, list) else [self.std]) <= 0:
            raise PydanticCustomError("std", "std must be above 0 for every feature")
        return self


class Scale(_PerFeature):
    """x·factor + offset per feature; values that are left out come with the weights."""

    kind, torch_name, short = "scale", "Scale", "factor"
    factor: Vector | None = None
    offset: Vector | None = None


class Residual(Block):
    """x + blocks(x): a sequence plus its own input."""

    kind, torch_name, short = "residual", "Residual", "blocks"
    blocks: list[AnyBlock] = Field(min_length=1)

    def output_shape(self, shape: Shape) -> Shape:
        try:
            out = fit(self.blocks, shape, "the residual's input", within="residual")
        except ShapeMismatch as mismatch:
            raise ShapeMismatch(mismatch.message, ("residual", *mismatch.path)) from None
        if out != shape:
            raise ShapeMismatch(f"adds its input to what its blocks give, {words(out)}")
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

_NAMES = {name.replace("_", "").lower(): b for b in BLOCKS.values() for name in (b.kind, b.torch_name)}


def modules_of(blocks: list[Block], shape: Shape) -> list[nn.Module]:
    """The modules of a chain of blocks for rows of ``shape``, which must fit (``MLPSpec`` has checked it)."""
    modules = []
    for block in blocks:
        modules.append(block.module(shape))
        shape = block.output_shape(shape)
    return modules


def fit(blocks: list[Block], shape: Shape, source: str, within: str = "blocks") -> Shape:
    """The shape of one row after a chain of blocks.

    Raises ShapeMismatch naming the block that does not fit and the one (or ``source``) that feeds it.
    """
    for index, block in enumerate(blocks):
        try:
            out = block.output_shape(shape)
        except ShapeMismatch as mismatch:
            message = mismatch.message
            if not mismatch.path:
                message = f"{block.kind} {message}, but {source} gives {words(shape)}"
            raise ShapeMismatch(message, (index, *mismatch.path)) from None
        if out != shape or block.kind == "linear":
            shape, source = out, f"{within}[{index}] {block.kind}"
    return shape


def words(shape: Shape) -> str:
    """A row's shape in words."""
    return f"{shape[0]} features" if len(shape) == 1 else f"rows of shape {list(shape)}"


def _flat(shape: Shape) -> Shape:
    if len(shape) != 1:
        raise ShapeMismatch("expects flat rows (put a flatten in front)")
    return shape


class _Options(dict):
    """A block's options as they stood in the document, with the block they belong to."""

    def __init__(self, options: dict, kind: str):
        super().__init__(options)
        self.kind = kind


def _read(value: Any) -> Any:
    """``relu``, ``{linear: 128}`` and ``{linear: {features: 128}}``, all as options of a known block."""
    if isinstance(value, Block):
        return value
    if isinstance(value, dict) and len(value) == 1:
        name, options = next(iter(value.items()))
    else:
        name, options = value, {}
    if not isinstance(name, str):
        message = "a block is a name (`relu`) or a name with options (`linear: 128`)"
        raise PydanticCustomError("not_a_block", message)
    block = _NAMES.get(name.replace("_", "").lower())
    if block is None:
        hint = suggestion(name, [*BLOCKS, *(b.torch_name for b in BLOCKS.values())], "blocks", shown=list(BLOCKS))
        raise PydanticCustomError("unknown_block", "unknown block '{name}'; {hint}", {"name": name, "hint": hint})
    if options is None:
        options = {}
    elif not isinstance(options, dict):
        options = block.expand(options)
    return _Options(options, block.kind)


def _write(block: Block, handler: Any) -> Any:
    options = {key: value for key, value in handler(block).items() if value is not None}
    return {block.kind: options} if options else block.kind


if TYPE_CHECKING:
    AnyBlock = Block
else:
    _tagged = tuple(Annotated[block, Tag(kind)] for kind, block in BLOCKS.items())
    AnyBlock = Annotated[
        _tagged,
        Discriminator(lambda value: value.kind),
        BeforeValidator(_read),
        WrapSerializer(_write),
    ]
    Residual.model_rebuild()
