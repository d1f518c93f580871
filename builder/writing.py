"""A spec as the YAML file that a person would write."""

from __future__ import annotations

import re
from typing import Any

import yaml

from .block import Block
from .blocks import BLOCKS
from .spec import MLPSpec


def as_yaml(spec: MLPSpec) -> str:
    """The text of a ``spec.yaml`` that reads back as ``spec``, without options that have their defaults."""
    record: dict[str, Any] = {"format": spec.format, "name": spec.name}
    record["input"] = _port(spec.input.model_dump(exclude_defaults=True))
    record["blocks"] = [_written(block) for block in spec.blocks]
    output = _port(spec.output.model_dump(exclude_defaults=True))
    if output:
        record["output"] = output
    return yaml.dump(record, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def _written(block: Block) -> Any:
    """A name, a name with the option that its bare value stands for, or a name with options."""
    options = block.model_dump(exclude_defaults=True)
    if not options:
        return block.kind
    if block.kind == "residual":
        return {"residual": [_written(inner) for inner in dict(block)["blocks"]]}
    if block.kind == "clip":
        return {"clip": _Line([options["min"], options["max"]])}
    short = BLOCKS[block.kind].short
    if short is not None and list(options) == [short]:
        return {block.kind: options[short]}
    return {block.kind: _Options(options)}


def _port(options: dict[str, Any]) -> dict[str, Any]:
    """An input or output with one feature a line."""
    for key, value in options.items():
        if isinstance(value, list):
            described = any(isinstance(item, dict) for item in value)
            options[key] = [_Options(v) if isinstance(v, dict) else v for v in value] if described else _Line(value)
    return options


class _Line(list):
    """A list in one line."""


class _Options(dict):
    """A mapping in one line."""


class _Dumper(yaml.SafeDumper):
    """PyYAML writes YAML 1.1, where other words and other spellings of numbers have a meaning than in 1.2."""

    def number(self, value: float) -> yaml.Node:
        text = repr(value)
        text = text.replace("e", ".0e") if "e" in text and "." not in text else text
        return self.represent_scalar("tag:yaml.org,2002:float", text)

    def text(self, value: str) -> yaml.Node:
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value) is not None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    def one_line(self, value: list[Any]) -> yaml.Node:
        return self.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)

    def options(self, value: dict[str, Any]) -> yaml.Node:
        return self.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)


_Dumper.add_representer(float, _Dumper.number)
_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_representer(_Line, _Dumper.one_line)
_Dumper.add_representer(_Options, _Dumper.options)
