"""Which layers of a state dict make one chain: told by shapes and by order, and never where two readings fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice, pairwise

from .layers import Layer

_SIDE = re.compile(r"critic|value|target|std|sigma|logvar|teacher|^q\d?f?\d?$|^vf|disc", re.IGNORECASE)
"""Words for networks and heads beside the one that acts; equal widths must not tie them to it."""
_MOST_TRIED = 5_000


@dataclass(frozen=True)
class Chain:
    """Layers in the order of execution, and the prefix that selects them."""

    prefix: str
    layers: Sequence[Layer]


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


def ancestry(name: str) -> list[str]:
    """A dotted name and all that it lies in, the outermost first: ``a``, ``a.b``, ``a.b.c``."""
    return list(accumulate(name.split("."), "{}.{}".format))


def mismatch(layers: Iterable[Layer]) -> str | None:
    """The first place where the shapes do not chain, in words."""
    width, giver = 0, ""
    for layer in layers:
        into, out = layer.widths
        if width and into and into != width:
            return f"{giver} gives {width} features, and {layer.path} ({layer.kind}) expects {into}"
        if out and (into != out or not width or layer.kind == "linear"):
            width, giver = out, layer.path
    return None


def without_loose(layers: Iterable[Layer]) -> tuple[list[Layer], list[Layer], list[Layer]]:
    """The normalisers without an index, which come first, the layers, and the scales without one, which come last."""
    front, body, back = [], [], []
    for layer in layers:
        (body if not layer.loose else front if layer.kind == "standardize" else back).append(layer)
    return front, body, back


def in_order(layers: Iterable[Layer], ordered: bool) -> list[Layer] | None:
    """The layers of one container and what lies below it in the order of execution; ``None`` where it stays open.

    1. Indices are an order. 2. Normalisers without an index come first, scales last. 3. Named modules stand as they
    were made, if the file keeps that order; else in the one order in which their shapes chain.
    """
    front, body, back = without_loose(layers)
    if ordered:
        seen: dict[str, int] = {}
        return [*front, *sorted(body, key=lambda layer: _as_made(layer.path, seen)), *back]
    units: dict[str, list[Layer]] = {}
    for layer in sorted(body, key=lambda layer: _natural(layer.path)):
        units.setdefault(_stem(layer.path), []).append(layer)
    if any(_named_apart(one.path, other.path) for unit in units.values() for one, other in pairwise(unit)):
        return None
    chained = _only_order(list(units.values()))
    return None if chained is None else [*front, *chained, *back]


def candidates(layers: Sequence[Layer], ordered: bool, prefix: str = "") -> list[Chain]:
    """The chains that lie in a state dict: the whole of it, or the chains of its parts."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.path[len(prefix) :].partition(".")[0], []).append(layer)
    if all(layer.kind != "foreign" for layer in layers) and not _ambiguous(groups, prefix):
        chain = in_order(layers, ordered)
        if chain is not None and mismatch(chain) is None:
            return [Chain(prefix, chain)]
    chains: list[Chain] = []
    for step, group in groups.items():
        deeper = f"{prefix}{step}."
        if step and any(layer.prefix != deeper for layer in group):
            chains += candidates(group, ordered, deeper)
        elif step and all(layer.kind != "foreign" for layer in group):
            chains.append(Chain(deeper, group))
    return chains


def _ambiguous(groups: dict[str, list[Layer]], prefix: str) -> bool:
    """Whether parts could each be a network of their own, on the same input, even where their shapes chain."""
    linears = {step: [layer for layer in group if layer.kind == "linear"] for step, group in groups.items()}
    linears = {step: group for step, group in linears.items() if group}
    beside = [bool(_SIDE.search(step)) for step in linears]
    inputs = [
        group[0].widths[0]
        for step, group in linears.items()
        if len(group) > 1 or (not step.isdecimal() and group[0].path != prefix + step)
    ]
    return (any(beside) and not all(beside)) or len(set(inputs)) < len(inputs)


def _natural(path: str) -> list[tuple[int, int, str]]:
    """A key that sorts indices by their number."""
    parts = re.split(r"(\d+)", path)
    return [(0, int(part[:18]), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _stem(path: str) -> str:
    """What modules share that an index tells apart: ``net.`` of ``net.0`` and ``net.2``, ``fc`` of ``fc1``."""
    return re.split(r"\d", path, maxsplit=1)[0]


def _as_made(path: str, seen: dict[str, int]) -> list[int]:
    """A key that puts indices in order and names as they first come; ``seen`` remembers the names."""
    return [
        int(part[:18]) if part.isdecimal() else seen.setdefault(head, len(seen))
        for part, head in zip(path.split("."), ancestry(path), strict=True)
    ]


def _named_apart(one: str, other: str) -> bool:
    """Whether two paths part at names, not at indices, so that no number says which comes first."""
    first, second = next(((a, b) for a, b in zip(one.split("."), other.split("."), strict=False) if a != b), ("", ""))
    return (bool(first) and _stem(first) == first) or _stem(first) != _stem(second)


def _only_order(units: list[list[Layer]]) -> list[Layer] | None:
    """The one order of units in which their shapes chain; ``None`` where there are more, or too many to try."""
    trials = count()

    def orders(chain: list[Layer], rest: list[list[Layer]]) -> Iterator[list[Layer]]:
        if not rest:
            yield chain
        for at, unit in enumerate(rest):
            if next(trials) >= _MOST_TRIED:
                return
            if mismatch([*chain, *unit]) is None:
                yield from orders([*chain, *unit], rest[:at] + rest[at + 1 :])

    if len(units) > 100 or any(map(mismatch, units)):
        return None
    found = list(islice(orders([], units), 2))
    return found[0] if len(found) == 1 and next(trials) <= _MOST_TRIED else None
