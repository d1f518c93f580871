"""The base class of building blocks, how a block is written, and the shapes of a chain. Shapes are those of one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union, Unpack

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag, WrapSerializer, model_validator
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

from .errors import suggestion
from .values import is_dict, is_list

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
FLOAT32_MAX, FLOAT32_TINY = 3.4028234663852886e38, 2.0**-126
"""The largest float32 value and the smallest positive normal one."""
MAX_FEATURES = 10_000_000
"""More features than any dense network has; a larger number is a typing error and would fill the memory."""


class ShapeMismatch(Exception):
    """A block does not accept its input's shape: what it expects, and its path if it is inside another block."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()):
        super().__init__(message)
        self.message = message
        self.path = path


class Strict(BaseModel):
    """A part of a spec. Frozen; unknown keys and values of another type are errors."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Block(Strict):
    """One building block and its options.

    Its names are arguments of its class: ``class ELU(Activation, kind="elu", short="alpha")``.

    Examples:
        >>> from builder import BLOCKS, Block
        >>> block = BLOCKS["leaky_relu"](negative_slope=0.1)
        >>> isinstance(block, Block), block.kind
        (True, 'leaky_relu')
    """

    kind: ClassVar[str]
    """The block's name in a spec: torch's functional name."""
    torch_name: ClassVar[str]
    """The name of the module's class, which a spec may use too: this class's own, if nothing else is given."""
    short: ClassVar[str | tuple[str, ...] | None] = None
    """The option that a bare value sets: ``linear: 128`` is ``linear: {features: 128}``; a tuple if it is a list."""

    def __init_subclass__(
        cls,
        *,
        kind: str | None = None,
        torch_name: str | None = None,
        short: str | tuple[str, ...] | None = None,
        **config: Unpack[ConfigDict],
    ) -> None:
        super().__init_subclass__(**config)
        if kind is not None:
            cls.kind, cls.torch_name, cls.short = kind, torch_name or cls.__name__, short

    @model_validator(mode="after")
    def _within_float32(self) -> Block:
        for name, value in self:
            for number in value if is_list(value) else [value]:
                if isinstance(number, float) and abs(number) > FLOAT32_MAX:
                    message = "{name} is {number}, beyond float32, which the model computes in"
                    raise PydanticCustomError("float32", message, {"name": name, "number": number})
        return self

    @classmethod
    def expand(cls, value: object) -> dict[str, Any]:
        """The options that a bare value sets."""
        if cls.short is None:
            message = "{kind} takes no bare value; it is written `{kind}` or with options"
            raise PydanticCustomError("no_short_form", message, {"kind": cls.kind})
        if isinstance(cls.short, str):
            return {cls.short: value}
        if not is_list(value) or len(value) != len(cls.short):
            message = "{kind} takes a list of {count} values: [{names}]"
            context = {"kind": cls.kind, "count": len(cls.short), "names": ", ".join(cls.short)}
            raise PydanticCustomError("short_form", message, context)
        return dict(zip(cls.short, value, strict=True))

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one row after the block. Raises ShapeMismatch."""
        return shape

    def products(self, _shape: Shape, /) -> int:
        """The weights of its matrices, which are most of a network's memory, for rows of a shape."""
        return 0

    def arguments(self, _shape: Shape, /) -> dict[str, Any]:
        """The arguments of the module's constructor for rows of a shape, by name."""
        return self.model_dump()

    def module(self, shape: Shape) -> nn.Module:
        """The block as a module for rows of ``shape``. Parameters are initialised from torch's random state."""
        from torch import nn

        from . import modules

        home = modules if hasattr(modules, self.torch_name) else nn
        return getattr(home, self.torch_name)(**self.arguments(shape))


def modules_of(blocks: list[Block], shape: Shape) -> list[nn.Module]:
    """The modules of a chain of blocks for rows of ``shape``, which must match (``MLPSpec`` checks it)."""
    modules: list[nn.Module] = []
    for block in blocks:
        modules.append(block.module(shape))
        shape = block.output_shape(shape)
    return modules


def products_of(blocks: list[Block], shape: Shape) -> int:
    """The weights of all matrices of a chain of blocks for rows of ``shape``."""
    total = 0
    for block in blocks:
        total += block.products(shape)
        shape = block.output_shape(shape)
    return total


def chain_output_shape(blocks: list[Block], shape: Shape, source: str, within: str = "blocks") -> Shape:
    """The shape of one row after a chain of blocks.

    Raises ShapeMismatch naming the block that does not accept its input and the block (or ``source``) that feeds it.
    """
    for index, block in enumerate(blocks):
        try:
            out = block.output_shape(shape)
        except ShapeMismatch as mismatch:
            message = mismatch.message
            if not mismatch.path:
                message = f"{block.kind} {message}, but {source} gives {format_shape(shape)}"
            raise ShapeMismatch(message, (index, *mismatch.path)) from None
        if out != shape or block.kind == "linear":
            shape, source = out, f"{within}[{index}] {block.kind}"
    return shape


def format_shape(shape: Shape) -> str:
    """``4 features`` or ``rows of shape [2, 2]``."""
    return f"{shape[0]} features" if len(shape) == 1 else f"rows of shape {list(shape)}"


def feature_count(shape: Shape) -> int:
    """The number of features of a flat row. Raises ShapeMismatch."""
    if len(shape) != 1:
        raise ShapeMismatch("expects flat rows (put a flatten in front)")
    return shape[0]


def any_block(table: Mapping[str, type[Block]]) -> Any:
    """The type of a field that holds any block of the table.

    It is read from ``relu``, ``linear: 128`` or ``linear: {features: 128, bias: false}`` and written in these forms.
    """
    by_name = {_normalized(name): block for block in table.values() for name in (block.kind, block.torch_name)}

    def read(value: object) -> Block | _TaggedOptions:
        if isinstance(value, Block):
            return value
        name, options = next(iter(value.items())) if is_dict(value) and len(value) == 1 else (value, None)
        if not isinstance(name, str):
            message = "a block is a name (`relu`) or a name with options (`linear: 128`)"
            raise PydanticCustomError("not_a_block", message)
        block = by_name.get(_normalized(name))
        if block is None:
            names = [*table, *(block.torch_name for block in table.values())]
            name = name.encode("utf-8", "replace").decode()
            hint = suggestion(name, names, "blocks", shown=list(table))
            raise PydanticCustomError("unknown_block", "unknown block '{name}'; {hint}", {"name": name, "hint": hint})
        if options is None:
            return _TaggedOptions({}, block.kind)
        return _TaggedOptions(options if is_dict(options) else block.expand(options), block.kind)

    tagged = tuple(Annotated[block, Tag(kind)] for kind, block in table.items())
    return Annotated[
        Union[tagged],  # noqa: UP007 - built from the table
        Discriminator(lambda value: value.kind),
        BeforeValidator(read),
        WrapSerializer(_write),
        WithJsonSchema({}),  # pydantic knows the fields of the classes, ``json_schema`` the written forms
    ]


class _TaggedOptions(dict[str, Any]):
    """A block's options as in the document, with the kind of the block."""

    def __init__(self, options: dict[str, Any], kind: str):
        super().__init__(options)
        self.kind = kind


def _normalized(name: str) -> str:
    return name.replace("_", "").lower()


def _write(block: Block, handler: Any) -> Any:
    options = {key: value for key, value in handler(block).items() if value is not None}
    return {block.kind: options} if options else block.kind
