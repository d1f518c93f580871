"""Chains of layers in a state dict, found by shapes and order; never one of two that are possible."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, count, islice, pairwise

from .checkpoint_layers import Layer

_SIDE = re.compile(r"critic|value|target|std|sigma|logvar|teacher|^q\d?f?\d?$|^vf|disc", re.IGNORECASE)
"""Names of networks and heads besides the policy; equal widths must not join them to it."""
_MAX_TRIALS = 5_000


def format_widths(layers: Sequence[Layer]) -> str:
    """``48 -> 256 -> 12`` for a chain of layers."""
    linears = [layer.widths for layer in layers if layer.kind == "linear"]
    if not linears:
        return " and ".join(f"{layer.kind} of {layer.widths[0] or 'any number of'} features" for layer in layers)
    return " -> ".join(map(str, [linears[0][0], *(out for _, out in linears)]))


def format_names(layers: Sequence[Layer]) -> str:
    """The layers' paths, without the middle of a long chain."""
    paths = [f"{layer.path or '(the root)'}{'' if layer.kind == 'linear' else ' ' + layer.kind}" for layer in layers]
    return ", ".join(paths if len(paths) <= 12 else [*paths[:6], "…", *paths[-5:]])


def ancestry(name: str) -> list[str]:
    """``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``."""
    return list(accumulate(name.split("."), "{}.{}".format))


def mismatch(layers: Iterable[Layer]) -> str | None:
    """A message on the first two layers whose shapes do not chain."""
    width, previous = 0, ""
    for layer in layers:
        inputs, outputs = layer.widths
        if width and inputs and inputs != width:
            return f"{previous} gives {width} features, and {layer.title} ({layer.kind}) expects {inputs}"
        if outputs and (inputs != outputs or not width or layer.kind == "linear"):
            width, previous = outputs, layer.title
    return None


def split_unindexed(layers: Iterable[Layer]) -> tuple[list[Layer], list[Layer], list[Layer]]:
    """The normalisers without an index (the first), the layers, and the scales without an index (the last)."""
    front, body, back = list[Layer](), list[Layer](), list[Layer]()
    for layer in layers:
        (body if not layer.unindexed else front if layer.kind == "standardize" else back).append(layer)
    return front, body, back


def execution_order(layers: Iterable[Layer], ordered: bool) -> list[Layer] | None:
    """The layers of one container, nested ones included, in the order of execution; ``None`` if that is not clear.

    1. Indices are an order. 2. Normalisers without an index come first, scales last. 3. Named modules are in the order
    of their creation, if the file keeps it; else in the only order in which their shapes chain.
    """
    front, body, back = split_unindexed(layers)
    chain = _creation_order(body) if ordered else _order_by_shapes(body)
    return None if chain is None else [*front, *chain, *back]


def candidate_chains(layers: Sequence[Layer], ordered: bool, prefix: str = "") -> dict[str, Sequence[Layer]]:
    """The chains in a state dict by the prefix that selects each: the whole state dict, or chains of its parts."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.path[len(prefix) :].partition(".")[0], []).append(layer)
    if all(layer.kind != "foreign" for layer in layers) and not _ambiguous(groups, prefix):
        chain = execution_order(layers, ordered)
        if chain is not None and mismatch(chain) is None:
            return {prefix: chain}
    chains: dict[str, Sequence[Layer]] = {}
    for name, group in groups.items():
        deeper = f"{prefix}{name}."
        if name and any(layer.prefix != deeper for layer in group):
            chains |= candidate_chains(group, ordered, deeper)
        elif name and all(layer.kind != "foreign" for layer in group):
            chains[deeper] = group
    return chains


def _ambiguous(groups: dict[str, list[Layer]], prefix: str) -> bool:
    """Whether the parts could be separate networks on the same input, even if their shapes chain."""
    linears = {name: [layer for layer in group if layer.kind == "linear"] for name, group in groups.items()}
    linears = {name: group for name, group in linears.items() if group}
    is_side = [bool(_SIDE.search(name)) for name in linears]
    inputs = [
        group[0].widths[0]
        for name, group in linears.items()
        if len(group) > 1 or (not name.isdecimal() and group[0].path != prefix + name)
    ]
    return (any(is_side) and not all(is_side)) or len(set(inputs)) < len(inputs)


def _natural_key(path: str) -> list[tuple[int, int, str]]:
    """A sort key that compares indices as numbers."""
    parts = re.split(r"(\d+)", path)
    return [(0, int(part[:18]), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _stem(path: str) -> str:
    """The name before the first index: ``net.`` of ``net.0`` and ``net.2``, ``fc`` of ``fc1``."""
    return re.split(r"\d", path, maxsplit=1)[0]


def _creation_order(layers: Sequence[Layer]) -> list[Layer] | None:
    """The layers in the order of the file, but those with indices in a container in the order of their indices.

    ``None`` if a container has names too and its indices are not in order: the position of the names is then unknown.
    """
    siblings: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for layer in layers for path in ancestry(layer.path)):
        siblings.setdefault(path.rpartition(".")[0], []).append(path)
    rank: dict[str, int] = {}
    for paths in siblings.values():
        indexed = [path for path in paths if path.rpartition(".")[2].isdecimal()]
        by_index = sorted(indexed, key=_natural_key)
        if indexed == paths:
            paths = by_index
        elif indexed != by_index:
            return None
        rank |= {path: number for number, path in enumerate(paths)}
    return sorted(layers, key=lambda layer: [rank[path] for path in ancestry(layer.path)])


def _differ_by_name(path: str, other: str) -> bool:
    """Whether two paths first differ in a name, not in an index, so that no number says which comes first."""
    pairs = zip(path.split("."), other.split("."), strict=False)
    first, second = next(((a, b) for a, b in pairs if a != b), ("", ""))
    return (bool(first) and _stem(first) == first) or _stem(first) != _stem(second)


def _order_by_shapes(layers: Sequence[Layer]) -> list[Layer] | None:
    """The layers in the only order in which their shapes chain; those that differ by an index stay together.

    ``None`` if there are several orders, or too many to try.
    """
    by_stem: dict[str, list[Layer]] = {}
    for layer in sorted(layers, key=lambda layer: _natural_key(layer.path)):
        by_stem.setdefault(_stem(layer.path), []).append(layer)
    units = list(by_stem.values())
    if any(_differ_by_name(layer.path, other.path) for unit in units for layer, other in pairwise(unit)):
        return None
    trials = count()

    def orders(chain: list[Layer], rest: list[list[Layer]]) -> Iterator[list[Layer]]:
        if not rest:
            yield chain
        for index, unit in enumerate(rest):
            if next(trials) >= _MAX_TRIALS:
                return
            if mismatch([*chain, *unit]) is None:
                yield from orders([*chain, *unit], rest[:index] + rest[index + 1 :])

    if len(units) > 100 or any(map(mismatch, units)):
        return None
    possible = list(islice(orders([], units), 2))
    return possible[0] if len(possible) == 1 and next(trials) <= _MAX_TRIALS else None
