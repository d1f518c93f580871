"""What a block, or an operator, of an ONNX file is set to, read from its operators and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.model.onnx_messages import attribute, number, text

from .layers import CONSTANTS, OPTIONS, Option, option

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


def block_options(
    kind: str, nodes: Sequence[Any], constants: Constants, rank: int | None
) -> tuple[dict[str, Option], Constants]:
    """The options of a block that mlpx wrote, and its constants that are weights, by role.

    ``rank`` is the number of dimensions of its result, with that of the batch.
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
            options |= _of_attributes(node, rank)
        if kind == "gelu" and any(node.op_type == b"Tanh" for node in nodes):
            options["approximate"] = "tanh"
        held = [name for name in _HELD.get(kind, ()) if name in constants]
        weights = {role: values for role, values in constants.items() if role not in held}
        return options | {name: option(constants[name]) for name in held}, weights
    options = dict[str, Option]()
    for node in nodes:
        options |= _raw(node, rank)
    small = {role: option(values) for role, values in constants.items() if values.size == 1}
    return options | small, {role: values for role, values in constants.items() if role not in small}


def operator_options(node: Any, constants: Constants, rank: int | None) -> tuple[dict[str, Option], Constants]:
    """The options of an operator of any tool's file, and its constants that are weights; ``constants`` by role.

    ``rank`` is the number of dimensions of its result, with that of the batch; None where it is not known.
    """
    if node.op_type == b"Clip":
        names = {"input 1": "min", "input 2": "max"}
        limits = {names[role]: option(values) for role, values in constants.items() if role in names}
        ends: dict[str, Option] = {"min": number(node, "min", -np.inf), "max": number(node, "max", np.inf)}
        return ends | limits, {}
    if node.op_type == b"Softplus":
        return _usual("softplus"), constants
    if node.op_type in _ATTRIBUTES:
        return _usual(_ATTRIBUTES[node.op_type][0]) | _of_attributes(node, rank), constants
    small = {role: option(values) for role, values in constants.items() if values.size == 1}
    return _raw(node, rank) | small, {role: values for role, values in constants.items() if role not in small}


def _usual(kind: str) -> dict[str, Option]:
    return {name: option(value) for name, value in OPTIONS[kind].items()}


def _of_attributes(node: Any, rank: int | None) -> dict[str, Option]:
    if node.op_type not in _ATTRIBUTES:
        return {}
    _, name, held = _ATTRIBUTES[node.op_type]
    found = attribute(node, held)
    if found is None:
        return {}
    if name == "axis":
        return {name: -1 if _is_last(found.i, rank) else int(found.i)}
    return {name: text(found.s) if found.HasField("s") else option(found.f)}


def _is_last(axis: int, rank: int | None) -> bool:
    return axis == -1 or (rank is not None and axis == rank - 1)


def _raw(node: Any, rank: int | None) -> dict[str, Option]:
    """The attributes that are a number, whole numbers or a word, but not the last axis."""
    read: dict[str, Option] = {}
    for each in node.attribute:
        name = text(each.name)
        if name == "axis" and _is_last(each.i, rank):
            continue
        if each.HasField("f"):
            read[name] = option(each.f)
        elif each.HasField("i"):
            read[name] = int(each.i)
        elif each.HasField("s"):
            read[name] = text(each.s)
        elif each.ints:
            read[name] = " ".join(map(str, each.ints))
    return read
