"""Reads inputs and the answers to them that were saved on another machine: a ``.npz`` or a ``.csv`` file."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from runtime.data.arrays import to_int64
from runtime.data.columns import match_columns
from runtime.errors import InputError
from runtime.model.port import Port

_INPUTS = ("observations", "observation", "obs", "inputs", "input", "x")
_OUTPUTS = ("actions", "action", "outputs", "output", "y", "mu", "mean_actions")
"""What arrays are called where a network has one input, or one output, of another name."""
_NUMBER = re.compile(r"[+-]?\d*\.?(\d*)(?:[eE]([+-]?\d+))?")
_HINT = "What to do: save the inputs and the answers under the names of the file's inputs and outputs"


@dataclass(frozen=True)
class Saved:
    """Inputs as the file takes them, and the answers, float64 (rows, values), by the file's names."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    slack: Mapping[str, np.ndarray]
    """How far an answer may be from what was computed, since it was written with fewer digits: (rows, values)."""
    in_float64: frozenset[str]
    """The outputs whose values float32 does not hold: they were computed in float64."""
    notes: tuple[str, ...]
    is_table: bool

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.outputs.values())))


def read_saved(path: str | Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> Saved:
    """The inputs and answers of a file, for a model with these inputs and outputs.

    A ``.npz`` file holds an array for each, by name; one that has a single input may call it ``observations``, ``obs``
    or ``input``, and a single output ``actions``, ``action`` or ``output``. A row alone, and batches of several
    dimensions, are taken too. A ``.csv`` file has a column for each feature, by name, or ``NAME_0`` and so on where
    the features of NAME have none. Where an input and an output share the name of a feature, its columns are
    ``INPUT.NAME`` and ``OUTPUT.NAME``, or the first column of that name is the input's.

    Raises InputError: it cannot be read, an array or a column is missing, or has another shape.
    """
    path = Path(path)
    readers = {".npz": _arrays, ".csv": _table}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: expected a .npz or .csv file of inputs and answers. {_HINT}")
    if not path.is_file():
        raise InputError(f"{path}: no such file. What to do: name the .npz or .csv that was saved when training")
    try:
        found, slack = readers[path.suffix.lower()](path, inputs, outputs)
        return _saved(found, slack, inputs, outputs, path.suffix.lower() == ".csv")
    except InputError as error:
        raise InputError(f"{path}: {error}" + ("" if "What to do" in str(error) else f". {_HINT}")) from None
    except (OSError, ValueError, EOFError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}. {_HINT}") from None
    except Exception as error:  # zipfile and zlib raise whatever their parsers raise
        raise InputError(f"{path}: not a whole archive of arrays: {error}. {_HINT}") from None


Found = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def _arrays(path: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> Found:
    found: dict[str, np.ndarray] = {}
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        held = list(archive.files)
        for kind, ports, other in (("input", inputs, _INPUTS), ("output", outputs, _OUTPUTS)):
            for port in ports:
                names = (port.name, *(other if len(ports) == 1 else ()))
                name = next((name for name in names if name in held), None)
                if name is None:
                    called = f"'{port.name}'" + (f" (or {', '.join(other)})" if len(ports) == 1 else "")
                    listed = ", ".join(held) or "nothing"
                    raise InputError(f"it holds {listed}; the array of the {kind} is called {called}. {_HINT}")
                found[f"{kind} {port.name}"] = _in_rows(np.asarray(archive[name]), port, name)
    slack = {
        key: np.spacing(np.abs(values)).astype(np.float64) / 2
        for key, values in found.items()
        if values.dtype == np.float16
    }
    return found, slack


def _in_rows(array: np.ndarray, port: Port, name: str) -> np.ndarray:
    """(rows, *row): a row alone, a batch, or a batch of several dimensions."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"the array '{name}' is of {array.dtype}, not of numbers. {_HINT}")
    sizes = [size if isinstance(size, int) else None for size in port.shape[1:]]
    row = array.shape[array.ndim - len(sizes) :]
    if array.ndim < len(sizes) or any(a not in (b, None) for a, b in zip(sizes, row, strict=True)):
        expected = ", ".join(["rows", *map(str, port.shape[1:])])
        raise InputError(f"the array '{name}' has the shape {list(array.shape)}, and ({expected}) is expected. {_HINT}")
    return array.reshape(-1, *row)


def _table(path: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> Found:
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if len(lines) < 2:
        raise InputError(f"expected a line of names and lines of numbers, and it has {len(lines)} lines. {_HINT}")
    for number, line in enumerate(lines, 1):
        if len(line) != len(lines[0]):
            raise InputError(f"line {number} has {len(line)} values, and the header has {len(lines[0])} names")
    ports, headers = _qualified([*inputs, *outputs], [header.strip() for header in lines[0]])
    match = match_columns(headers, ports)
    found: dict[str, np.ndarray] = {}
    slack: dict[str, np.ndarray] = {}
    indices = list(match.indices)
    for place, port in enumerate([*inputs, *outputs]):
        width = prod(size for size in port.shape[1:] if isinstance(size, int))
        own, indices = indices[:width], indices[width:]
        texts = [[line[index].strip() for index in own] for line in lines[1:]]
        key = f"{'input' if place < len(inputs) else 'output'} {port.name}"
        shape = [size for size in port.shape[1:] if isinstance(size, int)]
        found[key] = np.array([[_number(text, at, own, lines) for at, text in enumerate(row)] for row in texts])
        found[key] = found[key].reshape(-1, *shape)
        last = [min(map(_last_digit, column)) for column in zip(*texts, strict=True)]
        slack[key] = np.broadcast_to(np.array(last) / 2, (len(texts), width))
    return found, slack


def _number(text: str, place: int, own: Sequence[int], lines: Sequence[Sequence[str]]) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"column '{lines[0][own[place]]}': '{text}' is not a number") from None


def _last_digit(text: str) -> float:
    """What one unit of the last digit is: 0.001 for 1.250; 0 for what is no decimal."""
    found = _NUMBER.fullmatch(text)
    return 0.0 if found is None else 10.0 ** (int(found[2] or 0) - len(found[1]))


def _qualified(ports: list[Port], headers: list[str]) -> tuple[list[Port], list[str]]:
    """Names for which ``match_columns`` finds the column of every feature of inputs and outputs.

    A name that an input and an output share becomes ``PORT.NAME``.
    """
    named: list[tuple[Port, list[str]]] = []
    for port in ports:
        width = prod(size for size in port.shape[1:] if isinstance(size, int))
        numbered = [port.name] if width == 1 else [f"{port.name}_{index}" for index in range(width)]
        named.append((port, list(port.features or numbered)))
    all_names = [name for _, names in named for name in names]
    shared = {name for name in all_names if all_names.count(name) > 1}
    owners = {name: [port.name for port, names in named if name in names] for name in shared}
    seen: dict[str, int] = {}
    given, headers = headers, list(headers)
    for index, header in enumerate(given):
        port, _, name = header.partition(".")
        if header in shared and given.count(header) == len(owners[header]):
            headers[index] = f"{owners[header][seen.get(header, 0)]}.{header}"
            seen[header] = seen.get(header, 0) + 1
        elif name in all_names and name not in shared and port in {each.name for each in ports}:
            headers[index] = name
    qualified = [
        replace(
            port,
            features=tuple(f"{port.name}.{name}" if name in shared else name for name in names),
            shape=("batch", len(names)),
        )
        for port, names in named
    ]
    _refuse_ambiguous(headers, shared, owners)
    return qualified, headers


def _refuse_ambiguous(headers: Sequence[str], shared: set[str], owners: Mapping[str, Sequence[str]]) -> None:
    for name in sorted(shared & set(headers)):
        both = " and ".join(f"'{owner}.{name}'" for owner in owners[name])
        raise InputError(f"'{name}' is a feature of an input and of an output. What to do: name the columns {both}")


def _saved(
    found: Mapping[str, np.ndarray],
    slack: Mapping[str, np.ndarray],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    is_table: bool,
) -> Saved:
    counts = {key.partition(" ")[2]: len(values) for key, values in found.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise InputError(f"the arrays have different numbers of rows: {listed}. {_HINT}")
    if not next(iter(counts.values())):
        raise InputError(f"it has no rows. {_HINT}")
    notes: list[str] = []
    taken: dict[str, np.ndarray] = {}
    for port in inputs:
        values = found[f"input {port.name}"]
        taken[port.name], note = _as_input(values, port)
        notes += [note] if note is not None and not is_table else []
    answers: dict[str, np.ndarray] = {}
    widths: dict[str, np.ndarray] = {}
    double: set[str] = set()
    for port in outputs:
        key = f"output {port.name}"
        values = found[key].reshape(counts[port.name], -1)
        answers[port.name] = values.astype(np.float64)
        widths[port.name] = slack.get(key, np.zeros(values.shape)).reshape(values.shape)
        with np.errstate(over="ignore"):
            held = np.array_equal(values.astype(np.float32), values, equal_nan=True)
        if values.dtype == np.float64 and not is_table and not held:
            double.add(port.name)
    return Saved(taken, answers, widths, frozenset(double), tuple(notes), is_table)


def _as_input(values: np.ndarray, port: Port) -> tuple[np.ndarray, str | None]:
    """The values in the input's type, and what is to be said of it."""
    if port.dtype == "int64":
        numbers, wrong = to_int64(values)
        if wrong is not None and wrong.any():
            raise InputError(f"the input '{port.name}' takes whole numbers, and some are not. {_HINT}")
        return numbers, None
    with np.errstate(over="ignore"):
        rounded: np.ndarray[Any, Any] = values.astype(np.float32)
    if np.array_equal(rounded, values, equal_nan=True):
        return rounded, None
    count = f"{int((rounded != values).sum()):,} of {values.size:,} values"
    return rounded, f"{count} of the input '{port.name}' are not float32 numbers, and were rounded to float32"
