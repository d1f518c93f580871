"""What pydantic finds wrong in a document, as one problem for each of its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic_core import ValidationError

from .block import Strict
from .blocks import BLOCKS
from .errors import Problem, suggestion
from .values import is_dict, is_list


def problems_of(
    error: ValidationError, data: Any, keys: Sequence[str], parts: Mapping[str | int, type[Strict]]
) -> list[Problem]:
    """The errors of pydantic, as one problem per key of the document ``data``.

    ``keys`` are those that the document may have, and ``parts`` are its parts by their names in pydantic's error paths.
    """
    messages: dict[tuple[str | int, ...], dict[str, None]] = {}
    for item in error.errors(include_url=False):
        message = _message(item, keys, parts)
        messages.setdefault(_path(item["loc"], data), {})[message] = None  # as a set that keeps its order
    return [Problem(path, "; or ".join(alternatives)) for path, alternatives in messages.items()]


def _path(loc: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """The path in the document for pydantic's location of an error."""
    if is_dict(data) and loc[:2] == ("inputs", 0) and "inputs" not in data:
        loc = ("input", *loc[2:])
    path: list[str | int] = []
    for part in loc:
        if part in BLOCKS and is_dict(data) and len(data) == 1:
            part = next(iter(data))  # the block's name as in the document
        if part in data if is_dict(data) else is_list(data) and isinstance(part, int):
            data = cast(Any, data)[part]
            path.append(part)
    return tuple(path)


def _message(item: Any, own_keys: Sequence[str], parts: Mapping[str | int, type[Strict]]) -> str:
    *parents, name = item["loc"] or ("",)
    part = next((parts[parent] for parent in reversed(parents) if parent in parts), None)
    keys = list(own_keys if part is None else part.model_fields)
    if item["type"] == "extra_forbidden":
        return f"unknown key; {suggestion(str(name), keys, 'keys')}"
    if item["type"] == "missing":
        name = "input" if item["loc"] == ("inputs",) else name
        return f"the key '{name}' is missing; the keys are: {', '.join(keys)}"
    message = item["msg"][0].lower() + item["msg"][1:]
    if item["type"] in ("unknown_block", "not_a_block") or isinstance(item["input"], dict):
        return message
    return f"{message}, not {item['input']!r}"
