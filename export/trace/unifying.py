"""Two records of one forward, at two batch sizes: what differs between them grows with the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from export.errors import ExportError, UnsupportedError
from export.evaluation import schema
from export.graph import Graph, Input, Node, Rows, Shape, Size, Tensor, batch_axis, rewired, row_of, unique
from export.operators import OPERATORS

from .recorder import Constant, Record, Recorded
from .refusals import told

SIZES = (3, 5)
"""Batch sizes that the module is run at."""
_HINT = "What to do: take the number of rows out of what is computed"


def unified(
    first: Record, second: Record, inputs: Mapping[str, Input], outputs: Mapping[str, str], again: Mapping[str, str]
) -> Graph:
    """One graph of both. Raises UnsupportedError: operators that no file has. Raises ExportError: sizes or constants
    that depend on the batch in another way than as its multiples.
    """
    records = [_read(first, set(outputs.values())), _read(second, set(again.values()))]
    refused = [node.refusal for node in records[0] if node.refusal is not None]
    refused += [refusal for refusal in first.refusals if refusal.kind in ("buffer", "data", "out")]
    if refused:
        raise UnsupportedError(told(refused))
    if _calls(records[0], outputs) != _calls(records[1], again):
        raise ExportError(f"the forward calls other operators for another number of rows. {_HINT}")
    names = {node.output for node in first.nodes} | set(inputs)
    nodes: list[Node] = []
    for one, other in zip(*records, strict=True):
        nodes += _node(one, other, names)
    unread = {node.output for node in first.nodes} - {node.output for node in records[0]}
    left_out = [node for node in first.nodes if node.output in unread and any(t.own for t in node.tensors.values())]
    notes = tuple(f"{node.op} '{node.path}' left out: no output depends on it" for node in left_out)
    graph = Graph(inputs, tuple(nodes), outputs, notes, inactive=tuple(dict.fromkeys(first.inactive)))
    graph = _by_home(graph)
    _refuse(graph)
    return graph


def _calls(nodes: list[Recorded], outputs: Mapping[str, str]) -> list[object]:
    """What is called, on which values, and which of them are returned."""
    return [*((node.op, node.inputs, node.output, *node.tensors) for node in nodes), list(outputs.values())]


def _read(record: Record, needed: set[str]) -> list[Recorded]:
    """The nodes that an output depends on."""
    kept = []
    for node in reversed(record.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _node(one: Recorded, other: Recorded, names: set[str]) -> list[Node]:
    shape = tuple(_size(a, b, one) for a, b in zip(one.shape, other.shape, strict=True))
    attributes = {key: _attribute(value, other.attributes[key], one) for key, value in one.attributes.items()}
    before: list[Node] = []
    tensors: dict[str, Tensor] = {}
    inputs = list(one.inputs)
    for role, constant in one.tensors.items():
        tensor, wide = _tensor(constant, other.tensors[role], one)
        if wide is None or (one.op in _BROADCAST and one.inputs) or one.op == "expand":
            tensors[role] = tensor
            continue
        path = f"{one.path}.{role}"
        value = unique(f"{path}.output", names)
        made = {"size": wide, "implicit": False}
        kind = str(tensor.values.dtype)
        before.append(
            Node("expand", path, (), value, wide, made, {"self": tensor}, dtype=kind, home=path, line=one.line)
        )
        inputs.insert(_position(one, role, tensors), value)
    if "count" in attributes and one.attributes["count"] != other.attributes["count"]:
        raise ExportError(f"{one.op} at '{one.path}' is taken over the rows of the batch. {_HINT}")
    node = Node(
        one.op,
        one.path,
        tuple(inputs),
        one.output,
        shape,
        attributes,
        tensors,
        one.overload,
        one.dtype,
        one.home,
        one.block,
        one.line,
    )
    return [*before, node]


def _by_home(graph: Graph) -> Graph:
    """Blocks of several operators: each has the operator's name behind the block's, and the last gives its value."""
    counts = Counter(node.home for node in graph.nodes)
    last = {node.home: node.output for node in graph.nodes}
    paths = {node.path for node in graph.nodes if counts[node.home] == 1}
    names: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        path, output = node.path, node.output
        if counts[node.home] > 1:
            path = unique(f"{node.home}/{node.op}", paths)
            output = f"{node.home}.output" if last[node.home] == node.output else f"{path}.output"
        names[node.output] = output
        nodes.append(replace(rewired(node, names), path=path, output=output))
    return graph.with_nodes(nodes).renamed(names)


_BROADCAST = ("add", "sub", "mul", "div", "where", "maximum", "minimum", "pow", "gt", "lt", "ge", "le", "eq", "ne")


def _position(node: Recorded, role: str, tensors: Mapping[str, Tensor]) -> int:
    """Where among a node's inputs a value for an argument stands."""
    if "." in role:
        index = int(role.rpartition(".")[2])
        return index - sum(int(key.rpartition(".")[2]) < index for key in tensors)
    order = [name for name, *_ in schema(node.op, node.overload)[1]]
    given = [name for name in order if name not in node.tensors and name not in node.attributes]
    return sum(order.index(name) < order.index(role) for name in given[: len(node.inputs)])


def _size(a: int, b: int, node: Recorded) -> Size:
    if a == b:
        return a
    times, left = divmod(a, SIZES[0])
    if not left and times * SIZES[1] == b:
        return Rows(times)
    message = f"{node.op} at '{node.path}' has a size of {a} for {SIZES[0]} rows and of {b} for {SIZES[1]}"
    raise ExportError(f"{message}; in a file a size is fixed or grows with the batch. {_HINT}")


def _attribute(a: Any, b: Any, node: Recorded) -> Any:
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple(_attribute(x, y, node) for x, y in zip(a, b, strict=True))
    if type(a) is int and type(b) is int:
        return _size(a, b, node)
    if a == b or (isinstance(a, float) and isinstance(b, float) and a != a and b != b):
        return a
    message = f"{node.op} at '{node.path}' takes {a} for {SIZES[0]} rows and {b} for {SIZES[1]}"
    raise ExportError(f"{message}: the forward computes with the number of rows. {_HINT}")


def _tensor(one: Constant, other: Constant, node: Recorded) -> tuple[Tensor, Shape | None]:
    """A constant, and its shape where it is one row that is repeated for the whole batch."""
    values, again = _array(one.values, node), _array(other.values, node)
    if values.shape == again.shape:
        if values is not again and one.values is not other.values and not _same_bits(values, again):
            raise ExportError(f"'{one.name}' at '{node.path}' is another constant at every call: is it random?")
        return Tensor(one.name, values, not one.own), None
    if len(values.shape) == len(again.shape):
        shape = tuple(_size(a, b, node) for a, b in zip(values.shape, again.shape, strict=True))
        axis = batch_axis(shape)
        if axis is not None:
            row, other_row = (np.take(part, [0], axis) for part in (values, again))
            if _same_bits(np.broadcast_to(row, values.shape), values) and _same_bits(row, other_row):
                return Tensor(one.name, np.ascontiguousarray(row), True), shape
    message = f"{node.op} at '{node.path}' takes a constant that is another one for every row of the batch"
    raise ExportError(f"{message}, of shape {list(values.shape)} for {SIZES[0]} rows. {_HINT}")


def _array(tensor: torch.Tensor, node: Recorded) -> np.ndarray:
    """A constant as a file holds it: float32, int64 or bool."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.float32, torch.int64, torch.bool):
        return tensor.numpy()
    if tensor.is_floating_point() and (tensor.ndim == 0 or node.dtype != "float32"):
        return tensor.float().numpy()  # PyTorch takes it as a number
    if not tensor.is_floating_point() and not tensor.is_complex():
        return tensor.to(torch.int64).numpy()
    raise ExportError(f"{node.op} at '{node.path}' takes a constant of {tensor.dtype}; a file computes in float32")


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def _refuse(graph: Graph) -> None:
    """Raise UnsupportedError or ExportError for what has no place in a file, all at once."""
    found = []
    for node in graph.nodes:
        row = OPERATORS.get(node.op)
        reason = "no operator of a file does it" if row is None else row.refuse(node)
        if reason:
            found.append(f"{node.op} at '{node.path}'{f', {node.line}' if node.line else ''}: {reason}")
    if found:
        raise UnsupportedError("; ".join(found))
    for name, value in graph.outputs.items():
        shape = graph.shapes[value]
        if 0 in shape:
            raise ExportError(f"the output '{name}' has no values: its rows have shape {list(row_of(shape))}")
        if not shape or shape[0] != Rows() or any(isinstance(size, Rows) for size in shape[1:]):
            listed = ", ".join(map(str, shape))
            message = f"the output '{name}' has shape ({listed}), and a file gives a result for every row: (batch, ...)"
            raise ExportError(f"{message}. What to do: return a tensor whose first dimension is the batch")
