"""Which layers of a state dict make one chain: told by shapes and by order, and never where two readings fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .layers import Layer

_SIDE = re.compile(r"critic|value|target|std|sigma|logvar|teacher|^q\d?f?\d?$|^vf|disc", re.IGNORECASE)
"""Words for networks and heads beside the one that acts; equal widths must not tie them to it."""
_MOST_TRIED = 5_000


@dataclass(frozen=True)
class Chain:
    """Layers in the order of execution, and the prefix that selects them."""

    prefix: str
    layers: tuple[Layer, ...]

    @property
    def line(self) -> str:
        """``--prefix actor.  48 -> 256 -> 12 (actor.0, actor.2)``."""
        return f"--prefix {self.prefix or chr(39) * 2}  {widths(self.layers)} ({names(self.layers)})"


def widths(layers: Sequence[Layer]) -> str:
    """The widths of a chain of layers: ``48 -> 256 -> 12``."""
    linears = [layer.widths for layer in layers if layer.kind == "linear"]
    if not linears:
        return " and ".join(f"{layer.kind} of {layer.widths[0] or 'any number of'} features" for layer in layers)
    return " -> ".join(map(str, [linears[0][0], *(out for _, out in linears)]))


def names(layers: Sequence[Layer]) -> str:
    """The layers' paths, the middle of a long chain left out."""
    paths = [f"{layer.path or '(the root)'}{'' if layer.kind == 'linear' else ' ' + layer.kind}" for layer in layers]
    return ", ".join(paths if len(paths) <= 12 else [*paths[:6], "…", *paths[-5:]])


def mismatch(layers: Sequence[Layer]) -> str | None:
    """The first place where the shapes do not chain, in words."""
    width, giver = 0, ""
    for layer in layers:
        into, out = layer.widths
        if width and into and into != width:
            return f"{giver} gives {width} features, and {layer.path} ({layer.kind}) expects {into}"
        if out and (into != out or not width or layer.kind == "linear"):
            width, giver = out, layer.path
    return None


def in_order(layers: Sequence[Layer], ordered: bool) -> tuple[Layer, ...] | None:
    """The layers of one container and what lies below it in the order of execution; ``None`` where it stays open.

    1. Indices are an order. 2. Normalisers without an index come first, scales last. 3. Named modules stand as they
    were made, if the file keeps that order; else in the one order in which their shapes chain.
    """
    front = [layer for layer in layers if layer.loose and layer.kind == "standardize"]
    back = [layer for layer in layers if layer.loose and layer.kind == "scale"]
    body = [layer for layer in layers if not layer.loose]
    if ordered:
        seen: dict[str, int] = {}
        return (*front, *sorted(body, key=lambda layer: _as_made(layer.path, seen)), *back)
    units: dict[str, list[Layer]] = {}
    for layer in sorted(body, key=lambda layer: _natural(layer.path)):
        units.setdefault(_stem(layer.path), []).append(layer)
    if any(_named_apart(one.path, other.path) for unit in units.values() for one, other in pairwise(unit)):
        return None
    found = _orders(list(units.values()))
    return (*front, *found[0], *back) if len(found) == 1 else None


def candidates(layers: Sequence[Layer], ordered: bool, prefix: str = "") -> list[Chain]:
    """The chains that lie in a state dict: the whole of it, or the chains of its parts."""
    if not any(layer.kind == "foreign" for layer in layers) and not _ambiguous(layers, prefix):
        chain = in_order(layers, ordered)
        if chain is not None and mismatch(chain) is None:
            return [Chain(prefix, chain)]
    groups = _groups(layers, prefix)
    if list(groups) == [""]:
        return []
    chains = []
    for step, group in groups.items():
        deeper = prefix + step + "."
        if step and all(layer.path + "." == deeper for layer in group):
            chains.extend([] if any(layer.kind == "foreign" for layer in group) else [Chain(deeper, tuple(group))])
        elif step:
            chains.extend(candidates(group, ordered, deeper))
    return chains


def _ambiguous(layers: Sequence[Layer], prefix: str) -> bool:
    """Whether parts could each be a network of their own, on the same input, even where their shapes chain."""
    groups = {
        step: linears
        for step, group in _groups(layers, prefix).items()
        if (linears := [layer for layer in group if layer.kind == "linear"])
    }
    beside = [bool(_SIDE.search(step)) for step in groups]
    if any(beside) and not all(beside):
        return True
    whole = [
        linears[0].widths[0]
        for step, linears in groups.items()
        if len(linears) > 1 or (not step.isdecimal() and any(layer.path != prefix + step for layer in linears))
    ]
    return len(set(whole)) < len(whole)


def _groups(layers: Iterable[Layer], prefix: str) -> dict[str, list[Layer]]:
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.path[len(prefix) :].partition(".")[0], []).append(layer)
    return groups


def _natural(path: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path)
    return [(0, int(part[:18]), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _stem(path: str) -> str:
    """What modules share that an index tells apart: ``net.`` of ``net.0`` and ``net.2``, ``fc`` of ``fc1``."""
    found = re.search(r"\d+", path)
    return path[: found.start()] if found else path


def _as_made(path: str, seen: dict[str, int]) -> list[int]:
    """A key that puts indices in order and names as they first come; ``seen`` remembers the names."""
    parts = path.split(".")
    heads = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    return [
        int(part[:18]) if part.isdecimal() else seen.setdefault(head, len(seen))
        for part, head in zip(parts, heads, strict=True)
    ]


def _named_apart(one: str, other: str) -> bool:
    """Whether two paths part at names, not at indices, so that no number says which comes first."""
    first, second = next(((a, b) for a, b in zip(one.split("."), other.split("."), strict=False) if a != b), ("", ""))
    return (bool(first) and _stem(first) == first) or _stem(first) != _stem(second)


def _orders(units: list[list[Layer]]) -> list[list[Layer]]:
    """The orders of units in which shapes chain: at most two, since a second one means that it is open."""
    found: list[list[Layer]] = []
    tried = 0

    def place(chain: list[Layer], rest: list[list[Layer]]) -> None:
        nonlocal tried
        if not rest:
            found.append(chain)
        for at, unit in enumerate(rest):
            tried += 1
            if len(found) > 1 or tried > _MOST_TRIED:
                return
            if mismatch([*chain, *unit]) is None:
                place([*chain, *unit], rest[:at] + rest[at + 1 :])

    if all(mismatch(unit) is None for unit in units) and len(units) <= 100:
        place([], units)
    return found if tried <= _MOST_TRIED else []


def joins(chains: Sequence[Chain]) -> list[tuple[Chain, Chain]]:
    """Pairs of chains of which the second takes what the first gives, and that are no two of the same input."""
    return [
        (first, second)
        for first in chains
        for second in chains
        if first is not second
        and mismatch([*first.layers, *second.layers]) is None
        and first.layers[0].widths[0] != second.layers[0].widths[0]
    ]


def gaps(layers: Sequence[Layer]) -> list[int | None]:
    """Between each layer and the next, how many modules without weights the indices leave room for.

    ``None`` where no index tells. Where the indices of a container leave no room anywhere, it is no Sequential with
    activations but a list of layers that code calls one by one, and the indices tell nothing either.
    """
    result: list[int | None] = []
    for (container, index), (other, following) in pairwise(layer.place for layer in layers):
        known = container == other and index is not None and following is not None and following > index
        result.append(following - index - 1 if known and following is not None and index is not None else None)
    containers: dict[str, list[int]] = {}
    for at, gap in enumerate(result):
        if gap is not None:
            containers.setdefault(layers[at].place[0], []).append(at)
    for places in containers.values():
        held = {id(layer) for at in places for layer in layers[at : at + 2] if layer.kind == "linear"}
        if all(result[at] == 0 for at in places) and len(held) > 1:
            for at in places:
                result[at] = None
    return result
