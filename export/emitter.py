"""Collects ONNX nodes and initialisers under names that are unique and say where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx

from .errors import ExportError
from .graph import Node, Tensor
from .versions import USUAL


class Emitter:
    """Called once per ONNX node; ``nodes`` and ``initialisers`` (in the order of first use) are the result.

    ``opset`` is the one that the nodes belong to. Raises ExportError where it lacks an operator.
    """

    def __init__(self, values: Sequence[str], opset: int = USUAL.opset):
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, np.ndarray] = {}
        self._values = set(values)
        self._node_names: set[str] = set()
        self._held: dict[tuple[Any, ...], str] = {}

    def __call__(self, op_type: str, inputs: Sequence[str], output: str, path: str, **attributes: Any) -> str:
        """A node named after its module path, or ``path/OpType`` where the block takes several."""
        _refuse_missing(op_type, self.opset, path)
        name = unique(path, self._node_names)
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), [output], name=name, **attributes))
        return output

    def step(self, op_type: str, node: Node, *inputs: str, **attributes: Any) -> str:
        """One of a block's inner nodes; gives the name of its value."""
        name = f"{node.path}/{op_type}"
        _refuse_missing(op_type, self.opset, node.path, node.op)
        return self(op_type, inputs, unique(f"{name}.output", self._values), name, **attributes)

    def last(self, op_type: str, node: Node, *inputs: str) -> str:
        """The node that gives the block's own value."""
        _refuse_missing(op_type, self.opset, node.path, node.op)
        return self(op_type, inputs, node.output, f"{node.path}/{op_type}")

    def tensor(self, tensor: Tensor) -> str:
        """A tensor of the module under its own name; shared tensors are stored once."""
        memory = (tensor.values.__array_interface__["data"][0], tensor.values.strides)
        values = np.ascontiguousarray(tensor.values, dtype=np.float32)
        return self._hold((tensor.name, tensor.values.shape, memory), tensor.name, values)

    def constant(self, name: str, value: float | list[float] | Any) -> str:
        """A float32 constant that the module has no tensor for."""
        values = np.asarray(value, dtype=np.float64)
        held = np.asarray(values, dtype=np.float32) if values.ndim else np.float32(self.float32(value))
        return self._hold((name, held.tobytes()), name, np.asarray(held))

    @staticmethod
    def float32(value: Any) -> float:
        """An attribute as the float32 that the file will hold. Raises ExportError where that would be infinite."""
        with np.errstate(over="ignore"):
            held = np.float32(value)
        if np.isinf(held) and not np.isinf(value):
            raise ExportError(f"the option {value!r} is beyond float32, which the file computes in")
        return float(held)

    def _hold(self, key: tuple[Any, ...], name: str, values: np.ndarray) -> str:
        """One name may come with other values (another block's constant); it gets a number then."""
        if key not in self._held:
            self._held[key] = unique(name, self._values)
            self.initialisers[self._held[key]] = values
        return self._held[key]


def _refuse_missing(op_type: str, opset: int, path: str, block: str = "the block") -> None:
    if opset >= (since := _since(op_type)):
        return
    message = f"{block} at '{path}' needs opset {since}, for its {op_type}, and the file is to be of opset {opset}"
    raise ExportError(f"{message}. What to do: give opset {since} or more (--opset {since}), or a newer server")


@cache
def _since(op_type: str) -> int:
    """The opset that brought an operator."""
    schemas = onnx.defs.get_all_schemas_with_history()
    return min(schema.since_version for schema in schemas if schema.name == op_type and schema.domain == "")


def unique(name: str, taken: set[str]) -> str:
    """The name, or the name with the lowest number that nobody has; taken from now on."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
