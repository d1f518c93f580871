"""The numbers that a file's blocks are set to: slopes, limits, factors; and those of the Dropouts that left.

They are read off the operators that a runtime computes, not off a record that the exporter made. A file is read without
the package onnx, and without weights in a second file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime import BlockSummary, ModelError
from runtime.model.onnx_messages import attribute, float_array, parse_model, text

Setting = float | tuple[float, ...]
"""One number, or one for each feature."""
Settings = Mapping[str, Mapping[str, Setting]]
"""By the block's path and the setting's name."""


@dataclass(frozen=True)
class _Place:
    """Where an operator holds a setting: an attribute, with its default, or the number of an input."""

    name: str
    attribute: str | None = None
    input: int | None = None
    default: float | None = None


_Operators = Mapping[str, tuple[_Place, ...]]
_CLIP: _Operators = {"Clip": (_Place("min", "min", 1), _Place("max", "max", 2))}
_ELU: _Operators = {name: (_Place("alpha", "alpha", default=1.0),) for name in ("Elu", "Celu")}
_LEAKY: _Operators = {"LeakyRelu": (_Place("negative_slope", "alpha", default=0.01),)}
_MEAN, _STD, _FACTOR, _OFFSET = (_Place(name, input=1) for name in ("mean", "std", "factor", "offset"))
_BLOCKS: dict[str, _Operators] = {
    **dict.fromkeys(("leaky_relu", "LeakyRelu"), _LEAKY),
    **dict.fromkeys(("elu", "celu", "Elu", "Celu"), _ELU),
    **dict.fromkeys(("clip", "clamp", "clamp_min", "clamp_max", "hardtanh", "Clip"), _CLIP),
    "standardize": {"Sub": (_MEAN,), "Div": (_STD,)},
    "scale": {"Mul": (_FACTOR,), "Add": (_OFFSET,)},
    **{block: {"Mul": (_FACTOR,)} for block in ("mul", "Mul")},
    **{block: {"Add": (_OFFSET,)} for block in ("add", "Add")},
}
"""By a block's name, in a spec, in ATen or in ONNX: its operators that hold settings."""
_MOST = 1024
"""A constant of more values is a weight, not a setting."""


def settings_of(path: Path, blocks: Sequence[BlockSummary], *, own: bool) -> Settings:
    """The settings of blocks that have any; ``own`` is whether mlpx named the operators after its blocks.

    In files of other tools each operator is a block. Without protobuf nothing is read. Raises ModelError: no whole
    file.
    """
    if not any(block.op in _BLOCKS for block in blocks):
        return {}
    try:
        graph = parse_model(path.read_bytes(), path).graph
    except ImportError:
        return {}
    constants = {text(tensor.name): tensor for tensor in graph.initializer}
    found: dict[str, dict[str, Setting]] = {}
    for block, node in _nodes_of(graph.node, blocks, own):
        for place in _BLOCKS[block.op].get(text(node.op_type), ()):
            value = _value(node, place, constants, path.parent)
            if value is not None:
                found.setdefault(block.path, {})[place.name] = value
    return found


def _nodes_of(nodes: Sequence[Any], blocks: Sequence[BlockSummary], own: bool) -> Iterator[tuple[BlockSummary, Any]]:
    """Each operator beside its block, where that may have settings; an own operator is named after its block."""
    by_path = {block.path: block for block in blocks}
    for index, node in enumerate(nodes):
        block = by_path.get(text(node.name).partition("/")[0]) if own else blocks[index]
        if block is not None and block.op in _BLOCKS:
            yield block, node


def _value(node: Any, place: _Place, constants: Mapping[str, Any], folder: Path) -> Setting | None:
    """What an operator is set to; a factor or a term that is added may be the first of its inputs."""
    held = attribute(node, place.attribute) if place.attribute is not None else None
    if held is not None:
        return _shortest(np.float32(held.f))
    places = () if place.input is None else (place.input, 0) if text(node.op_type) in ("Mul", "Add") else (place.input,)
    tensor = next((constants[text(node.input[i])] for i in places if _is_read(node, i, constants)), None)
    if tensor is None or np.prod(tuple(tensor.dims), dtype=object) > _MOST:
        return place.default
    with suppress(ModelError):  # another type than float32, or its file of weights is not there
        values = [_shortest(value) for value in float_array(tensor, folder).reshape(-1)]
        return (values[0] if len(set(values)) == 1 else tuple(values)) if values else None
    return None


def _is_read(node: Any, place: int, constants: Mapping[str, Any]) -> bool:
    return place < len(node.input) and text(node.input[place]) in constants


def _shortest(value: np.float32) -> float:
    """The number with the fewest digits that is this float32: 0.01, not 0.009999999776482582."""
    return float(str(value))


def dropped(spec: Mapping[str, Any] | None) -> dict[str, float]:
    """The p of every Dropout of a spec, by its path; none of them is in the file."""
    found: dict[str, float] = {}

    def collect(blocks: Sequence[Any], before: str) -> None:
        for index, block in enumerate(blocks):
            options: Mapping[str, Mapping[str, Any]] = {} if isinstance(block, str) else block
            if "dropout" in options:
                found[f"{before}{index}"] = options["dropout"]["p"]
            if "residual" in options:
                collect(options["residual"]["blocks"], f"{before}{index}.")

    with suppress(AttributeError, KeyError, TypeError):  # a record that another hand changed
        for index, port in enumerate((spec or {}).get("inputs") or [(spec or {}).get("input", {})]):
            collect(port.get("blocks") or (), f"inputs.{index}.")
        collect((spec or {})["blocks"], "")
    return found
