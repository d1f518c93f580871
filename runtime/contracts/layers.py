"""A layer of a network: its kind, what it is set to and its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .steps import DEFAULTS

Option = float | str | tuple[float, ...]
"""A number, rounded to float32 unless it is whole, a word, or a number for each feature."""
OPTIONS: dict[str, dict[str, float | str]] = {
    "elu": {"alpha": 1.0},
    "leaky_relu": {"negative_slope": 0.01},
    "gelu": {"approximate": "none"},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "softmax": {"axis": -1},
    "layer_norm": {"eps": 1e-5},
    "batch_norm": {"eps": 1e-5},
}
"""The blocks of a spec that compute another function with another option, and what they have without it."""
CONSTANTS: dict[str, tuple[str, ...]] = {
    **{kind: tuple(roles) for kind, roles in DEFAULTS.items()},
    "impute": ("value",),
}
"""The blocks whose constants are options of the contract, not weights."""
_NEUTRAL = {"weight": 1, "bias": 0}
"""Weights without effect, which a file may have to hold where the module has none."""
_NORMS = ("batch_norm", "layer_norm")
WEIGHED = ("linear", *_NORMS)
"""The blocks with weights."""
STRUCTURE = ("bias", "affine", "elementwise_affine", "batch_norm")
"""Options that a layer has only where its weights are not known, which say them else; the last is the eps of the
batch_norms that are folded into a linear layer, or "none"."""


@dataclass(frozen=True)
class Layer:
    """A layer: a block's name in a spec, or an operator's in small letters."""

    kind: str
    inputs: int | None = None
    """Of a linear layer."""
    outputs: int | None = None
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])
    """A block's options by their names in a spec; an operator's attributes, and constants of one number.

    One that is not known is left out.
    """
    digest: str | None = None
    """The SHA-256 of its weights; None of a block without, or where they are not known."""
    weights: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray], compare=False, repr=False)
    """float32 by role; empty where they are not known. The ``weight`` of a linear layer is (inputs, outputs)."""
    reads: tuple[str, ...] | None = None
    """What makes the values that it reads, as ``layer 2`` or ``input 1``; None where that is not known."""

    def __str__(self) -> str:
        known = f"linear {self.inputs} to {self.outputs}" if self.kind == "linear" else self.kind
        usual = OPTIONS.get(self.kind, {})
        parts = [known]
        for name, value in self.options.items():
            if value is False:
                parts.append(f"without {name}")
            elif value is not True and value != "none" and (name not in usual or value != option(usual[name])):
                alone = len(usual) == 1 and name in usual and not isinstance(value, int)
                parts.append(written(value) if alone else f"{name} {written(value)}")
        return " ".join(parts)


def written(value: Option) -> str:
    """An option in words."""
    if isinstance(value, tuple):
        return f"of {len(value):,} features"
    return str(np.float32(value)) if isinstance(value, float) else str(value)


def option(value: Any) -> Option:
    """A number, a word, or numbers of each feature, as ``Layer.options`` has it: of equal numbers there is one.

    Raises ValueError, TypeError, OverflowError: none of these.
    """
    if isinstance(value, str):
        return value
    with np.errstate(over="ignore"):
        numbers = np.asarray(value, np.float32).reshape(-1)
    if value is None or not numbers.size:
        raise ValueError("an option has no value")
    if isinstance(value, int):
        return value
    listed = tuple(map(float, numbers))
    return listed[0] if len(set(numbers.view(np.uint32).tolist())) == 1 else listed


def differing(one: Option, other: Option) -> int:
    """How many numbers of two options differ, where one number stands for as many as the other has."""
    if isinstance(one, str | int) and isinstance(other, str | int):
        return int(str(one) != str(other))
    if isinstance(one, str) or isinstance(other, str):
        return 1
    a, b = (np.asarray(each, np.float64).reshape(-1) for each in (one, other))
    if 1 not in (a.size, b.size) and a.size != b.size:
        return max(a.size, b.size)
    return int(((a != b) & ~(np.isnan(a) & np.isnan(b))).sum())


def layer(kind: str, weights: Mapping[str, np.ndarray], options: Mapping[str, Option] | None = None) -> Layer:
    """A layer with its weights by role, and the digest of these. A factor of 1 or a bias of 0 counts as none."""
    arrays = {role: np.asarray(weights[role], np.float32) for role in sorted(weights)}
    for role in ("bias",) if kind == "linear" else tuple(_NEUTRAL) if kind in _NORMS else ():
        if role in arrays and (arrays[role] == _NEUTRAL[role]).all():
            del arrays[role]
    weight = arrays.get("weight")
    inputs, outputs = weight.shape if kind == "linear" and weight is not None and weight.ndim == 2 else (None, None)
    digest = hashlib.sha256()
    for role, values in arrays.items():
        digest.update(f"{role} {values.shape}\n".encode() + np.ascontiguousarray(values, "<f4").tobytes())
    return Layer(
        kind, inputs, outputs, dict(options or {}), digest.hexdigest() if arrays or kind in WEIGHED else None, arrays
    )


def in_order(layers: Sequence[Layer], inputs: Sequence[int] | None, outputs: Sequence[int] | None) -> list[Layer]:
    """The layers with the features of the network in another order: of each its present index."""
    linear = [index for index, each in enumerate(layers) if each.kind == "linear"] or [len(layers)]
    found: list[Layer] = []
    for index, each in enumerate(layers):
        if index in linear:
            first, last = index == linear[0], index == linear[-1]
            found.append(_rearranged(each, inputs if first else None, outputs if last else None))
        else:
            order = inputs if index < linear[0] else outputs if index > linear[-1] else None
            found.append(each if order is None else _taken(each, order))
    return found


def _rearranged(found: Layer, inputs: Sequence[int] | None, outputs: Sequence[int] | None) -> Layer:
    """A linear layer."""
    weights = dict(found.weights)
    if inputs is not None and "weight" in weights:
        weights["weight"] = weights["weight"][list(inputs)]
    if outputs is not None:
        weights = {role: values[..., list(outputs)] for role, values in weights.items()}
    return replace(layer(found.kind, weights, found.options), reads=found.reads) if weights else found


def _taken(found: Layer, order: Sequence[int]) -> Layer:
    """A layer that keeps each feature in its place."""
    count = len(order)
    options = {
        name: option([value[index] for index in order]) if isinstance(value, tuple) and len(value) == count else value
        for name, value in found.options.items()
    }
    weights = {
        role: values[..., list(order)] if values.shape[-1:] == (count,) else values
        for role, values in found.weights.items()
    }
    taken = layer(found.kind, weights, options) if weights else replace(found, options=options)
    return replace(taken, reads=found.reads)
