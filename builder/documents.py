"""A spec as a document: read from a YAML, JSON or TOML file, written as YAML, and the JSON Schema of all three.

YAML is read by the rules of YAML 1.2 (core schema): ``1e-3`` is a number, ``no`` is a word, ``010`` is ten. A key that
stands twice is an error in all three formats.
"""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from .block import Block
from .blocks import BLOCKS
from .errors import Path as KeyPath
from .errors import Problem, SpecError
from .spec import MLPSpec

_MOST_NODES = 1_000_000
Lines = dict[KeyPath, int]


def load_spec(path: str | Path) -> MLPSpec:
    """The spec in a ``.yaml``, ``.yml``, ``.json`` or ``.toml`` file.

    Raises SpecError: the file cannot be read, is not of its format, or does not describe a network; each problem with
    its line (YAML) or its key's path (JSON, TOML).
    """
    path = Path(path)
    lines: Lines = {}
    try:
        data, lines = _read(path)
        return MLPSpec(**data)
    except SpecError as error:
        placed = [replace(each, line=each.line or _nearest(lines, each.path)) for each in error.problems]
        raise SpecError(placed, str(path)) from None


def _wrong(message: str, path: KeyPath = (), line: int | None = None) -> SpecError:
    return SpecError([Problem(path, message, line)])


def _nearest(lines: Lines, path: KeyPath) -> int | None:
    """The line of the key at ``path``, or of the nearest thing around it."""
    return next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), None)


def _read(path: Path) -> tuple[dict[str, Any], Lines]:
    if path.suffix.lower() not in _FORMATS:
        raise _wrong(f"a spec's name ends in {', '.join(_FORMATS)}, not in '{path.suffix}'")
    name, parse = _FORMATS[path.suffix.lower()]
    try:
        data, lines = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _wrong(f"is not UTF-8 text: {error.reason}") from None
    except SpecError:
        raise
    except json.JSONDecodeError as error:
        raise _wrong(f"not JSON: {error.msg}", line=error.lineno) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _wrong(f"not YAML: {error.problem or error.context}", line=line) from None
    except (yaml.YAMLError, ValueError) as error:  # as a ValueError, TOML's, or an integer of thousands of digits
        raise _wrong(f"not {name}: {error}") from None
    except RecursionError:
        hint = ", or an alias inside its own anchor" if name == "YAML" else ""
        raise _wrong(f"nested too deeply{hint}") from None
    if not isinstance(data, dict):
        found = {list: "a list", str: "a text", type(None): "nothing"}.get(type(data), f"{data!r}")
        raise _wrong(f"expected a mapping with the keys {', '.join(MLPSpec.model_fields)}; found {found}")
    return data, lines


def _parsed_json(text: str) -> tuple[Any, Lines]:
    def once(pairs: list[tuple[str, Any]]) -> dict:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise _wrong(f"the key '{key}' stands twice in one object")
        return dict(pairs)

    def refuse(constant: str) -> Any:
        raise _wrong(f"{constant} is not a number that JSON has")

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse), {}


def _parsed_toml(text: str) -> tuple[Any, Lines]:
    return tomllib.loads(text), {}


class _Core(yaml.SafeLoader):
    """The syntax of YAML with the scalars of the 1.2 core schema."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML declares it so


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(text[2:], base) if base else int(text)


_SCALARS = {
    "null": (r"~|null|Null|NULL|", lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _integer),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        lambda text: float(re.sub(r"\.(?=[inIN])", "", text)),
    ),
}
for _name, (_pattern, _) in _SCALARS.items():
    _Core.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), None)


def _parsed_yaml(text: str) -> tuple[Any, Lines]:
    root = yaml.compose(text, Loader=_Core)
    lines: Lines = {}
    return None if root is None else _build(root, (), lines), lines


def _build(node: yaml.Node, path: KeyPath, lines: Lines) -> Any:
    """The data of a node; notes the line of every key and item, and stops where aliases multiply without end."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(lines) > _MOST_NODES:
        raise _wrong(f"more than {_MOST_NODES:,} values, aliases counted each time", path, line)
    name = node.tag.removeprefix("tag:yaml.org,2002:")
    if name not in (("str", *_SCALARS) if isinstance(node, yaml.ScalarNode) else ("map", "seq")):
        raise _wrong(f"the tag {node.tag} has no meaning in a spec", path, line)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        data = {}
        for key_node, value in node.value:
            key = _build(key_node, path, lines)
            key_line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise _wrong(f"a key is a word, not {key!r}", path, key_line)
            if key in data:
                raise _wrong("this key stands twice", (*path, key), key_line)
            lines[(*path, key)] = key_line
            data[key] = _build(value, (*path, key), lines)
        return data
    if name == "str":
        return node.value
    pattern, convert = _SCALARS[name]
    if not re.fullmatch(pattern, node.value):
        raise _wrong(f"'{node.value}' is tagged as {name}, which it is not", path, line)
    try:
        return convert(node.value)
    except ValueError as error:  # an integer of thousands of digits
        raise _wrong(str(error), path, line) from None


_YAML = ("YAML", _parsed_yaml)
_FORMATS = {".yaml": _YAML, ".yml": _YAML, ".json": ("JSON", _parsed_json), ".toml": ("TOML", _parsed_toml)}


def as_yaml(spec: MLPSpec) -> str:
    """The text of a ``spec.yaml`` that reads back as ``spec``, without options that have their defaults."""
    record: dict[str, Any] = {"format": spec.format, **spec.model_dump(exclude_defaults=True)}
    record["blocks"] = [_shortest(block) for block in record["blocks"]]
    record |= {name: _port(record[name]) for name in ("input", "output") if name in record}
    return yaml.dump(record, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def _shortest(block: str | dict[str, dict[str, Any]]) -> Any:
    """A name, a name with the option that its bare value stands for, or a name with options."""
    if isinstance(block, str):
        return block
    ((kind, options),) = block.items()
    if kind == "residual":
        return {kind: [_shortest(inner) for inner in options["blocks"]]}
    if kind == "clip":
        return {kind: _Line([options["min"], options["max"]])}
    short = BLOCKS[kind].short
    if short is not None and list(options) == [short]:
        return {kind: options[short]}
    return {kind: _Options(options)}


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


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of format 1, with every block under its names."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= MLPSpec.model_json_schema()
    schema["properties"]["output"].pop("default", None)
    options = {block.__name__: block.model_json_schema() for block in BLOCKS.values()}
    for chain in (schema, options["Residual"]):
        chain["properties"]["blocks"]["items"] = {"$ref": "#/$defs/Block"}
    forms = [form for block in BLOCKS.values() for form in _forms(block, options[block.__name__])]
    ports = {key: schema["$defs"][key] for key in ("InputSpec", "OutputSpec", "FeatureSpec")}
    return schema | {"$defs": {**ports, **options, "Block": {"anyOf": forms}}}


def _forms(block: type[Block], options: dict[str, Any]) -> list[dict[str, Any]]:
    """The ways to write a block: its bare name, its name with a value, its name with options."""
    value: list[dict[str, Any]] = [{"$ref": f"#/$defs/{block.__name__}"}]
    if block.kind == "clip":
        value.append({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2})
    if block.short is not None:
        value.append({k: v for k, v in options["properties"][block.short].items() if k != "default"})
    names = sorted({block.kind, block.torch_name})
    form = {"type": "object", "description": block.__doc__, "properties": {name: {"anyOf": value} for name in names}}
    forms: list[dict[str, Any]] = [form | {"minProperties": 1, "maxProperties": 1, "additionalProperties": False}]
    if not options.get("required"):
        forms.append({"enum": names, "description": block.__doc__})
    return forms
