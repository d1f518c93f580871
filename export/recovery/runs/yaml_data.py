"""YAML files of training frameworks, read as data: nothing that a tag names is imported, built or called.

Frameworks write them with PyYAML, so scalars follow its rules, those of YAML 1.1. A Python tag stays beside the value
that it tags: ``!!python/tuple`` and ``!!python/object/apply:builtins.slice`` are lists, ``!!python/object:Class`` is a
mapping, ``!!python/name:package.function ''`` is the text ``package.function``.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from builder.documents import yaml_nodes
from builder.errors import KeyPath, RecoveryError, SpecError, format_path
from builder.values import is_dict, is_list

from .facts import Fact

_MOST_BYTES, _MOST_VALUES = 1 << 24, 300_000
"""An environment with all its terms has about 2,000 values."""
_STANDARD = "tag:yaml.org,2002:"
_NAME = f"{_STANDARD}python/name:"
_PLAIN = {
    f"{_STANDARD}python/{tag}": "null" if tag == "none" else tag.replace("long", "int")
    for tag in ("bool", "int", "long", "float", "none")
}
"""Python's tags of plain scalars, and YAML's names for these."""
_CONVERTER = yaml.constructor.SafeConstructor()
_SCALARS: dict[str, Callable[[yaml.ScalarNode], Any]] = {
    "null": lambda _: None,
    "bool": _CONVERTER.construct_yaml_bool,
    "int": _CONVERTER.construct_yaml_int,
    "float": _CONVERTER.construct_yaml_float,
}
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
"""As in YAML 1.2; ``1e-3`` is a text in YAML 1.1."""
_NUMPY = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}
"""Types of NumPy scalars, and how their bytes are read."""


@dataclass(frozen=True)
class Entry:
    """A value of a YAML file, and its place there."""

    value: Any
    """None, a bool, a number or a text; a list of entries; entries by key."""
    file: str
    """As it is shown: relative to the run's folder."""
    line: int
    path: KeyPath = ()
    tag: str = ""
    """A tag that is none of YAML's own, such as ``python/tuple``."""

    @property
    def place(self) -> str:
        """``params/agent.yaml line 41``."""
        return f"{self.file} line {self.line}"

    def error(self, message: str, hint: str = "") -> RecoveryError:
        """The error that the value at this place causes."""
        key = f", {format_path(self.path)}" if self.path else ""
        return RecoveryError(f"{self.place}{key}: {message}{f'. What to do: {hint}' if hint else ''}")

    def fact(self, value: Any) -> Fact[Any]:
        """A fact that this value gives."""
        return Fact(value, self.place)

    def _expected(self, what: str) -> RecoveryError:
        found = "a mapping" if is_dict(self.value) else "a list" if is_list(self.value) else repr(self.value)
        return self.error(f"expected {what}, found {'nothing' if self.value is None else found}")

    def mapping(self) -> dict[str, Entry]:
        """The values by key. Raises RecoveryError: not a mapping."""
        if not is_dict(self.value):
            raise self._expected("a mapping")
        return self.value

    def items(self) -> list[Entry]:
        """The values of a list. Raises RecoveryError: not a list."""
        if not is_list(self.value):
            raise self._expected("a list")
        return self.value

    def get(self, *keys: str) -> Entry | None:
        """The value under nested keys; None where a key is missing or null. Raises RecoveryError: not a mapping."""
        entry: Entry | None = self
        for key in keys:
            entry = entry.mapping().get(key) if entry is not None else None
            entry = entry if entry is not None and entry.value is not None else None
        return entry

    def need(self, *keys: str) -> Entry:
        """As ``get``. Raises RecoveryError: missing or null."""
        entry = self.get(*keys)
        if entry is None:
            raise self.error(f"the key {'.'.join(keys)} is missing or null")
        return entry

    def text(self) -> str:
        """Raises RecoveryError: not a text."""
        if not isinstance(self.value, str):
            raise self._expected("a text")
        return self.value

    def flag(self) -> bool:
        """Raises RecoveryError: neither true nor false."""
        if not isinstance(self.value, bool):
            raise self._expected("true or false")
        return self.value

    @property
    def _numpy(self) -> float | int | None:
        """The value of a NumPy scalar, which PyYAML dumps as its type and its bytes; None for anything else."""
        if not self.tag.endswith("multiarray.scalar") or not is_list(self.value) or len(self.value) != 2:
            return None
        kind, data = plain(self.value[0]), self.value[1].value
        letters = kind.get("args") if is_dict(kind) else None
        form = _NUMPY.get(str(letters[0]) if is_list(letters) and letters else "")
        try:
            return None if form is None else struct.unpack(form, base64.b64decode(data))[0]
        except (struct.error, ValueError, TypeError):
            return None

    @property
    def is_number(self) -> bool:
        """Whether ``number`` gives one."""
        is_text = isinstance(self.value, str) and _NUMBER.fullmatch(self.value) is not None
        return type(self.value) in (int, float) or is_text or self._numpy is not None

    def number(self) -> float:
        """A number, also one that YAML 1.1 takes for a text (``1e-3``). Raises RecoveryError."""
        if not self.is_number:
            raise self._expected("a number")
        number = self._numpy
        return float(self.value if number is None else number)

    def integer(self) -> int:
        """Raises RecoveryError: not a whole number."""
        if type(self.value) is not int:
            raise self._expected("a whole number")
        return self.value

    def numbers(self) -> list[float]:
        """A list of numbers. Raises RecoveryError."""
        return [item.number() for item in self.items()]


def read_yaml(path: Path, shown: str | None = None) -> Entry:
    """The values of a YAML file, whose root is a mapping. ``shown`` is how messages call the file.

    Raises RecoveryError, with the line: cannot be read, not YAML, a duplicate key, no mapping, too many values.
    """
    shown = shown or path.name
    hint = "it may be incomplete; copy it from the training machine again"
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise RecoveryError(f"{shown}: {size:,} bytes, and at most {_MOST_BYTES:,} are read")
        root = yaml_nodes(path.read_text(encoding="utf-8"))
        entry = _Reader(shown).entry(root, (), 1) if root is not None else None
    except OSError as error:
        raise RecoveryError(f"{shown}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise RecoveryError(f"{shown}: is not UTF-8 text: {error.reason}. What to do: {hint}") from None
    except SpecError as error:
        problem = error.problems[0]
        line = "" if problem.line is None else f" line {problem.line}"
        raise RecoveryError(f"{shown}{line}: {problem.message}. What to do: {hint}") from None
    except RecursionError:
        raise RecoveryError(f"{shown}: nested too deeply, or an alias inside its own anchor") from None
    if entry is None:
        raise RecoveryError(f"{shown}: expected a mapping, and the file is empty. What to do: {hint}")
    entry.mapping()
    return entry


class _Reader:
    """Makes entries of the nodes of a file, and counts them with every alias expanded."""

    def __init__(self, file: str):
        self.file = file
        self.count = 0

    def entry(self, node: yaml.Node, path: KeyPath, line: int) -> Entry:
        self.count += 1
        tag = "" if node.tag in (f"{_STANDARD}map", f"{_STANDARD}seq") else node.tag.removeprefix(_STANDARD)
        entry = Entry(None, self.file, line, path, tag)
        if self.count > _MOST_VALUES:
            raise entry.error(f"more than {_MOST_VALUES:,} values, with every alias expanded")
        if isinstance(node, yaml.SequenceNode):
            items = [self.entry(item, (*path, at), item.start_mark.line + 1) for at, item in enumerate(node.value)]
            return Entry(items, self.file, line, path, tag)
        if isinstance(node, yaml.MappingNode):
            return Entry(self._mapping(node, path), self.file, line, path, tag)
        return self._scalar(node, entry)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Entry]:
        data: dict[str, Entry] = {}
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            place = Entry(None, self.file, line, path)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == f"{_STANDARD}merge":
                what = "a merge (<<)" if isinstance(key_node, yaml.ScalarNode) else "a list or a mapping"
                raise place.error(f"a key is a text or a number, not {what}")
            if key in data:
                raise place.error(f"duplicate key '{key}', also in line {data[key].line}")
            data[key] = self.entry(value, (*path, key), line)
        return data

    def _scalar(self, node: yaml.Node, entry: Entry) -> Entry:
        if node.tag.startswith(_NAME):
            return Entry(node.tag.removeprefix(_NAME), self.file, entry.line, entry.path, "python/name")
        name = _PLAIN.get(node.tag, node.tag.removeprefix(_STANDARD))
        convert = _SCALARS.get(name)
        if convert is None or not isinstance(node, yaml.ScalarNode):
            tag = "" if name in ("str", "timestamp", "value", "merge") else entry.tag
            return Entry(node.value, self.file, entry.line, entry.path, tag)
        try:
            return Entry(convert(node), self.file, entry.line, entry.path)
        except (ValueError, KeyError, IndexError, OverflowError):
            raise entry.error(f"'{node.value}' is tagged as {name}, but is not a valid {name}") from None


def plain(entry: Entry) -> Any:
    """The value without places: numbers, texts, lists and dicts."""
    if is_list(entry.value):
        return [plain(item) for item in entry.value]
    if is_dict(entry.value):
        items: Mapping[str, Entry] = entry.value
        return {key: plain(item) for key, item in items.items()}
    return entry.value
