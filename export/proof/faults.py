"""Faults planted on purpose, to measure what a gate sees.

A fault is planned for one file and then is an edit by names: applied to the file itself, or by a runtime (``faulty``)
to every model that it opens, which is a fault that no look at the file can find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export.emitter import Emitter
from export.graph import Node
from export.operators import gelu

from .edits import Change, Edit, bf16, changed, edited, fp16, int8, tf32
from .reading import Model
from .refolding import refolded
from .running import Opener, Running
from .structure import Layer, Structure


@dataclass(frozen=True)
class Site:
    """A file, its layers, and the generator that picks where in it a fault goes."""

    model: Model
    layers: Sequence[Layer]
    rng: np.random.Generator

    def pick(self, op: str, fits: Callable[[Layer], bool] = lambda layer: True) -> Layer | None:
        """A layer of this kind; None where there is none."""
        found = [layer for layer in self.layers if layer.held.op == op and fits(layer)]
        return found[self.rng.integers(len(found))] if found else None

    def constant(self, layer: Layer, role: str) -> str | None:
        """The file's name for a tensor of a layer."""
        held = layer.held.tensors.get(role)
        if held is None:
            return None
        names = [name for node in layer.nodes for name in node.input if name in self.model.constants]
        return next(
            (n for n in names if self.model.constants[n].shape in (held.values.shape, held.values.shape[::-1])), None
        )


Plan = Callable[[Site], Edit | None]


def _element(change: Callable[[Any], float]) -> Plan:
    """One weight that is not zero."""

    def plan(site: Site) -> Edit | None:
        layer = site.pick("linear", lambda layer: bool(layer.held.tensors["weight"].values.any()))
        name = site.constant(layer, "weight") if layer is not None else None
        if name is None:
            return None
        held = site.model.constants[name]
        places = np.argwhere(held != 0)
        place = tuple(places[site.rng.integers(len(places))])

        def one(values: np.ndarray) -> np.ndarray:
            values[place] = change(values[place])
            return values

        return changed((name, one))

    return plan


def _swap(site: Site) -> Edit | None:
    layer = site.pick("linear", lambda layer: len(np.unique(layer.held.tensors["weight"].values)) > 1)
    name = site.constant(layer, "weight") if layer is not None else None
    if name is None:
        return None
    flat = site.model.constants[name].reshape(-1)
    first = int(site.rng.integers(flat.size))
    others = np.flatnonzero(flat != flat[first])
    second = int(others[site.rng.integers(len(others))])

    def swap(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(-1)
        flat[[first, second]] = flat[[second, first]]
        return values

    return changed((name, swap))


def _transpose(site: Site) -> Edit | None:
    layer = site.pick("linear", lambda layer: len(set(layer.held.tensors["weight"].values.shape)) == 1)
    name = site.constant(layer, "weight") if layer is not None else None
    return None if name is None else changed((name, lambda values: values.T))


def _bias(change: Change) -> Plan:
    def plan(site: Site) -> Edit | None:
        layer = site.pick("linear", lambda layer: "bias" in layer.held.tensors)
        name = site.constant(layer, "bias") if layer is not None else None
        return None if name is None else changed((name, change))

    return plan


def _no_bias(site: Site) -> Edit | None:
    layer = site.pick("linear", lambda layer: "bias" in layer.held.tensors and len(layer.nodes) == 1)

    def change(node: NodeProto) -> None:
        node.input.pop()

    return None if layer is None else edited(layer.output, change)


def _attribute(op: str, name: str, value: float) -> Plan:
    def plan(site: Site) -> Edit | None:
        layer = site.pick(op)

        def change(node: NodeProto) -> None:
            kept = [a for a in node.attribute if a.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, value)])

        return None if layer is None else edited(layer.output, change)

    return plan


def _operator(op: str, becomes: str) -> Plan:
    def plan(site: Site) -> Edit | None:
        layer = site.pick(op)

        def change(node: NodeProto) -> None:
            node.op_type = becomes
            del node.attribute[:]

        return None if layer is None else edited(layer.output, change)

    return plan


def _gelu(site: Site) -> Edit | None:
    layer = site.pick("gelu", lambda layer: layer.held.attributes["approximate"] == "none")
    if layer is None:
        return None
    emit = Emitter(["planted"])
    attributes = {"approximate": "tanh"}
    gelu(emit, replace(layer.held, inputs=layer.inputs, output=layer.output, path="planted", attributes=attributes))
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


def _layers_swapped(site: Site) -> Edit | None:
    """The constants of two linear layers of one shape, each in the other's place."""
    linear = [layer for layer in site.layers if layer.held.op == "linear"]
    for i in site.rng.permutation(len(linear)).tolist():
        for other in linear[i + 1 :]:
            roles = [role for role in ("weight", "bias") if role in linear[i].held.tensors]
            shapes = [[layer.held.tensors[r].values.shape for r in layer.held.tensors] for layer in (linear[i], other)]
            names = [(site.constant(linear[i], role), site.constant(other, role)) for role in roles]
            if shapes[0] == shapes[1] and all(a is not None and b is not None and a != b for a, b in names):
                held = {name: site.model.constants[name].copy() for pair in names for name in pair if name}
                pairs = [(str(a), str(b)) for a, b in names]
                both = [*pairs, *((b, a) for a, b in pairs)]
                return changed(*((a, lambda values, new=held[b]: new) for a, b in both))
    return None


def _scaled(site: Site) -> Edit | None:
    layer = site.pick("linear")
    if layer is None:
        return None
    names = [site.constant(layer, role) for role in ("weight", "bias")]
    factor = np.float32(1 + 1e-5)
    return changed(*((name, lambda values: values * factor) for name in names if name is not None))


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


def _rounded(rounding: Change) -> Plan:
    """Every weight matrix."""

    def plan(site: Site) -> Edit | None:
        names = [site.constant(layer, "weight") for layer in site.layers if layer.held.op == "linear"]
        found = [(name, rounding) for name in names if name is not None]
        return changed(*found) if found else None

    return plan


def _tf32_products(site: Site) -> Edit | None:
    """A runtime that rounds both factors of every product of a Gemm to TF32, as the cores of a GPU do.

    x to 11 significant bits is c - (c - x), c = (2^13 + 1)·x, in float32 (Dekker, Numerische Mathematik 18, 1971).
    """
    if not any(layer.held.op == "linear" for layer in site.layers):
        return None
    names = {site.constant(layer, "weight") for layer in site.layers if layer.held.op == "linear"}

    def edit(proto: ModelProto) -> None:
        changed(*((name, tf32) for name in names if name is not None))(proto)
        splitter = numpy_helper.from_array(np.asarray(2**13 + 1, np.float32), "planted splitter")
        proto.graph.initializer.append(splitter)
        nodes: list[NodeProto] = []
        for node in proto.graph.node:
            if node.op_type == "Gemm" and names.intersection(node.input):
                x, own = node.input[0], f"planted {node.output[0]}"
                nodes.append(helper.make_node("Mul", [x, splitter.name], [f"{own} 0"]))
                nodes.append(helper.make_node("Sub", [f"{own} 0", x], [f"{own} 1"]))
                nodes.append(helper.make_node("Sub", [f"{own} 0", f"{own} 1"], [f"{own} 2"]))
                node.input[0] = f"{own} 2"
            nodes.append(node)
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(kept)

    return edit


def _mean_and_std(site: Site) -> Edit | None:
    layer = site.pick("standardize")
    if layer is None:
        return None
    names = [next(n for n in node.input if n in site.model.constants) for node in layer.nodes]
    held = {name: site.model.constants[name].copy() for name in names}
    if names[0] == names[1] or np.array_equal(held[names[0]], held[names[1]]):
        return None
    return changed((names[0], lambda values: held[names[1]]), (names[1], lambda values: held[names[0]]))


def _epsilon(site: Site) -> Edit | None:
    """1e-3 in the place of a BatchNorm's own epsilon, folded or not."""
    layer = site.pick("batch_norm")
    if layer is not None:
        return _attribute("batch_norm", "epsilon", 1e-3)(site)
    layer = site.pick("linear", lambda layer: any(member.op == "batch_norm" for member in layer.members))
    if layer is None:
        return None

    def other(member: Node) -> Node:
        wrong = {**member.attributes, "eps": 1e-3}
        return replace(member, attributes=wrong) if member.op == "batch_norm" else member

    constants = refolded([other(member) for member in layer.members])
    right = {role: tensor.values for role, tensor in layer.held.tensors.items()}
    moved = {
        role: constants[role].astype(np.float64) / np.where(right[role] == 0, 1, right[role]) for role in constants
    }
    found = [(site.constant(layer, role), factor) for role, factor in moved.items()]
    return changed(*((str(name), lambda values, f=factor: values * f) for name, factor in found if name))


def _reversed(site: Site) -> Edit | None:
    """The outputs in the opposite order, where nothing behind the last linear layer mixes or names features."""
    last = next((i for i in range(len(site.layers))[::-1] if site.layers[i].held.op == "linear"), None)
    blending = ("add", "batch_norm", "layer_norm", "scale", "standardize")
    if last is None or any(layer.held.op in blending for layer in site.layers[last:]):
        return None
    layer = site.layers[last]
    names = [site.constant(layer, role) for role in ("weight", "bias")]
    turned = np.array_equal(site.model.constants[str(names[0])].shape, layer.held.tensors["weight"].values.shape)
    changes: list[Change] = [lambda v: v[::-1] if turned else v[:, ::-1], lambda v: v[::-1]]
    return changed(*((name, change) for name, change in zip(names, changes, strict=True) if name is not None))


FAULTS: dict[str, Plan] = {
    "one weight by 1 ulp": _element(lambda w: float(np.nextafter(w, np.float32(np.inf)))),
    "one weight by 1e-6": _element(lambda w: float(np.float32(w * np.float64(1 + 1e-6)))),
    "one weight by 1e-4": _element(lambda w: float(np.float32(w * np.float64(1 + 1e-4)))),
    "one weight by 1e-3": _element(lambda w: float(np.float32(w * np.float64(1 + 1e-3)))),
    "two entries swapped": _swap,
    "square weight transposed": _transpose,
    "bias missing": _no_bias,
    "bias negated": _bias(lambda values: -values),
    "bias shifted by one": _bias(lambda values: np.roll(values, 1)),
    "slope 0.010001": _attribute("leaky_relu", "alpha", 0.010001),
    "slope 0.011": _attribute("leaky_relu", "alpha", 0.011),
    "slope 1.0": _attribute("leaky_relu", "alpha", 1.0),
    "sigmoid for hard-sigmoid": _operator("hardsigmoid", "Sigmoid"),
    "ReLU for LeakyReLU": _operator("leaky_relu", "Relu"),
    "GELU tanh for erf": _gelu,
    "two layers swapped": _layers_swapped,
    "a layer scaled by 1 + 1e-5": _scaled,
    "Dropout active": _dropout,
    "weights rounded to TF32": _rounded(tf32),
    "weights rounded to fp16": _rounded(fp16),
    "weights rounded to bf16": _rounded(bf16),
    "weights rounded to int8": _rounded(int8),
    "products rounded to TF32": _tf32_products,
    "mean and std swapped": _mean_and_std,
    "BatchNorm's epsilon 1e-3": _epsilon,
    "output order reversed": _reversed,
    "NaN in a weight": _element(lambda w: float("nan")),
}
RUNTIME_ONLY = ("products rounded to TF32",)
"""Faults that no file can hold."""


def plan(name: str, model: Model, structure: Structure, seed: int) -> Edit | None:
    """Where a fault goes in this file; None where the file has no place for it, or where it would change nothing."""
    edit = FAULTS[name](Site(model, structure.layers, np.random.default_rng(seed)))
    if edit is None:
        return None
    proto = onnx.load(str(model.path))
    edit(proto)
    return None if _same(proto, model) else edit


def _same(proto: ModelProto, model: Model) -> bool:
    if list(proto.graph.node) != list(model.proto.graph.node):
        return False
    return all(numpy_helper.to_array(t).tobytes() == model.constants[t.name].tobytes() for t in proto.graph.initializer)


def planted(model: Model, edit: Edit, path: Path) -> None:
    """Write the file with the fault."""
    proto = onnx.load(str(model.path))
    edit(proto)
    path.write_bytes(proto.SerializeToString())


def faulty(opener: Opener, edit: Edit) -> Opener:
    """A runtime that has the fault: whatever it opens, it edits first."""

    def opened(source: Path | bytes) -> Running:
        proto = onnx.load(str(source)) if isinstance(source, Path) else onnx.load_from_string(source)
        edit(proto)
        return opener(proto.SerializeToString())

    return opened
