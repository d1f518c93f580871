"""A spec as a document: read from a YAML, JSON or TOML file, written as YAML, and the JSON Schema of all three.

YAML is read by the rules of YAML 1.2 (core schema): ``1e-3`` is a number, ``no`` is a string, ``010`` is ten. A
duplicate key is an error in all three formats.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from .block import Block
from .blocks import BLOCKS
from .errors import KeyPath, Problem, SpecError
from .ports import PortSpec, port_specs
from .spec import KEYS, MLPSpec
from .values import is_dict, is_list

T = TypeVar("T")
_MAX_NODES = 1_000_000
Lines = dict[KeyPath, int]


def load_spec(path: str | Path) -> MLPSpec:
    """The spec in a ``.yaml``, ``.yml``, ``.json`` or ``.toml`` file.

    Raises SpecError: the file cannot be read, is not valid in its format, or does not describe a network; each problem
    has its line (YAML) or the path of its key (JSON, TOML).

    Examples:
        >>> from mlpx import load_spec
        >>> spec = load_spec("spec.yaml")
        >>> spec.name, spec.output.labels
        ('comfort', ['poor', 'good'])
    """
    return _loaded(Path(path), f"the keys {', '.join(KEYS)}", lambda data: MLPSpec(**data))


def load_port_specs(path: str | Path) -> dict[str, PortSpec]:
    """What a ``.yaml``, ``.yml``, ``.json`` or ``.toml`` file says of inputs and outputs, by their names.

    Raises SpecError, as ``load_spec``.

    Examples:
        >>> from pathlib import Path
        >>> from builder import load_port_specs
        >>> written = Path("describe.yaml").write_text("air: {features: [temperature, humidity], range: [0, 100]}")
        >>> load_port_specs("describe.yaml")["air"].range
        [0.0, 100.0]
    """
    return _loaded(Path(path), "the names of inputs and outputs as keys", port_specs)


def _loaded(path: Path, expected: str, read: Callable[[dict[str, Any]], T]) -> T:
    lines: Lines = {}
    try:
        data, lines = _read(path, expected)
        return read(data)
    except SpecError as error:
        problems = [replace(problem, line=problem.line or _line_of(problem.path, lines)) for problem in error.problems]
        raise SpecError(problems, str(path)) from None


def _error(message: str, path: KeyPath = (), line: int | None = None) -> SpecError:
    return SpecError([Problem(path, message, line)])


def _line_of(path: KeyPath, lines: Lines) -> int | None:
    """The line of the key at ``path``, or of the closest parent that has one."""
    return next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), None)


def _read(path: Path, expected: str) -> tuple[dict[str, Any], Lines]:
    if path.suffix.lower() not in _FORMATS:
        raise _error(f"a spec's file name ends in {', '.join(_FORMATS)}, not in '{path.suffix}'")
    name, parse = _FORMATS[path.suffix.lower()]
    try:
        data, lines = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _error(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _error(f"is not UTF-8 text: {error.reason}") from None
    except SpecError:
        raise
    except json.JSONDecodeError as error:
        raise _error(f"not JSON: {error.msg}", line=error.lineno) from None
    except ValueError as error:  # TOML's error, or an integer of thousands of digits
        raise _error(f"not {name}: {error}") from None
    except RecursionError:
        hint = ", or an alias inside its own anchor" if name == "YAML" else ""
        raise _error(f"nested too deeply{hint}") from None
    if is_dict(data):
        return data, lines
    kinds: dict[type[object], str] = {list: "a list", str: "a string", type(None): "nothing"}
    found = kinds.get(type(cast(object, data)), f"{data!r}")
    raise _error(f"expected a mapping with {expected}; found {found}")


def _parsed_json(text: str) -> tuple[Any, Lines]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(pairs)
        if len(data) < len(pairs):
            (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise _error(f"duplicate key '{key}' in one object")
        return data

    def refuse(constant: str) -> Any:
        raise _error(f"{constant} is not a JSON number")

    return json.loads(text, object_pairs_hook=without_duplicates, parse_constant=refuse), {}


def _parsed_toml(text: str) -> tuple[Any, Lines]:
    return tomllib.loads(text), {}


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(text[2:], base) if base else int(text)


_SCALARS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "null": (r"~|null|Null|NULL|", lambda _: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _integer),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        lambda text: float(re.sub(r"\.(?=[inIN])", "", text)),
    ),
}


class _Core(yaml.SafeLoader):
    """PyYAML's syntax with the scalars of the YAML 1.2 core schema."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it; None stands for any first character
        None: [(f"tag:yaml.org,2002:{name}", re.compile(f"^(?:{pattern})$")) for name, (pattern, _) in _SCALARS.items()]
    }


def yaml_nodes(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> yaml.Node | None:
    """The nodes of a YAML text, of which nothing is constructed; ``None`` for a text without any.

    Raises SpecError: not YAML, with the line where that is known.
    """
    try:
        root: yaml.Node | None = loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _error(f"not YAML: {error.problem or error.context}", line=line) from None
    except yaml.YAMLError as error:
        raise _error(f"not YAML: {error}") from None
    return root


def _parsed_yaml(text: str) -> tuple[Any, Lines]:
    root = yaml_nodes(text, _Core)
    lines: Lines = {}
    return None if root is None else _build(root, (), lines), lines


def _build(node: yaml.Node, path: KeyPath, lines: Lines) -> Any:
    """The data of a node. Records the line of every key and item in ``lines``; limits the size of expanded aliases."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(lines) > _MAX_NODES:
        raise _error(f"more than {_MAX_NODES:,} values, with every alias expanded", path, line)
    name = node.tag.removeprefix("tag:yaml.org,2002:")
    if name not in (("str", *_SCALARS) if isinstance(node, yaml.ScalarNode) else ("map", "seq")):
        raise _error(f"the tag {node.tag} is not allowed in a spec", path, line)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        data: dict[str, Any] = {}
        for key_node, value in node.value:
            key = _build(key_node, path, lines)
            key_line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise _error(f"a key is a string, not {key!r}", path, key_line)
            if key in data:
                raise _error("duplicate key", (*path, key), key_line)
            lines[(*path, key)] = key_line
            data[key] = _build(value, (*path, key), lines)
        return data
    if name == "str":
        return node.value
    pattern, convert = _SCALARS[name]
    if not re.fullmatch(pattern, node.value):
        raise _error(f"'{node.value}' is tagged as {name}, but is not a valid {name}", path, line)
    try:
        return convert(node.value)
    except ValueError as error:  # an integer of thousands of digits
        raise _error(str(error), path, line) from None


_YAML = ("YAML", _parsed_yaml)
_FORMATS = {".yaml": _YAML, ".yml": _YAML, ".json": ("JSON", _parsed_json), ".toml": ("TOML", _parsed_toml)}


def as_yaml(spec: MLPSpec) -> str:
    """The text of a ``spec.yaml`` that reads back as ``spec``; options with their default values are left out."""
    record: dict[str, Any] = {"format": spec.format, **spec.model_dump(exclude_defaults=True)}
    for part in (record, record.get("input", {}), *record.get("inputs", ())):
        if "blocks" in part:
            part["blocks"] = [_short_form(block) for block in part["blocks"]]
    record |= {name: _port(record[name]) for name in ("input", "output") if name in record}
    record |= {"inputs": [_port(port) for port in record["inputs"]]} if "inputs" in record else {}
    return yaml.dump(record, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def _short_form(block: str | dict[str, dict[str, Any]]) -> Any:
    """A name, a name with a bare value, or a name with options."""
    if isinstance(block, str):
        return block
    ((kind, options),) = block.items()
    short = BLOCKS[kind].short
    if kind == "residual":
        return {kind: [_short_form(inner) for inner in options["blocks"]]}
    if isinstance(short, tuple) and options.keys() == set(short) and not any(map(is_list, options.values())):
        return {kind: _InlineList(options[name] for name in short)}
    if isinstance(short, str) and list(options) == [short]:
        return {kind: _InlineList(options[short]) if is_list(options[short]) else options[short]}
    return {kind: _InlineMapping(options)}


def _port(options: dict[str, Any]) -> dict[str, Any]:
    """An input or output; features that are mappings get a line each."""
    for key, value in options.items():
        if is_list(value) and key != "blocks":
            items = [_InlineMapping(item) if is_dict(item) else item for item in value]
            options[key] = items if any(map(is_dict, items)) else _InlineList(items)
    return options


class _InlineList(list[Any]):
    pass


class _InlineMapping(dict[str, Any]):
    pass


class _Dumper(yaml.SafeDumper):
    """Quotes strings and writes floats so that YAML 1.1 and 1.2 readers agree; PyYAML alone writes YAML 1.1."""

    def scalar(self, tag: str, text: str, style: str | None = None) -> yaml.Node:
        node = self.represent_str(text)
        node.tag, node.style = tag, style
        return node

    def number(self, value: float) -> yaml.Node:
        text = repr(value)
        text = text.replace("e", ".0e") if "e" in text and "." not in text else text
        return self.scalar("tag:yaml.org,2002:float", text)

    def text(self, value: str) -> yaml.Node:
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value) is not None
        return self.scalar("tag:yaml.org,2002:str", value, None if plain else '"')

    def inline_list(self, value: list[Any]) -> yaml.Node:
        return self.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)

    def inline_mapping(self, value: dict[str, Any]) -> yaml.Node:
        return self.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)


_Dumper.add_representer(float, _Dumper.number)
_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_representer(_InlineList, _Dumper.inline_list)
_Dumper.add_representer(_InlineMapping, _Dumper.inline_mapping)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of format 1, with every block under its names.

    Examples:
        >>> from mlpx import json_schema
        >>> json_schema()["required"]
        ['name', 'blocks']
    """
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= MLPSpec.model_json_schema()
    schema["properties"]["output"].pop("default", None)
    properties: dict[str, Any] = {}
    for key, value in schema["properties"].items():
        properties |= {"input": {"$ref": "#/$defs/InputSpec"}, key: value} if key == "inputs" else {key: value}
    one_of = [{"required": ["input"]}, {"required": ["inputs"]}]
    schema |= {"properties": properties, "required": ["name", "blocks"], "oneOf": one_of}
    ports = {key: schema["$defs"][key] for key in ("InputSpec", "OutputSpec", "FeatureSpec")}
    for described in (schema, *ports.values()):  # docstrings, whose examples say nothing of YAML
        described["description"] = described["description"].partition("\n\nExamples:")[0]
    options = {block.__name__: block.model_json_schema() for block in BLOCKS.values()}
    for chain in (schema["properties"]["blocks"], options["Residual"]["properties"]["blocks"]):
        chain["items"] = {"$ref": "#/$defs/Block"}
    ports["InputSpec"]["properties"]["blocks"]["anyOf"][0]["items"] = {"$ref": "#/$defs/Block"}
    forms = [form for block in BLOCKS.values() for form in _forms(block, options[block.__name__])]
    return schema | {"$defs": {**ports, **options, "Block": {"anyOf": forms}}}


def _forms(block: type[Block], options: dict[str, Any]) -> list[dict[str, Any]]:
    """The written forms of a block: its bare name, its name with a value, its name with options."""
    value: list[dict[str, Any]] = [{"$ref": f"#/$defs/{block.__name__}"}]
    if isinstance(block.short, tuple):
        count, items = len(block.short), {"type": "number"}
        value.append({"type": "array", "items": items, "minItems": count, "maxItems": count})
    elif block.short is not None:
        value.append({k: v for k, v in options["properties"][block.short].items() if k != "default"})
    names = sorted({block.kind, block.torch_name})
    form = {"type": "object", "description": block.__doc__, "properties": {name: {"anyOf": value} for name in names}}
    forms: list[dict[str, Any]] = [form | {"minProperties": 1, "maxProperties": 1, "additionalProperties": False}]
    if not options.get("required"):
        forms.append({"enum": names, "description": block.__doc__})
    return forms
