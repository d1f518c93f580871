"""The linear layers of a file, read from its graph, and a model of each alone.

A linear layer is a Gemm, or a MatMul and the Add or Sub of a bias that follows it, whose factor and bias the file
stores as float32: as initialisers or in Constant nodes, directly or through Identity and Transpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.model.onnx_messages import FLOAT, attribute, float_array, integer, new_model, number, text

_INPUT, _OUTPUT = b"x", b"y"
_LARGEST = 2**30
"""Bytes of the weights of a layer that is run alone: a message in memory has at most 2 GB."""
_MOST_ROWS = 2**16
"""Of a batch that a file fixes."""


@dataclass(frozen=True)
class LinearLayer:
    """y = alpha·x @ weight + beta·bias, as the file stores it."""

    name: str
    """Of the node, or of its result where the node has no name."""
    node: Any
    """The NodeProto of the product."""
    following: Any
    """That of the Add or Sub of a bias after a MatMul; None without."""
    stored: np.ndarray
    """The factor as the product reads it: (in, out), or (out, in) for a Gemm with transB."""
    bias: np.ndarray | None
    """As the node reads it: of one value, (out,) or (1, out)."""
    transposed: bool
    alpha: float
    """A power of two, as ``beta``; the sign may be negative."""
    beta: float
    """-1.0 where the bias is subtracted."""

    @property
    def weight(self) -> np.ndarray:
        """(in, out)."""
        return self.stored.T if self.transposed else self.stored

    def bias_row(self, bias: np.ndarray | None) -> np.ndarray:
        """float32 (out,): what is added to every row, beta·bias."""
        out = self.weight.shape[1]
        row = np.zeros(out, np.float32) if bias is None else np.broadcast_to(bias.reshape(-1), (out,))
        return np.float32(self.beta) * row

    def alone(self, source: Any, stored: np.ndarray, bias: np.ndarray | None, multiply_adds: int) -> bytes:
        """An ONNX file of this layer, with these constants, from ``x`` (batch, in) to ``y`` (batch, out).

        ``source`` is the ModelProto that the layer is from; ``multiply_adds`` is written to the metadata, so that a
        Session runs it with the threads and the chunks of the whole file.
        """
        model = new_model()
        model.ir_version = source.ir_version
        model.opset_import.extend(source.opset_import)
        model.metadata_props.add(key=b"mlpx.multiply_adds", value=str(multiply_adds).encode())
        graph = model.graph
        graph.name = b"layer"
        product = graph.node.add()
        product.CopyFrom(self.node)
        names = [_INPUT, b"weight", *([b"bias"] if bias is not None and self.following is None else [])]
        product.input[:], product.output[:] = names, [_OUTPUT]
        if bias is not None and self.following is not None:
            product.output[:] = [b"product"]
            added = graph.node.add()
            added.CopyFrom(self.following)
            added.input[:], added.output[:] = [b"product", b"bias"], [_OUTPUT]
        for name, values in ((b"weight", stored), (b"bias", bias)):
            if values is not None:
                raw = np.ascontiguousarray(values, "<f4").tobytes()
                graph.initializer.add(name=name, dims=values.shape, data_type=FLOAT, raw_data=raw)
        for values, name, size in zip((graph.input, graph.output), (_INPUT, _OUTPUT), self.weight.shape, strict=True):
            tensor = values.add(name=name).type.tensor_type
            tensor.elem_type = FLOAT
            tensor.shape.dim.add(dim_param=b"batch")
            tensor.shape.dim.add(dim_value=size)
        return model.SerializeToString()


class Graph:
    """A file's graph and where its values come from. ``folder`` is where its external data is."""

    def __init__(self, model: Any, folder: Path):
        self.model, self._folder = model, folder
        self.left_out: list[str] = []
        """In words, the products that cannot be run alone, with the reason: what ``linear_layers`` passed over."""
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made: dict[bytes, Any] = {}
        self._uses = Counter(name for node in model.graph.node for name in node.input)
        self._uses.update(value.name for value in model.graph.output)
        for node in model.graph.node:
            self._made.update(dict.fromkeys(node.output, node))
            if node.op_type == b"Constant" and (value := attribute(node, "value")) is not None:
                self._tensors.update(dict.fromkeys(node.output, value.t))

    @property
    def fixed_batch(self) -> int | None:
        """The number of rows that the file fixes; None where it is open."""
        for value in self.model.graph.input:
            if value.name not in self._tensors and value.type.tensor_type.shape.dim:
                size = value.type.tensor_type.shape.dim[0].dim_value
                return size if 0 < size <= _MOST_ROWS else None
        return None

    def linear_layers(self) -> Iterator[LinearLayer]:
        """The linear layers, in the file's order. Raises ModelError: a constant is damaged."""
        for node in self.model.graph.node:
            if node.op_type not in (b"Gemm", b"MatMul") or node.domain not in (b"", b"ai.onnx") or len(node.input) < 2:
                continue
            if all(self._is_computed(factor) for factor in node.input[:2]):
                continue  # a product of two values, as in attention: no linear layer
            name = text(node.name or node.output[0])
            try:
                layer = self._layer(node, name)
            except _LeftOut as reason:
                self.left_out.append(f"'{name}': {reason}")
            else:
                yield layer

    def _layer(self, node: Any, name: str) -> LinearLayer:
        is_gemm = node.op_type == b"Gemm"
        if not self._is_computed(node.input[0]):
            raise _LeftOut("its first factor is a constant")
        if is_gemm and integer(node, "transA", 0):
            raise _LeftOut("it transposes its input")
        stored = self._constant(node.input[1])
        if stored is None:
            raise _LeftOut("its weights are computed in the file, or not float32")
        if stored.ndim != 2 or not stored.size or stored.nbytes > _LARGEST:
            raise _LeftOut(f"its weights have the shape {list(stored.shape)}")
        transposed = is_gemm and bool(integer(node, "transB", 0))
        out = stored.shape[0 if transposed else 1]
        following, bias, sign = None, None, 1.0
        if is_gemm:
            bias = self._bias(node.input[2], out) if len(node.input) > 2 and node.input[2] else None
        else:
            following, bias, sign = self._following(node, out)
        alpha, beta = (number(node, key, 1.0) if is_gemm else 1.0 for key in ("alpha", "beta"))
        if any(abs(np.frexp(factor)[0]) != 0.5 for factor in (alpha, beta)):
            raise _LeftOut("its alpha or beta is not a power of two, so that its bits are not determined")
        return LinearLayer(name, node, following, stored, bias, transposed, alpha, sign * beta)

    def _following(self, node: Any, out: int) -> tuple[Any, np.ndarray | None, float]:
        """The Add or Sub that alone reads the result of a MatMul, its bias and the bias's sign."""
        result = node.output[0]
        if self._uses[result] == 1:
            for reader in self.model.graph.node:
                places = [b"Add", b"Sub"] if reader.input[:1] == [result] else [b"Add"]
                if result in reader.input and reader.op_type in places and len(reader.input) == 2:
                    other = reader.input[1 if reader.input[0] == result else 0]
                    if (bias := self._bias(other, out)) is not None:
                        return reader, bias, -1.0 if reader.op_type == b"Sub" else 1.0
        return None, None, 1.0

    def _bias(self, name: bytes, out: int) -> np.ndarray | None:
        bias = None if self._is_computed(name) else self._constant(name)
        fits = bias is not None and bias.size in (1, out) and bias.shape[-1:] in ((), (1,), (out,)) and bias.ndim <= 2
        return bias if fits else None

    def _is_computed(self, name: bytes) -> bool:
        """Whether a value depends on the input of the network, by any way through the graph."""
        waiting, seen = [name], set[bytes]()
        while waiting:
            name = waiting.pop()
            if name in seen or name in self._tensors or not name:
                continue
            seen.add(name)
            if name not in self._made:
                return True  # an input
            waiting += self._made[name].input
        return False

    def _constant(self, name: bytes) -> np.ndarray | None:
        """A stored float32 constant, through Identity and Transpose; None for any other."""
        transpositions = 0
        for _ in range(len(self.model.graph.node) + 1):
            if name in self._tensors:
                tensor = self._tensors[name]
                if tensor.data_type != FLOAT:
                    return None
                values = float_array(tensor, self._folder)
                return values.T if transpositions % 2 else values
            node = self._made.get(name)
            if node is None or node.op_type not in (b"Identity", b"Transpose") or len(node.input) != 1:
                return None
            if node.op_type == b"Transpose":
                order = attribute(node, "perm")
                if order is not None and list(order.ints) != [1, 0]:
                    return None
                transpositions += 1
            name = node.input[0]
        return None


class _LeftOut(Exception):
    """Why a product is not run alone."""
