"""How blocks are written in a document: ``relu``, ``linear: 128`` or ``linear: {features: 128, bias: false}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import BeforeValidator, Discriminator, Tag, WrapSerializer
from pydantic_core import PydanticCustomError

from .block import Block
from .suggestions import suggestion


def any_block(table: Mapping[str, type[Block]]) -> Any:
    """The type of a field that holds any block of the table, read from and written to the notation."""
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
