"""The kinds of reduced precision, how each writes a linear layer in ONNX operators, and whether that is exact here.

A kind may have several ways, the fastest first; the first one whose products are exact on the machine is written. On
x86 processors without VNNI the fast product of unsigned and signed bytes adds pairs in 16 bits, and saturates:
255 · 127 + 255 · 127 gives 32767. No version or flag says reliably which product is used, so it is measured.

Every scale is a float32; a value v is stored as the integer q nearest to v / scale (ties to even), and read back as
q · scale. Sources: the ONNX operators QuantizeLinear and DequantizeLinear, and com.microsoft.MatMulNBits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.graph import unique
from runtime import ModelError, Session
from runtime.session.processor import PAIRS, vnni

_MICROSOFT = "com.microsoft"
_S8 = 127
"""The largest magnitude of a signed weight; -128 is unused, so that the scale is symmetric."""
_ROWS, _COLUMNS = 64, 24
"""The shape of the weight that shows whether products are exact."""
Range = tuple[float, float]


@dataclass(frozen=True)
class LinearLayer:
    """y = x · weight + bias, with a float32 weight (in_features, out_features)."""

    name: str
    nodes: tuple[NodeProto, ...]
    """The operators that it replaces: a Gemm, a MatMul, or a MatMul and the Add after it."""
    input: str
    output: str
    weight: np.ndarray
    bias: np.ndarray | None
    """(out_features,)"""


@dataclass
class LayerWriter:
    """Collects the operators and constants of one layer, under names that nothing else in the file has."""

    layer: LinearLayer
    taken: set[str]
    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    constants: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])

    def add_constant(self, role: str, values: np.ndarray) -> str:
        """Add the constant that an operator takes for ``role``; its name."""
        name = unique(f"{self.layer.name}.{role}", self.taken)
        self.constants[name] = values
        return name

    def add_bias(self) -> list[str]:
        """The float32 bias; empty where the layer has none."""
        return [] if self.layer.bias is None else [self.add_constant("bias", self.layer.bias)]

    def add_node(
        self, op_type: str, inputs: Sequence[str], outputs: int | Sequence[str] = 1, **attributes: Any
    ) -> Sequence[str]:
        """Add an operator with this number of new outputs, or with outputs of these names; the names of its outputs."""
        path = f"{self.layer.name}/{op_type}"
        if isinstance(outputs, int):
            outputs = [unique(f"{path}.output", self.taken) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=unique(path, self.taken), **attributes))
        return outputs

    def add_last_node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Add the operator whose output is the layer's."""
        self.add_node(op_type, inputs, [self.layer.output], **attributes)


WriteLayer = Callable[[LayerWriter, Range], None]


@dataclass(frozen=True)
class Kind:
    """A format with fewer bits for a network."""

    ways: Mapping[str, WriteLayer]
    opset: int
    """The lowest opset that has its operators."""
    calibrated: bool = False
    """Whether it needs the ranges of the layers' inputs on rows like those of the traffic."""
    by_batch: bool = False
    """Whether a row's result depends on the other rows of its batch."""
    domains: tuple[str, ...] = ()
    """The domains of its operators besides that of ONNX."""


def per_column(weight: np.ndarray, least: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A float32 matrix (in, out) as int8 (in, out) in -127..127 and a float32 scale for each column (out,).

    ``least`` (out,) is the smallest scale that a column may have.
    """
    scale = np.abs(weight).max(axis=0) / np.float32(_S8)
    scale = scale if least is None else np.maximum(scale, least.astype(np.float32))
    scale = _nonzero(scale)
    return np.clip(np.rint(weight / scale), -_S8, _S8).astype(np.int8), scale


def per_block(weight: np.ndarray, bits: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """A float32 matrix (in, out) as MatMulNBits stores it: uint8 (out, blocks, block·bits/8), float32 (out, blocks).

    A block of ``block`` weights of one output shares a scale: its weight of the largest magnitude becomes the lowest
    integer exactly. The integers are unsigned with the zero point 2^(bits-1); two of 4 bits make a byte, the first in
    its low half. The last block is filled with zeros.
    """
    rows, columns = weight.shape
    blocks = -(-rows // block)
    padded = np.zeros((columns, blocks * block), np.float32)
    padded[:, :rows] = weight.T
    padded = padded.reshape(columns, blocks, block)
    half = 2 ** (bits - 1)
    largest = np.abs(padded).argmax(axis=2)[:, :, None]
    scale = _nonzero(np.take_along_axis(padded, largest, axis=2)[:, :, 0] / np.float32(-half))
    integers = np.clip(np.rint(padded / scale[:, :, None]) + half, 0, 2**bits - 1).astype(np.uint8)
    if bits == 4:
        integers = integers[:, :, 0::2] | integers[:, :, 1::2] << 4
    return np.ascontiguousarray(integers), scale


def activation_range(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The float32 scale and the int8 zero point of values from ``low`` to ``high``; 0 is included, and exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = _nonzero(np.asarray((high - low) / 255, np.float32))
    return scale, np.asarray(np.clip(np.rint(-128 - low / scale), -128, 127), np.int8)


def _nonzero(scale: np.ndarray) -> np.ndarray:
    """1 in place of a scale of 0: where all values are 0 any scale fits."""
    return np.where(scale == 0, np.float32(1), scale).astype(np.float32)


def _float16(writer: LayerWriter, _: Range) -> None:
    """The weight is stored as float16; ONNX Runtime makes it float32 once, when it opens the file."""
    layer = writer.layer
    stored = writer.add_constant("weight.float16", np.ascontiguousarray(layer.weight.T).astype(np.float16))
    weight = writer.add_node("Cast", [stored], to=TensorProto.FLOAT)
    writer.add_last_node("Gemm", [layer.input, *weight, *writer.add_bias()], transB=1)


def _dynamic(writer: LayerWriter, _: Range, *, signed: bool) -> None:
    """Rows become uint8 by the range of the batch; in this order ONNX Runtime fuses all of it into one operator."""
    integers, scale = per_column(writer.layer.weight)
    zeros = []
    if signed:
        weight = writer.add_constant("weight.int8", integers)
    else:
        weight = writer.add_constant("weight.int8", (integers.astype(np.int16) + 128).astype(np.uint8))
        zeros = [writer.add_constant("weight.zero_point", np.asarray(128, np.uint8))]
    quantised, step, zero_point = writer.add_node("DynamicQuantizeLinear", [writer.layer.input], 3)
    (product,) = writer.add_node("MatMulInteger", [quantised, weight, zero_point, *zeros])
    (product,) = writer.add_node("Cast", [product], to=TensorProto.FLOAT)
    (factor,) = writer.add_node("Mul", [step, writer.add_constant("weight.scale", scale)])
    bias = writer.add_bias()
    if bias:
        writer.add_last_node("Add", [*writer.add_node("Mul", [product, factor]), *bias])
    else:
        writer.add_last_node("Mul", [product, factor])


def _static(writer: LayerWriter, limits: Range) -> None:
    """Input, weight and bias are quantised and dequantised: ONNX Runtime fuses this into a product of integers."""
    layer = writer.layer
    step, zero = activation_range(*limits)
    least = None if layer.bias is None else np.abs(layer.bias) / (step * np.float32(2**30))  # the bias is an int32
    integers, scale = per_column(layer.weight, least)
    constants = [("weight", np.ascontiguousarray(integers.T), scale)]
    if layer.bias is not None:
        joint = _nonzero(step * scale)
        limit = 2**31 - 1
        bias = np.clip(np.rint(layer.bias.astype(np.float64) / joint), -limit, limit).astype(np.int32)
        constants.append(("bias", bias, joint))
    operands: list[str] = []
    for role, values, scales in constants:
        names = [writer.add_constant(f"{role}.{values.dtype}", values), writer.add_constant(f"{role}.scale", scales)]
        names.append(writer.add_constant(f"{role}.zero_point", np.zeros(len(scales), values.dtype)))
        operands += writer.add_node("DequantizeLinear", names, axis=0)
    names = [writer.add_constant("input.scale", step), writer.add_constant("input.zero_point", zero)]
    quantised = writer.add_node("QuantizeLinear", [layer.input, *names])
    rows = writer.add_node("DequantizeLinear", [*quantised, *names])
    writer.add_last_node("Gemm", [*rows, *operands], transB=1)


def _blocks(writer: LayerWriter, _: Range, *, bits: int, block: int, accuracy_level: int) -> None:
    """Accuracy level 4 quantises the rows too, block by block; level 1 computes in float32."""
    layer = writer.layer
    rows, columns = layer.weight.shape
    size = min(block, max(16, 2 ** (rows - 1).bit_length()))
    integers, scale = per_block(layer.weight, bits, size)
    names = [writer.add_constant(f"weight.{bits}bit", integers), writer.add_constant("weight.scale", scale)]
    bias = writer.add_bias()
    inputs = [layer.input, *names, *(["", "", *bias] if bias else [])]
    options = {"K": rows, "N": columns, "bits": bits, "block_size": size, "accuracy_level": accuracy_level}
    writer.add_last_node("MatMulNBits", inputs, domain=_MICROSOFT, **options)


def _weights_only(bits: int, block: int) -> Kind:
    """Weights of ``bits`` bits, with a scale for every ``block`` of them."""
    levels = {"rows as int8": 4, "rows as float32": 1}
    ways = {way: partial(_blocks, bits=bits, block=block, accuracy_level=level) for way, level in levels.items()}
    return Kind(ways, opset=7, domains=(_MICROSOFT,))


KINDS: dict[str, Kind] = {
    # Weights are stored as float16; products are computed in float32.
    "float16": Kind({"float32 products": _float16}, opset=9),
    # 8-bit weights with a scale for every output; rows become 8-bit by the range of their batch.
    "int8-dynamic": Kind(
        {PAIRS: partial(_dynamic, signed=True), "u8 rows, u8 weights": partial(_dynamic, signed=False)},
        opset=11,
        by_batch=True,
    ),
    # The same, but rows become 8-bit by ranges measured on the user's rows.
    "int8-static": Kind({"s8 rows, s8 weights": _static}, opset=13, calibrated=True),
    "weights8": _weights_only(8, 128),
    "weights4": _weights_only(4, 32),
}
"""By the name that the file's name contains."""


def extremes() -> tuple[np.ndarray, np.ndarray]:
    """Rows (batch, 64) of 0, 1 and -1 and a weight (64, 24) of 1 and -1.

    Quantised, each becomes an integer of the largest magnitude, or one below. Rounding then changes a sum of 64
    products by at most 4 (with 4-bit weights); pairs that saturate make a sum of equal signs half as large, 32 off.
    """
    signs = np.where(np.arange(_ROWS)[:, None] // 4 % (np.arange(_COLUMNS) + 1) % 2 == 0, 1.0, -1.0)
    rows = np.stack([np.ones(_ROWS), signs[:, 1], signs[:, 3], np.arange(_ROWS) % 2])
    return rows.astype(np.float32), signs.astype(np.float32)


def is_exact(run: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether ``run``, float32 rows (batch, 64) to (batch, 24), gives the products of ``extremes`` unsaturated."""
    rows, weight = extremes()
    return all(np.abs(run(row) - row @ weight).max() <= _ROWS / 8 for row in rows[:, None])


def probe(kind: Kind, way: str) -> bytes:
    """A file of one layer with the weight of ``extremes``, written in this way."""
    rows, weight = extremes()
    writer = LayerWriter(LinearLayer("probe", (), "x", "y", weight, None), {"x", "y"})
    kind.ways[way](writer, (-float(rows.max()), float(rows.max()) * 127 / 128))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", _ROWS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", _COLUMNS])
    tensors = [numpy_helper.from_array(values, name) for name, values in writer.constants.items()]
    graph = helper.make_graph(writer.nodes, "probe", [x], [y], tensors)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in kind.domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@cache
def _is_exact_here(kind: str, way: str) -> bool:
    try:
        with Session(probe(KINDS[kind], way), "cpu", threads=1) as session:
            return is_exact(session.predict)
    except ModelError:  # an ONNX Runtime that lacks the operator
        return False


def way_of(kind: str) -> str:
    """The first way of a kind whose products are exact here. Raises ExportError: there is none."""
    way = next((way for way in KINDS[kind].ways if _is_exact_here(kind, way)), None)
    if way is None:
        raise ExportError(f"no product of {kind} is exact with this ONNX Runtime on this processor ({vnni()})")
    return way


def passed_over(kind: str, way: str) -> str | None:
    """Why a faster way of a kind is not used here; None where ``way`` is the fastest."""
    ways = list(KINDS[kind].ways)
    faster = ways[: ways.index(way)]
    if not faster:
        return None
    return f"{kind} as {' or '.join(faster)}: its products are not exact on this processor, {vnni()}"
