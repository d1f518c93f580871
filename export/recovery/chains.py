"""Which layers of a state dict make one chain: told by shapes and by order, and never where two readings fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, count, islice, pairwise

from .checkpoint_layers import Layer

_SIDE = re.compile(r"critic|value|target|std|sigma|logvar|teacher|^q\d?f?\d?$|^vf|disc", re.IGNORECASE)
"""Words for networks and heads beside the one that acts; equal widths must not tie them to it."""
_MOST_TRIED = 5_000


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
    chained = _as_made(body) if ordered else _as_chained(body)
    return None if chained is None else [*front, *chained, *back]


def candidates(layers: Sequence[Layer], ordered: bool, prefix: str = "") -> dict[str, Sequence[Layer]]:
    """The chains that lie in a state dict, by the prefix that selects each: the whole of it, or those of its parts."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.path[len(prefix) :].partition(".")[0], []).append(layer)
    if all(layer.kind != "foreign" for layer in layers) and not _ambiguous(groups, prefix):
        chain = in_order(layers, ordered)
        if chain is not None and mismatch(chain) is None:
            return {prefix: chain}
    chains: dict[str, Sequence[Layer]] = {}
    for step, group in groups.items():
        deeper = f"{prefix}{step}."
        if step and any(layer.prefix != deeper for layer in group):
            chains |= candidates(group, ordered, deeper)
        elif step and all(layer.kind != "foreign" for layer in group):
            chains[deeper] = group
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


def _as_made(layers: Sequence[Layer]) -> list[Layer] | None:
    """The layers as they first come, but those at the indices of a container in the order of their indices.

    ``None`` where a container has names too and its indices are not in order: where the names belong is open.
    """
    siblings: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for layer in layers for path in ancestry(layer.path)):
        siblings.setdefault(path.rpartition(".")[0], []).append(path)
    rank: dict[str, int] = {}
    for paths in siblings.values():
        at_indices = [path for path in paths if path.rpartition(".")[2].isdecimal()]
        by_index = sorted(at_indices, key=_natural)
        if at_indices == paths:
            paths = by_index
        elif at_indices != by_index:
            return None
        rank |= {path: at for at, path in enumerate(paths)}
    return sorted(layers, key=lambda layer: [rank[path] for path in ancestry(layer.path)])


def _named_apart(one: str, other: str) -> bool:
    """Whether two paths part at names, not at indices, so that no number says which comes first."""
    first, second = next(((a, b) for a, b in zip(one.split("."), other.split("."), strict=False) if a != b), ("", ""))
    return (bool(first) and _stem(first) == first) or _stem(first) != _stem(second)


def _as_chained(layers: Sequence[Layer]) -> list[Layer] | None:
    """The layers in the one order in which their shapes chain; those that an index tells apart stay together.

    ``None`` where there are more orders, or too many to try.
    """
    by_stem: dict[str, list[Layer]] = {}
    for layer in sorted(layers, key=lambda layer: _natural(layer.path)):
        by_stem.setdefault(_stem(layer.path), []).append(layer)
    units = list(by_stem.values())
    if any(_named_apart(one.path, other.path) for unit in units for one, other in pairwise(unit)):
        return None
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
