"""A spec from a YAML, JSON or TOML file.

YAML is read by the rules of YAML 1.2 (core schema): ``1e-3`` is a number, ``no`` is a word, ``010`` is ten. A key that
stands twice is an error in all three formats.
"""

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import Path as KeyPath
from .errors import Problem, SpecError
from .spec import MLPSpec

_MOST_NODES = 1_000_000


@dataclass
class _Document:
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """The line of the key at ``path``, or of the nearest thing around it."""
        return next((self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines), None)


def load_spec(path: str | Path) -> MLPSpec:
    """The spec in a ``.yaml``, ``.yml``, ``.json`` or ``.toml`` file.

    Raises SpecError: the file cannot be read, is not of its format, or does not describe a network; each problem with
    its line (YAML) or its key's path (JSON, TOML).
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        message = f"a spec's name ends in {', '.join(_READERS)}, not in '{path.suffix}'"
        raise SpecError([Problem((), message)], str(path))
    try:
        document = read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError([Problem((), f"cannot be read: {error.strerror}")], str(path)) from None
    except UnicodeDecodeError as error:
        raise SpecError([Problem((), f"is not UTF-8 text: {error.reason}")], str(path)) from None
    except SpecError as error:
        raise SpecError(error.problems, str(path)) from None
    if not isinstance(document.data, dict):
        message = f"expected a mapping with the keys {', '.join(MLPSpec.model_fields)}; found {_kind(document.data)}"
        raise SpecError([Problem((), message)], str(path))
    try:
        return MLPSpec(**document.data)
    except SpecError as error:
        placed = [Problem(p.path, p.message, document.line(p.path)) for p in error.problems]
        raise SpecError(placed, str(path)) from None


def _kind(data: Any) -> str:
    return {list: "a list", str: "a text", type(None): "nothing"}.get(type(data), f"{data!r}")


def _read_json(text: str) -> _Document:
    def once(pairs: list[tuple[str, Any]]) -> dict:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise SpecError([Problem((), f"the key '{key}' stands twice in one object")])
        return dict(pairs)

    def refuse(constant: str) -> Any:
        raise SpecError([Problem((), f"{constant} is not a number that JSON has")])

    try:
        return _Document(json.loads(text, object_pairs_hook=once, parse_constant=refuse))
    except json.JSONDecodeError as error:
        raise SpecError([Problem((), f"not JSON: {error.msg}", error.lineno)]) from None
    except SpecError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise SpecError([Problem((), f"not JSON: {error}")]) from None
    except RecursionError:
        raise SpecError([Problem((), "nested too deeply")]) from None


def _read_toml(text: str) -> _Document:
    try:
        return _Document(tomllib.loads(text))
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        raise SpecError([Problem((), f"not TOML: {error}")]) from None
    except RecursionError:
        raise SpecError([Problem((), "nested too deeply")]) from None


class _Core(yaml.SafeLoader):
    """The syntax of YAML with the scalars of the 1.2 core schema."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML declares it so


_SCALARS = {
    "null": (r"~|null|Null|NULL|", [*"~nN", ""], lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF"), lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789"), lambda text: _integer(text)),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
        lambda text: float(re.sub(r"\.(?=[inIN])", "", text)),
    ),
}
for _name, (_pattern, _first, _) in _SCALARS.items():
    _Core.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(text[2:], base) if base else int(text)


def _read_yaml(text: str) -> _Document:
    try:
        root = yaml.compose(text, Loader=_Core)
        document = _Document(None)
        if root is not None:
            document.data = _build(root, (), document.lines, [])
        return document
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise SpecError([Problem((), f"not YAML: {error.problem or error.context}", line)]) from None
    except yaml.YAMLError as error:
        raise SpecError([Problem((), f"not YAML: {error}")]) from None
    except RecursionError:
        raise SpecError([Problem((), "nested too deeply, or an alias inside its own anchor")]) from None


def _build(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], seen: list[None]) -> Any:
    """The data of a node; notes the line of every key and item, and stops where aliases multiply without end."""
    seen.append(None)
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(seen) > _MOST_NODES:
        raise SpecError([Problem(path, f"more than {_MOST_NODES:,} values, aliases counted each time", line)])
    name = node.tag.removeprefix("tag:yaml.org,2002:")
    if not isinstance(node, yaml.ScalarNode) and name not in ("map", "seq"):
        raise SpecError([Problem(path, f"the tag {node.tag} has no meaning in a spec", line)])
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), lines, seen) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        data = {}
        for key_node, value in node.value:
            key = _build(key_node, path, lines, seen)
            key_line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise SpecError([Problem(path, f"a key is a word, not {key!r}", key_line)])
            if key in data:
                raise SpecError([Problem((*path, key), "this key stands twice", key_line)])
            lines[(*path, key)] = key_line
            data[key] = _build(value, (*path, key), lines, seen)
        return data
    if name == "str":
        return node.value
    if name not in _SCALARS:
        raise SpecError([Problem(path, f"the tag {node.tag} has no meaning in a spec", line)])
    pattern, _, convert = _SCALARS[name]
    if not re.fullmatch(pattern, node.value):
        raise SpecError([Problem(path, f"'{node.value}' is tagged as {name}, which it is not", line)])
    try:
        return convert(node.value)
    except ValueError as error:  # an integer of thousands of digits
        raise SpecError([Problem(path, str(error), line)]) from None


_READERS = {".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_json, ".toml": _read_toml}
