"""The records of two runs as one graph: sizes that differ as the batch does become sizes of the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
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


def merged(
    first: Record, second: Record, inputs: Mapping[str, Input], outputs: Mapping[str, str], again: Mapping[str, str]
) -> Graph:
    """One graph of both. Raises UnsupportedError: operators that no file has. Raises ExportError: sizes or constants
    that depend on the batch in another way than as its multiples.
    """
    (ones, unread), (others, _) = _read(first, outputs), _read(second, again)
    refused = [one.refusal for one in ones if one.refusal is not None]
    if refused:
        raise UnsupportedError(told(refused))
    if _calls(ones, outputs) != _calls(others, again):
        raise ExportError(f"the forward calls other operators for another number of rows. {_HINT}")
    names = {one.node.output for one in first.nodes} | set(inputs)
    nodes = [node for one, other in zip(ones, others, strict=True) for node in _nodes(one, other, names)]
    left_out = [one.node for one in unread if any(constant.own for constant in one.constants.values())]
    notes = tuple(f"{node.op} '{node.path}' left out: no output depends on it" for node in left_out)
    graph = Graph(inputs, tuple(nodes), outputs, notes, inactive=tuple(dict.fromkeys(first.inactive)))
    graph = _by_home(graph)
    _refuse_unwritable(graph)
    return graph


def _read(record: Record, outputs: Mapping[str, str]) -> tuple[list[Recorded], list[Recorded]]:
    """What an output depends on, and the rest."""
    graph = Graph({}, tuple(one.node for one in record.nodes), outputs).read()
    read = {node.output for node in graph.nodes}
    kept = [one for one in record.nodes if one.node.output in read]
    return kept, [one for one in record.nodes if one.node.output not in read]


def _calls(recorded: list[Recorded], outputs: Mapping[str, str]) -> list[object]:
    """What is called, on which values, and which of them are returned."""
    calls = [(one.node.op, one.node.inputs, one.node.output, *one.constants) for one in recorded]
    return [*calls, list(outputs.values())]


def _nodes(one: Recorded, other: Recorded, names: set[str]) -> Iterator[Node]:
    """The node of both, behind one for every constant that has to be as long as the batch."""
    node = one.node
    shape = _attribute(node.shape, other.node.shape, node)
    attributes = {key: _attribute(value, other.node.attributes[key], node) for key, value in node.attributes.items()}
    tensors: dict[str, Tensor] = {}
    inputs = list(node.inputs)
    for role, constant in one.constants.items():
        tensor, wide = _tensor(constant, other.constants[role], node)
        if wide is None or (node.op in _BROADCAST and node.inputs) or node.op == "expand":
            tensors[role] = tensor
            continue
        path = f"{node.path}.{role}"
        value = unique(f"{path}.output", names)
        size, kind = {"size": wide, "implicit": False}, str(tensor.values.dtype)
        yield Node("expand", path, (), value, wide, size, {"self": tensor}, dtype=kind, home=path, line=node.line)
        inputs.insert(_position(one, role, tensors), value)
    if "count" in attributes and node.attributes["count"] != other.node.attributes["count"]:
        raise ExportError(f"{node.op} at '{node.path}' is taken over the rows of the batch. {_HINT}")
    yield replace(node, inputs=tuple(inputs), shape=shape, attributes=attributes, tensors=tensors)


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


def _position(one: Recorded, role: str, tensors: Mapping[str, Tensor]) -> int:
    """Where among a node's inputs a value for an argument stands."""
    if "." in role:
        index = int(role.rpartition(".")[2])
        return index - sum(int(key.rpartition(".")[2]) < index for key in tensors)
    order = [name for name, *_ in schema(one.node.op, one.node.overload)[1]]
    values = [name for name in order if name not in one.constants and name not in one.node.attributes]
    return sum(order.index(name) < order.index(role) for name in values[: len(one.node.inputs)])


def _size(a: int, b: int, node: Node) -> Size:
    if a == b:
        return a
    times, left = divmod(a, SIZES[0])
    if not left and times * SIZES[1] == b:
        return Rows(times)
    message = f"{node.op} at '{node.path}' has a size of {a} for {SIZES[0]} rows and of {b} for {SIZES[1]}"
    raise ExportError(f"{message}; in a file a size is fixed or grows with the batch. {_HINT}")


def _attribute(a: Any, b: Any, node: Node) -> Any:
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple(_attribute(x, y, node) for x, y in zip(a, b, strict=True))
    if type(a) is int and type(b) is int:
        return _size(a, b, node)
    if a == b or (isinstance(a, float) and isinstance(b, float) and a != a and b != b):
        return a
    message = f"{node.op} at '{node.path}' takes {a} for {SIZES[0]} rows and {b} for {SIZES[1]}"
    raise ExportError(f"{message}: the forward computes with the number of rows. {_HINT}")


def _tensor(one: Constant, other: Constant, node: Node) -> tuple[Tensor, Shape | None]:
    """A constant, and its shape where it is one row that is repeated for the whole batch."""
    values, again = _array(one.values, node), _array(other.values, node)
    if values.shape == again.shape:
        if one.values is not other.values and not _same_bits(values, again):
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


def _array(tensor: torch.Tensor, node: Node) -> np.ndarray:
    """A constant as a file holds it: float32, int64 or bool."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bool:
        return tensor.numpy()
    if not tensor.is_floating_point() and not tensor.is_complex():
        return tensor.to(torch.int64).numpy()
    if tensor.dtype == torch.float32 or (tensor.is_floating_point() and (not tensor.ndim or node.dtype != "float32")):
        return tensor.float().numpy()  # of another precision: PyTorch takes it as a number
    raise ExportError(f"{node.op} at '{node.path}' takes a constant of {tensor.dtype}; a file computes in float32")


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def _refuse_unwritable(graph: Graph) -> None:
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
