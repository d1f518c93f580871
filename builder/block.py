"""What every building block has, and what holds for a chain of them. Shapes are those of one row, without the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
LARGEST, SMALLEST = 3.4028234663852886e38, 2.0**-126
"""Of float32: the largest value, and the smallest above 0 that is held to full precision."""
MOST = 10_000_000
"""More features than any dense network has; a larger number is a slip, and would fill the memory."""


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

    @model_validator(mode="after")
    def _within_float32(self) -> Block:
        for name, value in self:
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, float) and abs(number) > LARGEST:
                    message = "{name} is {number}, beyond float32, which the model computes in"
                    raise PydanticCustomError("float32", message, {"name": name, "number": number})
        return self

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


def flat(shape: Shape) -> Shape:
    """The shape, if it is a number of features. Raises ShapeMismatch."""
    if len(shape) != 1:
        raise ShapeMismatch("expects flat rows (put a flatten in front)")
    return shape
