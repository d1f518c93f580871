"""Merging the records of two runs into one graph: a size that differs between them is a multiple of the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from builder.values import is_tuple
from export.errors import ExportError, UnsupportedError
from export.evaluation import schema
from export.graph import Graph, Input, Node, Rows, Shape, Size, Tensor, batch_axis, rewired, row_of, unique
from export.operators import OPERATORS

from .recorder import Record, RecordedConstant, RecordedNode
from .refusals import format_refusals

SIZES = (3, 5)
"""Batch sizes that the module is run at."""
_BROADCAST = ("add", "sub", "mul", "div", "where", "maximum", "minimum", "pow", "gt", "lt", "ge", "le", "eq", "ne")
"""Operators that broadcast a constant row over the batch by themselves."""
_HINT = "What to do: take the number of rows out of what is computed"


Run = tuple[Record, Mapping[str, str]]
"""What a run of the module called, and the values of its outputs by name."""


def merged(first: Run, second: Run, inputs: Mapping[str, Input]) -> Graph:
    """The graph of two runs, at the two ``SIZES``.

    Raises UnsupportedError: operators that a file does not have. Raises ExportError: sizes or constants that depend on
    the batch and are not multiples of it.
    """
    (nodes, unread), (others, _) = _live(*first), _live(*second)
    refusals = [node.refusal for node in nodes if node.refusal is not None]
    if refusals:
        raise UnsupportedError(format_refusals(refusals))
    record, outputs = first
    if _calls(nodes, outputs) != _calls(others, second[1]):
        raise ExportError(f"the forward calls other operators for another number of rows. {_HINT}")
    names = {recorded.node.output for recorded in record.nodes} | set(inputs)
    pairs = zip(nodes, others, strict=True)
    merged_nodes = tuple(node for recorded, other in pairs for node in _merged_nodes(recorded, other, names))
    with_weights = [recorded.node for recorded in unread if any(c.own for c in recorded.constants.values())]
    notes = tuple(f"{node.op} '{node.path}' left out: no output depends on it" for node in with_weights)
    graph = Graph(inputs, merged_nodes, outputs, notes, inactive=tuple(dict.fromkeys(record.inactive)))
    graph = _named_by_home(graph)
    _refuse_unwritable(graph)
    return graph


def _live(record: Record, outputs: Mapping[str, str]) -> tuple[list[RecordedNode], list[RecordedNode]]:
    """The nodes that an output depends on, and the others."""
    graph = Graph({}, tuple(recorded.node for recorded in record.nodes), outputs).without_dead_nodes()
    live = {node.output for node in graph.nodes}
    kept = [recorded for recorded in record.nodes if recorded.node.output in live]
    return kept, [recorded for recorded in record.nodes if recorded.node.output not in live]


def _calls(nodes: list[RecordedNode], outputs: Mapping[str, str]) -> list[object]:
    """The operators with the names of what they read and give, and the values that are returned."""
    calls = [(r.node.op, r.node.inputs, r.node.output, *r.constants) for r in nodes]
    return [*calls, list(outputs.values())]


def _merged_nodes(recorded: RecordedNode, other: RecordedNode, names: set[str]) -> Iterator[Node]:
    """The node of both runs, after an ``expand`` for every constant that must be as long as the batch."""
    node = recorded.node
    shape = _attribute(node.shape, other.node.shape, node)
    attributes = {key: _attribute(value, other.node.attributes[key], node) for key, value in node.attributes.items()}
    tensors: dict[str, Tensor] = {}
    inputs = list(node.inputs)
    for role, constant in recorded.constants.items():
        tensor, expanded = _tensor(constant, other.constants[role], node)
        if expanded is None or (node.op in _BROADCAST and node.inputs) or node.op == "expand":
            tensors[role] = tensor
            continue
        path = f"{node.path}.{role}"
        value = unique(f"{path}.output", names)
        yield Node(
            *("expand", path, (), value, expanded, {"size": expanded, "implicit": False}, {"self": tensor}),
            dtype=str(tensor.values.dtype),
            home=path,
            line=node.line,
        )
        inputs.insert(_input_index(recorded, role, tensors), value)
    if "count" in attributes and node.attributes["count"] != other.node.attributes["count"]:
        raise ExportError(f"{node.op} at '{node.path}' is taken over the rows of the batch. {_HINT}")
    yield replace(node, inputs=tuple(inputs), shape=shape, attributes=attributes, tensors=tensors)


def _named_by_home(graph: Graph) -> Graph:
    """In a building block of several operators each is named after both, and the last one's value after the block."""
    counts = Counter(node.home for node in graph.nodes)
    last = {node.home: node.output for node in graph.nodes}
    paths = {node.path for node in graph.nodes if counts[node.home] == 1}
    names: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        path, output = node.path, node.output
        if counts[node.home] > 1:
            path = unique(f"{node.home}/{node.op}", paths)
            output = f"{node.home}.output" if last[node.home] == node.output else f"{path}.output"
        names[node.output] = output
        nodes.append(replace(rewired(node, names), path=path, output=output))
    return graph.with_nodes(nodes).renamed(names)


def _input_index(recorded: RecordedNode, role: str, tensors: Mapping[str, Tensor]) -> int:
    """The index among a node's inputs of a value for the argument ``role``."""
    if "." in role:
        index = int(role.rpartition(".")[2])
        return index - sum(int(key.rpartition(".")[2]) < index for key in tensors)
    node = recorded.node
    order = [name for name, *_ in schema(node.op, node.overload)[1]]
    values = [name for name in order if name not in recorded.constants and name not in node.attributes]
    return sum(order.index(name) < order.index(role) for name in values[: len(node.inputs)])


def _size(a: int, b: int, node: Node) -> Size:
    """A size of both runs: fixed, or a multiple of the batch."""
    if a == b:
        return a
    times, remainder = divmod(a, SIZES[0])
    if not remainder and times * SIZES[1] == b:
        return Rows(times)
    message = f"{node.op} at '{node.path}' has a size of {a} for {SIZES[0]} rows and of {b} for {SIZES[1]}"
    raise ExportError(f"{message}; in a file a size is fixed or grows with the batch. {_HINT}")


def _attribute(a: Any, b: Any, node: Node) -> Any:
    """An attribute of both runs."""
    if is_tuple(a) and is_tuple(b) and len(a) == len(b):
        return tuple(_attribute(x, y, node) for x, y in zip(a, b, strict=True))
    if type(a) is int and type(b) is int:
        return _size(a, b, node)
    if a == b or (isinstance(a, float) and isinstance(b, float) and a != a and b != b):
        return a
    message = f"{node.op} at '{node.path}' takes {a} for {SIZES[0]} rows and {b} for {SIZES[1]}"
    raise ExportError(f"{message}: the forward computes with the number of rows. {_HINT}")


def _tensor(constant: RecordedConstant, other: RecordedConstant, node: Node) -> tuple[Tensor, Shape | None]:
    """A constant of both runs, and its shape where it is one row that is repeated for the whole batch."""
    values, other_values = _array(constant.values, node), _array(other.values, node)
    if values.shape == other_values.shape:
        if constant.values is not other.values and not _same_bits(values, other_values):
            raise ExportError(f"'{constant.name}' at '{node.path}' differs from call to call: is it random?")
        return Tensor(constant.name, values, not constant.own), None
    if values.ndim == other_values.ndim:
        shape = tuple(_size(a, b, node) for a, b in zip(values.shape, other_values.shape, strict=True))
        axis = batch_axis(shape)
        if axis is not None:
            row, other_row = (np.take(part, [0], axis) for part in (values, other_values))
            if _same_bits(np.broadcast_to(row, values.shape), values) and _same_bits(row, other_row):
                return Tensor(constant.name, np.ascontiguousarray(row), True), shape
    message = f"{node.op} at '{node.path}' takes a constant that differs from row to row of the batch"
    raise ExportError(f"{message}, of shape {list(values.shape)} for {SIZES[0]} rows. {_HINT}")


def _array(tensor: torch.Tensor, node: Node) -> np.ndarray:
    """A constant as a file stores it: float32, int64 or bool."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bool:
        return tensor.numpy()
    if not tensor.is_floating_point() and not tensor.is_complex():
        return tensor.to(torch.int64).numpy()
    if tensor.dtype == torch.float32 or (tensor.is_floating_point() and (not tensor.ndim or node.dtype != "float32")):
        return tensor.float().numpy()  # in another precision PyTorch takes it as a number
    raise ExportError(f"{node.op} at '{node.path}' takes a constant of {tensor.dtype}; a file computes in float32")


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def _refuse_unwritable(graph: Graph) -> None:
    """Raise UnsupportedError for the operators that a file cannot hold, all at once; ExportError for the outputs."""
    reasons: list[str] = []
    for node in graph.nodes:
        row = OPERATORS.get(node.op)
        reason = "a file has no operator for it" if row is None else row.refuse(node)
        if reason:
            reasons.append(f"{node.op} at '{node.path}'{f', {node.line}' if node.line else ''}: {reason}")
    if reasons:
        raise UnsupportedError("; ".join(reasons))
    for name, value in graph.outputs.items():
        shape = graph.shapes[value]
        if 0 in shape:
            raise ExportError(f"the output '{name}' has no values: its rows have shape {list(row_of(shape))}")
        if not shape or shape[0] != Rows() or any(isinstance(size, Rows) for size in shape[1:]):
            listed = ", ".join(map(str, shape))
            message = f"the output '{name}' has shape ({listed}), and a file gives a result for every row: (batch, ...)"
            raise ExportError(f"{message}. What to do: return a tensor whose first dimension is the batch")
    empty = next((node for node in graph.nodes if node.op == "linear" and 0 in node.shape), None)
    if empty is not None:
        message = f"linear at '{empty.path}' has no features: its rows have shape {list(row_of(empty.shape))}"
        raise ExportError(f"{message}. What to do: give it at least one")
