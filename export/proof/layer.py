"""A layer of the module, and the operators of a file that compute it."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from export.graph import Node, Shape
from export.onnxfile.pattern_matching import Difference


@dataclass(frozen=True)
class Layer:
    """One node of the module, or affine nodes folded into one, and the operators of the file that compute it.

    ``expected`` is the node as the file should hold it: the module's own, or the folded one. ``inputs`` and ``output``
    are names of values in the file, ``input_shapes`` and ``input_dtypes`` are the module's.
    """

    source_nodes: tuple[Node, ...]
    expected: Node
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    output: str
    differences: tuple[Difference, ...] = ()
    input_shapes: tuple[Shape, ...] = ()
    input_dtypes: tuple[str, ...] = ()
    recomputed: tuple[Difference, ...] = ()
    """Constants that the forward computes, in which another library's last bit stands in the file; it is held to it."""

    @property
    def path(self) -> str:
        """The path in the module of the node that the file should hold."""
        return self.expected.path

    @property
    def op(self) -> str:
        """The operators of its nodes, " + " between those that were folded."""
        return " + ".join(node.op for node in self.source_nodes)

    @property
    def parameters(self) -> int:
        """The number of elements of its constants."""
        return sum(tensor.values.size for tensor in self.expected.tensors.values())
