"""Faults of constants: weights and biases that are wrong, exchanged or rounded, and statistics that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from export.graph import Node
from export.proof.refolding import refolded
from export.proof.structure import Layer

from .edits import Change, Edit, bf16, changed, edited, fp16, int8, set_attribute, tf32
from .sites import Plan, Site

_ELEMENTWISE = ("relu", "leaky_relu", "sigmoid", "tanh", "elu", "gelu", "silu", "softplus", "hardsigmoid", "clamp")


def _matrix(site: Site, fits: Callable[[np.ndarray], bool]) -> tuple[Layer, str] | None:
    """A linear layer whose weight fits, and the name of that weight."""
    layer = site.pick("linear", fits=lambda layer: fits(layer.expected.tensors["weight"].values))
    name = site.constant(layer, "weight") if layer is not None else None
    return None if layer is None or name is None else (layer, name)


def _is_turned(_site: Site, layer: Layer, name: str) -> bool:
    """Whether the file has a weight as (in, out), for a MatMul or a Gemm that does not transpose."""
    reader = next(node for node in layer.nodes if name in node.input)
    return not any(a.name == "transB" and a.i for a in reader.attribute)


def _element(change: Callable[[Any], float]) -> Plan:
    """One weight that is not zero."""

    def plan(site: Site) -> Edit | None:
        found = _matrix(site, lambda weight: bool(weight.any()))
        if found is None:
            return None
        _, name = found
        places = np.argwhere(site.model.constants[name] != 0)
        place = tuple(places[site.rng.integers(len(places))])

        def one(values: np.ndarray) -> np.ndarray:
            values[place] = change(values[place])
            return values

        return changed((name, one))

    return plan


def _relative(size: float) -> Plan:
    return _element(lambda w: float(np.float32(w * np.float64(1 + size))))


def _swap(site: Site) -> Edit | None:
    found = _matrix(site, lambda weight: len(np.unique(weight)) > 1)
    if found is None:
        return None
    flat = site.model.constants[found[1]].reshape(-1)
    first = int(site.rng.integers(flat.size))
    others = np.flatnonzero(flat != flat[first])
    second = int(others[site.rng.integers(len(others))])

    def swap(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(-1)
        flat[[first, second]] = flat[[second, first]]
        return values

    return changed((found[1], swap))


def _transpose(site: Site) -> Edit | None:
    found = _matrix(site, lambda weight: len(set(weight.shape)) == 1)
    return None if found is None else changed((found[1], lambda values: values.T))


def _exchanged(first: int, second: int, axis: int) -> Change:
    """Two rows or columns of a table in each other's place."""

    def exchange(values: np.ndarray) -> np.ndarray:
        order = np.arange(values.shape[axis])
        order[[first, second]] = second, first
        return np.take(values, order, axis=axis)

    return exchange


def _two_unlike(site: Site, table: np.ndarray) -> tuple[int, int] | None:
    """Two rows of a table that differ."""
    first = int(site.rng.integers(len(table)))
    others = np.flatnonzero((table != table[first]).any(axis=1))
    return (first, int(others[site.rng.integers(len(others))])) if len(others) else None


def _columns(site: Site) -> Edit | None:
    """The weights of two input features of a linear layer, each in the other's place."""
    found = _matrix(site, lambda weight: weight.shape[1] > 1)
    if found is None:
        return None
    layer, name = found
    pair = _two_unlike(site, layer.expected.tensors["weight"].values.T)
    return None if pair is None else changed((name, _exchanged(*pair, axis=0 if _is_turned(site, *found) else 1)))


def _embedding_rows(site: Site) -> Edit | None:
    layer = site.pick("embedding")
    name = site.constant(layer, "weight") if layer is not None else None
    pair = _two_unlike(site, site.model.constants[name]) if name is not None else None
    return None if name is None or pair is None else changed((name, _exchanged(*pair, axis=0)))


def _bias(change: Change) -> Plan:
    def plan(site: Site) -> Edit | None:
        layer = site.pick("linear", fits=lambda layer: "bias" in layer.expected.tensors)
        name = site.constant(layer, "bias") if layer is not None else None
        return None if name is None else changed((name, change))

    return plan


def _no_bias(site: Site) -> Edit | None:
    layer = site.pick("linear", fits=lambda layer: "bias" in layer.expected.tensors and len(layer.nodes) <= 2)

    def change(node: NodeProto) -> None:
        node.input.pop()
        if node.op_type == "Add":
            node.op_type = "Identity"

    return None if layer is None else edited(layer.output, change)


def _layers_swapped(site: Site) -> Edit | None:
    """The constants of two linear layers of one shape, each in the other's place."""
    linear = [layer for layer in site.layers if layer.expected.op == "linear"]
    for i in site.rng.permutation(len(linear)).tolist():
        for other in linear[i + 1 :]:
            roles = [role for role in ("weight", "bias") if role in linear[i].expected.tensors]
            shapes = [
                [layer.expected.tensors[r].values.shape for r in layer.expected.tensors] for layer in (linear[i], other)
            ]
            names = [(site.constant(linear[i], role), site.constant(other, role)) for role in roles]
            if shapes[0] == shapes[1] and all(a is not None and b is not None and a != b for a, b in names):
                held = {name: site.model.constants[name].copy() for pair in names for name in pair if name}
                pairs = [(str(a), str(b)) for a, b in names]
                both = [*pairs, *((b, a) for a, b in pairs)]
                return changed(*((a, lambda _, new=held[b]: new) for a, b in both))
    return None


def _scaled(site: Site) -> Edit | None:
    layer = site.pick("linear")
    if layer is None:
        return None
    names = [site.constant(layer, role) for role in ("weight", "bias")]
    factor = np.float32(1 + 1e-5)
    return changed(*((name, lambda values: values * factor) for name in names if name is not None))


def _rounded(rounding: Change) -> Plan:
    """Every weight matrix."""

    def plan(site: Site) -> Edit | None:
        names = [site.constant(layer, "weight") for layer in site.layers if layer.expected.op == "linear"]
        found = [(name, rounding) for name in names if name is not None]
        return changed(*found) if found else None

    return plan


def _mean_and_std(site: Site) -> Edit | None:
    """What a Standardize subtracts and what it divides by, each in the other's place."""
    divisions = {
        layer.inputs[0]: layer for layer in site.layers if layer.expected.op == "div" and len(layer.inputs) == 1
    }
    layer = site.pick("sub", fits=lambda layer: len(layer.inputs) == 1 and layer.output in divisions)
    if layer is None:
        return None
    names = [site.constant(one, "other") for one in (layer, divisions[layer.output])]
    if names[0] is None or names[1] is None:
        return None
    mean, std = (site.model.constants[name].copy() for name in names if name is not None)
    if names[0] == names[1] or mean.shape != std.shape or np.array_equal(mean, std):
        return None
    return changed((names[0], lambda _: std), (names[1], lambda _: mean))


def _batch_norm_epsilon(site: Site) -> Edit | None:
    """1e-3 in the place of a BatchNorm's own epsilon, folded or not."""
    layer = site.pick("batch_norm")
    if layer is not None:
        return edited(layer.output, lambda node: set_attribute(node, "epsilon", 1e-3))
    layer = site.pick("linear", "addcmul", fits=lambda layer: any(m.op == "batch_norm" for m in layer.source_nodes))
    if layer is None:
        return None

    def other(member: Node) -> Node:
        wrong = {**member.attributes, "eps": 1e-3}
        return replace(member, attributes=wrong) if member.op == "batch_norm" else member

    roles = {"factor": "tensor2", "offset": "self"}
    constants = {
        roles.get(role, role): v for role, v in refolded([other(member) for member in layer.source_nodes]).items()
    }
    right = {role: tensor.values for role, tensor in layer.expected.tensors.items()}
    moved = {
        role: constants[role].astype(np.float64) / np.where(right[role] == 0, 1, right[role]) for role in constants
    }
    found = [(site.constant(layer, role), factor) for role, factor in moved.items()]
    turned = {name for name, factor in found if name and site.model.constants[name].shape != factor.shape}
    changes = [(name, factor.T if name in turned else factor) for name, factor in found if name]
    return changed(*((name, lambda values, f=factor: values * f) for name, factor in changes))


def _reversed(site: Site) -> Edit | None:
    """The outputs in the opposite order, where nothing behind the last linear layer mixes or names features."""
    last = next((i for i in range(len(site.layers))[::-1] if site.layers[i].expected.op == "linear"), None)
    if last is None or any(layer.expected.op not in (*_ELEMENTWISE, "softmax") for layer in site.layers[last + 1 :]):
        return None
    layer = site.layers[last]
    names = [site.constant(layer, role) for role in ("weight", "bias")]
    turned = _is_turned(site, layer, str(names[0]))
    changes: list[Change] = [lambda v: v[:, ::-1] if turned else v[::-1], lambda v: v[::-1]]
    return changed(*((name, change) for name, change in zip(names, changes, strict=True) if name is not None))


WEIGHTS: dict[str, Plan] = {
    "one weight by 1 ulp": _element(lambda w: float(np.nextafter(w, np.float32(np.inf)))),
    "one weight by 1e-6": _relative(1e-6),
    "one weight by 1e-4": _relative(1e-4),
    "one weight by 1e-3": _relative(1e-3),
    "two entries swapped": _swap,
    "two columns swapped": _columns,
    "square weight transposed": _transpose,
    "bias missing": _no_bias,
    "bias negated": _bias(lambda values: -values),
    "bias shifted by one": _bias(lambda values: np.roll(values, 1)),
    "two layers swapped": _layers_swapped,
    "a layer scaled by 1 + 1e-5": _scaled,
    "weights rounded to TF32": _rounded(tf32),
    "weights rounded to fp16": _rounded(fp16),
    "weights rounded to bf16": _rounded(bf16),
    "weights rounded to int8": _rounded(int8),
    "mean and std swapped": _mean_and_std,
    "BatchNorm's epsilon 1e-3": _batch_norm_epsilon,
    "output order reversed": _reversed,
    "NaN in a weight": _element(lambda _: float("nan")),
    "two rows of an embedding exchanged": _embedding_rows,
}
