"""Blocks with their tensors, as they are read off a file: neighbours that are one block join."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

_DEFAULTS = {
    "standardize": {"mean": 0.0, "std": 1.0},
    "scale": {"factor": 1.0, "offset": 0.0},
}
"""What a tensor is where the file has none."""


@dataclass(frozen=True)
class Piece:
    """One block. A tensor that has no effect is left out; ``weight`` of a linear is (out, in)."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    blocks: tuple[Piece, ...] = ()


def joined(pieces: list[Piece]) -> list[Piece]:
    """The pieces with neighbours that are one block made one; no value is computed but a sign turned."""
    result: list[Piece] = []
    for piece in pieces:
        both = _joined(result[-1], piece) if result else None
        if both is None:
            result.append(piece)
        else:
            result[-1] = both
    return result


def _joined(first: Piece, second: Piece) -> Piece | None:
    kinds, has, gets = (first.kind, second.kind), set(first.tensors), set(second.tensors)
    shift = _shift(second)
    if kinds[0] == "linear" and "bias" not in has and shift is not None:
        return replace(first, tensors={**first.tensors, "bias": shift})
    if kinds == ("scale", "scale") and has == {"factor"} and shift is not None:
        return replace(first, tensors={**first.tensors, "offset": shift})
    if kinds == ("scale", "standardize") and has == {"factor"} and shift is not None:
        return replace(first, tensors={**first.tensors, "offset": shift})
    if kinds == ("standardize", "standardize") and has == {"mean"} and gets == {"std"}:
        return replace(first, tensors={**first.tensors, **second.tensors})
    if kinds == ("scale", "standardize") and has == {"offset"} and gets == {"std"}:
        return replace(second, tensors={"mean": -first.tensors["offset"], **second.tensors})
    if kinds == ("layer_norm", "scale") and not has and gets == {"factor"}:
        return replace(first, tensors={"weight": second.tensors["factor"]})
    if kinds[0] == "layer_norm" and has == {"weight"} and shift is not None:
        return replace(first, tensors={**first.tensors, "bias": shift})
    return None


def _shift(piece: Piece) -> np.ndarray | None:
    """What a piece adds to each feature, where it does no more."""
    if piece.kind == "scale" and set(piece.tensors) == {"offset"}:
        return piece.tensors["offset"]
    if piece.kind == "standardize" and set(piece.tensors) == {"mean"}:
        return -piece.tensors["mean"]
    return None


def written(piece: Piece) -> str | dict[str, Any]:
    """The piece as a spec has it."""
    options = dict(piece.options)
    if piece.kind == "linear":
        features = len(piece.tensors["weight"])
        return {"linear": {"features": features} | ({} if "bias" in piece.tensors else {"bias": False})}
    if piece.kind == "residual":
        return {"residual": [written(inner) for inner in piece.blocks]}
    if piece.kind == "layer_norm" and "bias" not in piece.tensors:
        options |= {"bias": False} if "weight" in piece.tensors else {"elementwise_affine": False}
    return {piece.kind: options} if options else piece.kind


def state(pieces: tuple[Piece, ...]) -> dict[str, torch.Tensor]:
    """The tensors under the names that they have in the assembled module; none shares memory with another."""
    used: set[int] = set()
    return {name: _tensor(values, used) for name, values in _named(pieces, "")}


def _named(pieces: tuple[Piece, ...], prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for index, piece in enumerate(pieces):
        yield from _named(piece.blocks, f"{prefix}{index}.")
        tensors = dict(piece.tensors)
        for role, value in _DEFAULTS.get(piece.kind, {}).items():
            like = next(iter(tensors.values()))
            tensors.setdefault(role, np.full(len(like), value, np.float32))
        if piece.kind == "batch_norm":
            tensors["num_batches_tracked"] = np.asarray(0, np.int64)
        for role, values in tensors.items():
            yield f"{prefix}{index}.{role}", values


def _tensor(values: np.ndarray, used: set[int]) -> torch.Tensor:
    """In the file's memory map where it lies there, otherwise a copy."""
    place = values.__array_interface__["data"][0]
    if not (values.flags.c_contiguous and values.flags.writeable) or place in used:
        values = np.array(values, order="C")
    used.add(place)
    return torch.from_numpy(values)
