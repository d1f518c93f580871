"""Faults of operators: another function, another option of it, another order of what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export.emitter import Emitter
from export.graph import Graph
from export.operators import OPERATORS
from export.proof.running import read_by
from export.proof.structure import Layer

from .edits import Edit, attribute, changed, edited, reading, set_attribute, tf32, together
from .sites import Plan, Site

_PRODUCTS = ("Gemm", "MatMul")
_AXES_AS_INPUT = {"ReduceSum": 13, "ReduceMean": 18, "ReduceMax": 18, "ReduceMin": 18}
"""The opset from which a reduction reads its axes as a value."""


def _attribute(op: str, name: str, value: float) -> Plan:
    def plan(site: Site) -> Edit | None:
        layer = site.pick(op)
        return None if layer is None else edited(layer.output, lambda node: set_attribute(node, name, value))

    return plan


def _operator(becomes: Mapping[str, str], *ops: str, without: tuple[str, ...] = ()) -> Plan:
    """Another operator with the same inputs, and without attributes that it has not."""

    def plan(site: Site) -> Edit | None:
        def fitting(layer: Layer) -> list[NodeProto]:
            found = [node for node in layer.nodes if node.op_type in becomes]
            return [node for node in found if not node.op_type.startswith("Reduce") or _several(site, layer, node)]

        layer = site.pick(*ops, fits=lambda layer: bool(fitting(layer)))
        if layer is None:
            return None

        def change(node: NodeProto) -> None:
            kept = [a for a in node.attribute if a.name not in without]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.op_type = becomes[node.op_type]

        return edited(fitting(layer)[-1].output[0], change)

    return plan


def _inputs(op_type: str, order: Callable[[int], list[int]], *ops: str) -> Plan:
    """An operator that reads the same values and constants in another order."""

    def plan(site: Site) -> Edit | None:
        def changes(layer: Layer) -> bool:
            node = layer.nodes[-1]
            names = list(node.input)
            return node.op_type == op_type and [names[i] for i in order(len(names))] != names and _alike(site, layer)

        layer = site.pick(*ops, fits=changes)

        def change(node: NodeProto) -> None:
            names = list(node.input)
            node.input[:] = [names[i] for i in order(len(names))]

        return None if layer is None else edited(layer.output, change)

    return plan


def _alike(_site: Site, layer: Layer) -> bool:
    """Whether a product of two values allows them in the other order."""
    if layer.expected.op != "matmul":
        return True
    shapes = [shape[-2:] for shape in layer.input_shapes]
    return len(shapes) == 2 and shapes[0] == shapes[1] and len(set(shapes[0])) == 1 and len(layer.input_shapes[0]) > 2


def _reduction(becomes: Mapping[str, str], *ops: str) -> Plan:
    """Another reduction over the same dimensions."""

    def plan(site: Site) -> Edit | None:
        def fits(layer: Layer) -> bool:
            return layer.nodes[-1].op_type in becomes and _several(site, layer, layer.nodes[-1])

        layer = site.pick(*ops, fits=fits)
        if layer is None:
            return None
        old = layer.nodes[-1]
        new, axes, opset = becomes[old.op_type], _axes(site, old), site.model.opset
        as_input = opset >= _AXES_AS_INPUT[new]

        def change(node: NodeProto) -> None:
            node.op_type = new
            kept = [a for a in node.attribute if a.name != "axes"]
            del node.attribute[:], node.input[1:]
            node.attribute.extend(kept)
            if not as_input:
                set_attribute(node, "axes", axes)

        moved = reading(layer.output, 1, np.array(axes, np.int64))
        return together(edited(layer.output, change), *([moved] if as_input else []))

    return plan


def _axes(site: Site, node: NodeProto) -> list[int]:
    """Over which a reduction runs."""
    held = site.held(node, 1)
    given = attribute(node, "axes") if held is None else held.reshape(-1).tolist()
    return [int(axis) for axis in given] if isinstance(given, list | tuple) else []


def _several(site: Site, layer: Layer, node: NodeProto) -> bool:
    """Whether a reduction makes one value of several."""
    return any(layer.input_shapes[0][axis] != 1 for axis in _axes(site, node))


def _another_axis(site: Site) -> Edit | None:
    """A sum or a mean over another dimension, which has the same size, so that the shape stays."""

    def others(layer: Layer) -> list[int]:
        shape, axes = layer.input_shapes[0], _axes(site, layer.nodes[-1])
        if len(axes) != 1:
            return []
        axis = axes[0] % len(shape)
        return [i for i, size in enumerate(shape) if i != axis and isinstance(size, int) and size == shape[axis] != 1]

    layer = site.pick("sum", "mean", fits=lambda layer: len(layer.nodes) == 1 and bool(others(layer)))
    if layer is None:
        return None
    chosen = np.array([others(layer)[site.rng.integers(len(others(layer)))]], np.int64)
    if site.held(layer.nodes[-1], 1) is not None:
        return reading(layer.output, 1, chosen)
    return edited(layer.output, lambda node: set_attribute(node, "axes", chosen.tolist()))


def _softmax_axis(site: Site) -> Edit | None:
    """A softmax along another dimension of a row."""

    def others(layer: Layer) -> list[int]:
        shape, own = layer.expected.shape, layer.expected.attributes["dim"]
        found = [i for i, size in enumerate(shape) if isinstance(size, int) and i != own]
        return [i for i in found if not shape[i] == shape[own] == 1] if len(layer.nodes) == 1 else []

    layer = site.pick("softmax", "log_softmax", fits=lambda layer: bool(others(layer)))
    if layer is None:
        return None
    chosen = others(layer)[site.rng.integers(len(others(layer)))]
    return edited(layer.output, lambda node: set_attribute(node, "axis", chosen))


def _norm_epsilon(op: str) -> Plan:
    """1e-3 in the place of a norm's own epsilon: an attribute, or a constant that is added below a root."""

    def plan(site: Site) -> Edit | None:
        # The distance of one value from its own mean is 0, whatever it is divided by.
        layer = site.pick(
            op, fits=lambda layer: op != "layer_norm" or tuple(layer.expected.attributes["normalized_shape"]) != (1,)
        )
        if layer is None:
            return None
        if layer.nodes[-1].op_type in ("LayerNormalization", "RMSNormalization"):
            return edited(layer.output, lambda node: set_attribute(node, "epsilon", 1e-3))
        rooted = {node.input[0] for node in layer.nodes if node.op_type == "Sqrt"}
        added = next((node for node in layer.nodes if node.op_type == "Add" and node.output[0] in rooted), None)
        return None if added is None else _number(site, added, lambda _: np.float32(1e-3))

    return plan


def _number(site: Site, node: NodeProto, change: Callable[[np.ndarray], np.ndarray | np.float32]) -> Edit | None:
    """An operator with another constant in the place of its own."""
    held = {place: site.held(node, place) for place in range(len(node.input))}
    place, values = next(((p, v) for p, v in held.items() if v is not None), (0, None))
    if values is None:
        return None
    return reading(node.output[0], place, np.asarray(change(values), values.dtype).reshape(values.shape))


def _exponent(change: Callable[[np.ndarray], np.ndarray]) -> Plan:
    def plan(site: Site) -> Edit | None:
        layer = site.pick("pow", fits=lambda layer: layer.nodes[-1].op_type == "Pow" and len(layer.inputs) == 1)
        return None if layer is None else _number(site, layer.nodes[-1], change)

    return plan


def _gelu(site: Site) -> Edit | None:
    layer = site.pick("gelu", fits=lambda layer: layer.expected.attributes["approximate"] == "none")
    if layer is None:
        return None
    source, attributes = read_by(site.model, layer), {"approximate": "tanh"}
    node = replace(layer.expected, inputs=(source,), output=layer.output, home="planted", attributes=attributes)
    emit = Emitter(Graph({}, (node,), {}), site.model.opset)
    OPERATORS["gelu"].lower(emit, node)
    old = {node.output[0] for node in layer.nodes}

    def edit(proto: ModelProto) -> None:
        if not any(layer.output in node.output for node in proto.graph.node):
            return
        before = list(proto.graph.node)
        at = max(i for i, node in enumerate(before) if node.output[0] in old)
        kept = [node for node in before[:at] if node.output[0] not in old]
        del proto.graph.node[:]
        proto.graph.node.extend([*kept, *emit.nodes, *before[at + 1 :]])
        for name, values in emit.initialisers.items():
            proto.graph.initializer.append(numpy_helper.from_array(values, f"planted {name}"))
        for node in emit.nodes:
            renamed = [f"planted {name}" if name in emit.initialisers else name for name in node.input]
            found = next(n for n in proto.graph.node if n.output[0] == node.output[0])
            found.input[:] = renamed

    return edit


def _dropout(site: Site) -> Edit | None:
    """Dropout in training mode behind a linear layer."""
    layer = site.pick("linear")
    if layer is None:
        return None

    def edit(proto: ModelProto) -> None:
        maker = next((node for node in proto.graph.node if layer.output in node.output), None)
        if maker is None:
            return
        maker.output[0] = "planted value"
        at = list(proto.graph.node).index(maker) + 1
        nodes = [  # ONNX Runtime removes a Dropout whose training flag is a constant, even where that is true
            helper.make_node("Size", ["planted value"], ["planted size"]),
            helper.make_node("GreaterOrEqual", ["planted size", "planted zero"], ["planted training"]),
            helper.make_node("Dropout", ["planted value", "planted ratio", "planted training"], [layer.output], seed=1),
        ]
        for node in reversed(nodes):
            proto.graph.node.insert(at, node)
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(0.2, np.float32), "planted ratio"))
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(0, np.int64), "planted zero"))

    return edit


def _tf32_products(site: Site) -> Edit | None:
    """A runtime that rounds both factors of every matrix product to TF32, as the cores of a GPU do.

    x to 11 significant bits is c - (c - x), c = (2^13 + 1)·x, in float32 (Dekker, Numerische Mathematik 18, 1971).
    """
    layers = [layer for layer in site.layers if any(node.op_type in _PRODUCTS for node in layer.nodes)]
    if not layers:
        return None
    weights = {site.constant(layer, "weight") for layer in layers} - {None}
    made = {node.output[0] for layer in layers for node in layer.nodes if node.op_type in _PRODUCTS}

    def edit(proto: ModelProto) -> None:
        changed(*((str(name), tf32) for name in weights))(proto)
        splitter = numpy_helper.from_array(np.asarray(2**13 + 1, np.float32), "planted splitter")
        proto.graph.initializer.append(splitter)
        nodes: list[NodeProto] = []
        for node in proto.graph.node:
            if node.op_type in _PRODUCTS and node.output[0] in made:
                for place, x in enumerate(node.input[:2]):
                    if x in weights:
                        continue
                    own = f"planted {node.output[0]} {place}"
                    nodes.append(helper.make_node("Mul", [x, splitter.name], [f"{own} 0"]))
                    nodes.append(helper.make_node("Sub", [f"{own} 0", x], [f"{own} 1"]))
                    nodes.append(helper.make_node("Sub", [f"{own} 0", f"{own} 1"], [f"{own} 2"]))
                    node.input[place] = f"{own} 2"
            nodes.append(node)
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(kept)

    return edit


_OPPOSITE = {"Greater": "Less", "Less": "Greater", "GreaterOrEqual": "LessOrEqual", "LessOrEqual": "GreaterOrEqual"}
OPERATOR_FAULTS: dict[str, Plan] = {
    "slope 0.010001": _attribute("leaky_relu", "alpha", 0.010001),
    "slope 0.011": _attribute("leaky_relu", "alpha", 0.011),
    "slope 1.0": _attribute("leaky_relu", "alpha", 1.0),
    "sigmoid for hard-sigmoid": _operator({"HardSigmoid": "Sigmoid"}, "hardsigmoid", without=("alpha", "beta")),
    "ReLU for LeakyReLU": _operator({"LeakyRelu": "Relu"}, "leaky_relu", without=("alpha",)),
    "GELU tanh for erf": _gelu,
    "Dropout active": _dropout,
    "products rounded to TF32": _tf32_products,
    "sum over another dimension": _another_axis,
    "mean for sum": _reduction({"ReduceSum": "ReduceMean"}, "sum"),
    "sum for mean": _reduction({"ReduceMean": "ReduceSum"}, "mean"),
    "max for min": _operator({"Min": "Max", "ReduceMin": "ReduceMax"}, "minimum", "amin", "clamp"),
    "RMSNorm's epsilon 1e-3": _norm_epsilon("rms_norm"),
    "LayerNorm's epsilon 1e-3": _norm_epsilon("layer_norm"),
    "cos for sin": _operator({"Sin": "Cos"}, "sin"),
    "exponent one more": _exponent(lambda held: held + 1),
    "sides of a choice exchanged": _inputs("Where", lambda _: [0, 2, 1], "where"),
    "greater for less": _operator(_OPPOSITE, "lt", "gt", "le", "ge"),
    "concatenated in the other order": _inputs("Concat", lambda n: list(range(n))[::-1], "cat"),
    "factors of a product exchanged": _inputs("MatMul", lambda _: [1, 0], "matmul"),
    "softmax along another dimension": _softmax_axis,
}
