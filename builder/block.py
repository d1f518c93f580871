"""What every building block has, how it is written, and what holds for a chain of them. Shapes are those of one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag, WrapSerializer, model_validator
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

from .errors import suggestion

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


class Strict(BaseModel):
    """A part of a spec. Frozen; a key that it does not have is an error, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Block(Strict):
    """One building block and its options."""

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

    def arguments(self, shape: Shape) -> dict[str, Any]:
        """What the block's module is made with for rows of ``shape``, by the names of its class's arguments."""
        return self.model_dump()

    def module(self, shape: Shape) -> nn.Module:
        """The block as a module for rows of ``shape``. Parameters are initialised from torch's random state."""
        from torch import nn

        from . import modules

        home = modules if hasattr(modules, self.torch_name) else nn
        return getattr(home, self.torch_name)(**self.arguments(shape))


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


def any_block(table: Mapping[str, type[Block]]) -> Any:
    """The type of a field that holds any block of the table.

    It is read as ``relu``, ``linear: 128`` or ``linear: {features: 128, bias: false}``, and written so.
    """
    by_name = {_folded(name): block for block in table.values() for name in (block.kind, block.torch_name)}

    def read(value: Any) -> Any:
        if isinstance(value, Block):
            return value
        name, options = value, {}
        if isinstance(value, dict) and len(value) == 1:
            name, options = next(iter(value.items()))
        if not isinstance(name, str):
            message = "a block is a name (`relu`) or a name with options (`linear: 128`)"
            raise PydanticCustomError("not_a_block", message)
        block = by_name.get(_folded(name))
        if block is None:
            names = [*table, *(block.torch_name for block in table.values())]
            name = name.encode("utf-8", "replace").decode()
            hint = suggestion(name, names, "blocks", shown=list(table))
            raise PydanticCustomError("unknown_block", "unknown block '{name}'; {hint}", {"name": name, "hint": hint})
        if options is not None and not isinstance(options, dict):
            options = block.expand(options)
        return _Options(options or {}, block.kind)

    tagged = tuple(Annotated[block, Tag(kind)] for kind, block in table.items())
    return Annotated[
        Union[tagged],  # noqa: UP007 - made from the table
        Discriminator(lambda value: value.kind),
        BeforeValidator(read),
        WrapSerializer(_write),
        WithJsonSchema({}),  # pydantic knows how blocks are held, ``json_schema`` how they are written
    ]


class _Options(dict):
    """A block's options as they stood in the document, with the block they belong to."""

    def __init__(self, options: dict, kind: str):
        super().__init__(options)
        self.kind = kind


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def _write(block: Block, handler: Any) -> Any:
    options = {key: value for key, value in handler(block).items() if value is not None}
    return {block.kind: options} if options else block.kind
