"""The shape that a Reshape takes, where the file computes it from the shape of a value."""

from __future__ import annotations

from .onnx_graph import OnnxGraph
from .onnx_layout import Dims, Layout, Unfit

SHAPE_OPERATORS = frozenset({"Shape", "Gather", "Concat", "Unsqueeze", "Squeeze", "Cast"})
"""What such a computation is made of."""

_MOST = 64
"""Sizes in a shape, and operators in a row to compute one."""


class Context:
    """What is known while a graph is read: the layouts of its values so far, and what is to be said of it."""

    def __init__(self, graph: OnnxGraph):
        self.graph = graph
        self.layouts: dict[str, Layout] = {}
        self.notes: list[str] = []
        self.known: dict[str, Dims] = {}

    def sizes(self, value: str, depth: int = 0) -> Dims:
        """The entries of a value that holds sizes; None is the batch's. Raises Unfit."""
        if value not in self.known:
            self.known[value] = self._computed(value, depth)
        return self.known[value]

    def _computed(self, value: str, depth: int) -> Dims:
        constant = self.graph.constants.get(value)
        if constant is not None:
            if constant.dtype.kind != "i" or constant.size > _MOST:
                raise Unfit(f"takes a shape that is no list of integers: '{value}'")
            return tuple(constant.reshape(-1).tolist())
        operator = self.graph.makers.get(value) if depth < _MOST else None
        if operator is not None and operator.kind == "Shape" and operator.inputs[0] in self.layouts:
            dims = self.layouts[operator.inputs[0]].dims
            start, end = operator.attributes.get("start", 0), operator.attributes.get("end", len(dims))
            return dims[start:end]  # type: ignore[misc]
        if operator is not None and operator.kind == "Gather":
            dims, chosen = (self.sizes(name, depth + 1) for name in operator.inputs)
            if all(place is not None and -len(dims) <= place < len(dims) for place in chosen):
                return tuple(dims[place] for place in chosen if place is not None)
        if operator is not None and operator.kind == "Concat":
            return tuple(size for name in operator.inputs for size in self.sizes(name, depth + 1))[: _MOST + 1]
        if operator is not None and operator.kind in ("Unsqueeze", "Squeeze", "Cast"):
            return self.sizes(operator.inputs[0], depth + 1)
        raise Unfit(f"takes a shape that cannot be seen in the file: '{value}'")

    def within(self) -> set[str]:
        """The values that only serve to compute a shape."""
        reached: set[str] = set()
        waiting = [o.inputs[1] for o in self.graph.operators if o.kind == "Reshape" and len(o.inputs) > 1]
        while waiting:
            value = waiting.pop()
            operator = self.graph.makers.get(value)
            if value not in reached and operator is not None and operator.kind in SHAPE_OPERATORS:
                reached.add(value)
                waiting += operator.inputs
        return reached
