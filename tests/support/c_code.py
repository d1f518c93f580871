"""Networks for tests of C code, and faults in its text."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
from torch import nn

from builder import MLPSpec, assemble, load_spec, load_weights
from export.csource.text import number
from export.csource.writing import CSource
from tests.support import ROOT

_JOINTS = ("left_hip", "left_knee", "right_hip", "right_knee")
_TERMS = ("joint_pos", "joint_vel", "action")
POLICY: dict[str, Any] = {
    "blocks": [
        {"clip": [-100.0, 100.0]},
        "standardize",
        {"clip": [-5.0, 5.0]},
        {"linear": 48},
        "elu",
        {"residual": ["layer_norm", {"linear": 48}, "silu"]},
        {"linear": 33},
        "tanh",
        {"linear": 4},
        {"clip": [-1.0, 1.0]},
        {"scale": {"factor": 0.25, "offset": [0.1, -0.2, 0.3, -0.4]}},
    ],
    "features": len(_TERMS) * len(_JOINTS),
}
"""A small policy: what a run folder of a walking robot gives, with a skip and a layer norm."""


def digits() -> tuple[MLPSpec, nn.Module]:
    """The digits of this repository."""
    folder = ROOT / "models" / "digits"
    spec = load_spec(folder / "spec.yaml")
    module = assemble(spec)
    load_weights(module, folder / "weights.safetensors")
    return spec, module.eval()


def edited(source: CSource, old: str, new: str) -> CSource:
    """The code with another text at one place."""
    assert source.code.count(old) == 1, (old, source.code.count(old))
    return dataclasses.replace(source, code=source.code.replace(old, new))


_ARRAY = re.compile(r"static const float (\w+_(?:weights_\d+|numbers))\[\d+\] = \{\n(.*?)\n\};", re.DOTALL)


def constants(source: CSource) -> dict[str, list[str]]:
    """The constants in the text, by the names of their arrays."""
    return {name: re.findall(r"[^\s,]+", body) for name, body in _ARRAY.findall(source.code)}


def with_constant(source: CSource, array: str, place: int, value: float) -> CSource:
    """The code with another number in an array."""
    match = next(match for match in _ARRAY.finditer(source.code) if match[1] == array)
    values = re.findall(r"[^\s,]+", match[2])
    values[place] = number(value)
    start, end = match.span(2)
    return dataclasses.replace(source, code=source.code[:start] + ",\n".join(values) + source.code[end:])


def value_of(text: str) -> np.float32:
    """The number that a constant in the text is."""
    special = {"INFINITY": np.inf, "-INFINITY": -np.inf, "NAN": np.nan}
    return np.float32(special[text] if text in special else float.fromhex(text.removesuffix("f")))
