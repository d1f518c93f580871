"""Activations as a person names them: ``elu``, ``LeakyReLU:0.2``, ``clip:-5:5``, ``relu+dropout``."""

from __future__ import annotations

from builder.blocks import BLOCKS
from builder.errors import RecoveryError
from builder.suggestions import suggestion

ACTIVATIONS = (
    *("relu", "elu", "tanh", "sigmoid", "leaky_relu", "gelu", "silu", "softplus", "softmax", "relu6", "hardsigmoid"),
    *("clip", "dropout"),
)
_NOTHING = ("none", "identity", "")
_NAMES = {name.lower(): kind for kind in ACTIVATIONS for name in (kind, BLOCKS[kind].torch_name)}

BlockData = str | dict[str, object]


def parse(text: str, option: str) -> list[BlockData]:
    """The blocks that one activation stands for, as a spec has them; none for ``none``. Raises RecoveryError."""
    if text.strip().lower() in _NOTHING:
        return []
    return [_one(part.strip(), option) for part in text.split("+")]


def _one(text: str, option: str) -> BlockData:
    name, *values = text.split(":")
    kind = _NAMES.get(name.lower())
    if kind is None:
        raise RecoveryError(
            f"{option}: no activation {name!r}; {suggestion(name, [*ACTIVATIONS, 'none'], 'activations')}"
        )
    if not values:
        if kind == "clip":
            raise RecoveryError(f"{option}: clip takes two numbers, as in clip:-5:5")
        return kind
    if kind == "gelu":
        return {kind: values[0] if len(values) == 1 else values}
    try:
        numbers: list[float] = [float(value) for value in values]
    except ValueError:
        raise RecoveryError(f"{option}: {text!r}: expected a number after the colon, as in leaky_relu:0.2") from None
    return {kind: numbers[0] if len(numbers) == 1 else numbers}
