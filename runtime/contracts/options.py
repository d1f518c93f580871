"""What a block, or an operator, of an ONNX file is set to, read from its operators and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.model.onnx_messages import attribute, integer, number, text

from .layers import CONSTANTS, OPTIONS, Option, option
from .wiring import array_words

_ATTRIBUTES = {
    b"Elu": ("elu", "alpha", "alpha"),
    b"LeakyRelu": ("leaky_relu", "negative_slope", "alpha"),
    b"LayerNormalization": ("layer_norm", "eps", "epsilon"),
    b"BatchNormalization": ("batch_norm", "eps", "epsilon"),
    b"Gelu": ("gelu", "approximate", "approximate"),
    b"Softmax": ("softmax", "axis", "axis"),
}
"""Of an operator: its block, the option of this, and the attribute that has it."""
_HELD = {"softplus": ("beta", "threshold"), "layer_norm": ("eps",)}
"""The options of a block that mlpx writes as constants by their names."""
_PLAIN = ("sigmoid", "relu", "tanh", "silu", "relu6", "hardsigmoid", "softsign")
"""Blocks without options: all of their constants are parts of the formula."""
Constants = Mapping[str, np.ndarray]
Held = np.ndarray | str
"""A constant: float32 numbers, or in words."""
ALIKE: dict[str, dict[int, str]] = {
    "Slice": {1: "starts", 2: "ends", 3: "axes", 4: "steps"},
    "Split": {1: "split"},
    "Squeeze": {1: "axes"},
    "Unsqueeze": {1: "axes"},
    **{f"Reduce{each}": {1: "axes"} for each in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare")},
}
"""The constants of operators that are attributes in older opsets, by their places."""
_AXIS_0 = (b"Gather", b"ArgMax", b"ArgMin", b"Split", b"Compress")
_DEFAULTS: dict[bytes, dict[str, float | int]] = {
    b"HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    b"Celu": {"alpha": 1.0},
    b"ThresholdedRelu": {"alpha": 1.0},
    b"Selu": {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805},
    b"Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
    b"BatchNormalization": {"training_mode": 0, "spatial": 1},
    b"LayerNormalization": {"stash_type": 1},
    b"Reshape": {"allowzero": 0},
    b"Trilu": {"upper": 1},
    **{f"Reduce{name}".encode(): {"keepdims": 1} for name in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2")},
    b"ArgMax": {"keepdims": 1},
    b"ArgMin": {"keepdims": 1},
}
"""What attributes are where a file leaves them out, which is left out here too."""
_HARD_SIGMOID: dict[str, Option] = {"alpha": option(1 / 6), "beta": 0.5}
"""The block's."""


def block_options(
    kind: str,
    nodes: Sequence[Any],
    constants: Constants,
    others: Sequence[Mapping[int, Held]],
    rank: int | None,
    opset: int,
) -> tuple[dict[str, Option], Constants]:
    """The options of a block that mlpx wrote, and its constants that are weights, by role.

    ``others`` are the constants of each of its operators that have no role in it, by their places. ``rank`` is the
    number of dimensions of its result, with that of the batch.
    """
    if kind in CONSTANTS:
        roles = CONSTANTS[kind]
        limits = {role: found for role in roles for node in nodes if (found := attribute(node, role)) is not None}
        read = {role: option(found.f) for role, found in limits.items()}
        return read | {role: option(constants[role]) for role in roles if role in constants}, {}
    if kind in _PLAIN:
        return {}, {}
    if kind in OPTIONS:
        options = _usual(kind)
        for node in nodes:
            options |= _of_attributes(node, rank, opset)
        if kind == "gelu" and any(node.op_type == b"Tanh" for node in nodes):
            options["approximate"] = "tanh"
        if kind == "layer_norm":
            options |= _first_axis(nodes, others, rank)
        held = [name for name in _HELD.get(kind, ()) if name in constants]
        weights = {role: values for role, values in constants.items() if role not in held}
        return options | {name: option(constants[name]) for name in held}, weights
    options = dict[str, Option]()
    if any(text(node.op_type).lower() != kind for node in nodes):
        options["operators"] = " ".join(text(node.op_type) for node in nodes)
    for node, held in zip(nodes, others, strict=True):
        named = ALIKE.get(text(node.op_type), {})
        found = _raw(node, rank, opset) | {
            named.get(place, f"input {place}"): each if isinstance(each, str) else array_words(each)
            for place, each in held.items()
        }
        for name, value in found.items():
            options[name if options.get(name, value) == value else f"{name} {len(options)}"] = value
    small = {role: option(values) for role, values in constants.items() if values.size == 1}
    return options | small, {role: values for role, values in constants.items() if role not in small}


def operator_options(
    node: Any, constants: Mapping[str, Held], rank: int | None, opset: int
) -> tuple[dict[str, Option], Constants]:
    """The options of an operator of any tool's file, and its constants that are weights; ``constants`` by role.

    ``rank`` is the number of dimensions of its result, with that of the batch; None where it is not known.
    """
    words: dict[str, Option] = {role: each for role, each in constants.items() if isinstance(each, str)}
    arrays = {role: each for role, each in constants.items() if not isinstance(each, str)}
    small = {role: option(values) for role, values in arrays.items() if values.size == 1}
    weights = {role: values for role, values in arrays.items() if role not in small}
    if node.op_type == b"Clip":
        names = {"input 1": "min", "input 2": "max"}
        limits = {names[role]: option(values) for role, values in arrays.items() if role in names}
        limits |= {names.get(role, role): each for role, each in words.items()}
        ends: dict[str, Option] = {"min": number(node, "min", -np.inf), "max": number(node, "max", np.inf)}
        return ends | limits, {}
    if node.op_type == b"Softplus":
        return _usual("softplus") | words, arrays
    if node.op_type in _ATTRIBUTES:
        _, name, held = _ATTRIBUTES[node.op_type]
        rest = {key: value for key, value in _raw(node, rank, opset).items() if key not in (held, name, "momentum")}
        return _usual(_ATTRIBUTES[node.op_type][0]) | rest | words | _of_attributes(node, rank, opset), arrays
    options = _raw(node, rank, opset) | words | small
    if node.op_type == b"HardSigmoid":
        given = {name: option(value) for name, value in _DEFAULTS[node.op_type].items()} | options
        options = {} if given == _HARD_SIGMOID else given
    return options, weights


def _usual(kind: str) -> dict[str, Option]:
    return {name: option(value) for name, value in OPTIONS[kind].items()}


def _first_axis(nodes: Sequence[Any], others: Sequence[Mapping[int, Held]], rank: int | None) -> dict[str, Option]:
    """The first axis that a layer norm is over, if it is not the last one."""
    for node, held in zip(nodes, others, strict=True):
        axes = attribute(node, "axes")
        listed = str(held.get(1, "-1")) if axes is None else " ".join(map(str, axes.ints))
        if node.op_type == b"LayerNormalization":
            listed = str(integer(node, "axis", -1))
        elif node.op_type != b"ReduceMean":
            continue
        first = int(listed.partition(" ")[0])
        if first != -1 and (rank is None or first != rank - 1):
            return {"axis": first}
    return {}


def _of_attributes(node: Any, rank: int | None, opset: int) -> dict[str, Option]:
    if node.op_type not in _ATTRIBUTES:
        return {}
    _, name, held = _ATTRIBUTES[node.op_type]
    if name == "axis":
        return {name: _axis(node, rank, opset)}
    found = attribute(node, held)
    if found is None:
        return {}
    return {name: text(found.s) if found.HasField("s") else option(found.f)}


def _axis(node: Any, rank: int | None, opset: int) -> int | str:
    """-1 for the last axis. Before opset 13 a softmax is over all dimensions from its axis on."""
    together = opset < 13 and node.op_type in (b"Softmax", b"LogSoftmax", b"Hardmax")
    axis = integer(node, "axis", 0 if node.op_type in _AXIS_0 else 1 if together else -1)
    if axis == -1 or (rank is not None and axis == rank - 1):
        return -1
    return f"{axis} and those after it" if together else axis


def _raw(node: Any, rank: int | None, opset: int) -> dict[str, Option]:
    """The attributes, but the last axis, and those that say what is so without them; a graph or a tensor as a hash."""
    read: dict[str, Option] = {}
    usual = _DEFAULTS.get(node.op_type, {})
    has_axis = node.op_type in (*_AXIS_0, b"LogSoftmax", b"Hardmax", b"LayerNormalization")
    if (has_axis or attribute(node, "axis") is not None) and (axis := _axis(node, rank, opset)) != -1:
        read["axis"] = axis
    for each in node.attribute:
        name = text(each.name)
        if name == "axis":
            continue
        if each.HasField("f"):
            read[name] = option(each.f)
        elif each.HasField("i"):
            read[name] = int(each.i)
        elif each.HasField("s"):
            read[name] = text(each.s)
        elif each.ints:
            read[name] = " ".join(map(str, each.ints))
        elif len(each.floats):
            read[name] = array_words(np.asarray(each.floats, np.float32))
        else:
            content = each.SerializePartialToString(deterministic=True)
            read[name] = array_words(np.frombuffer(content, np.uint8))
    return {name: value for name, value in read.items() if name not in usual or value != option(usual[name])}
