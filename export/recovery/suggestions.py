"""The networks that a state dict's layers make, as the ``--prefix`` options that select each of them.

Nothing is suggested that was not tried: every suggestion selects the layers that it stands for, and no others.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from .chains import candidate_chains, format_widths, mismatch, split_unindexed
from .checkpoint_layers import Layer
from .roles import belong_together, role_of

MOST_LISTED = 24
_MOST_TRIED = 64
Selects = Callable[[tuple[str, ...]], Sequence[Layer]]
"""The layers that prefixes select. Raises RecoveryError: they select no network."""


@dataclass(frozen=True)
class Part:
    """Layers that one ``--prefix`` selects."""

    prefix: str
    layers: tuple[Layer, ...]

    @cached_property
    def role(self) -> str:
        """Of its name, such as ``critic``."""
        return role_of(self.layers[-1].path or self.layers[-1].names[0])

    @cached_property
    def number(self) -> tuple[str, int] | None:
        """The stem and the number of a single layer's name: ``("fc", 2)`` of ``fc2``."""
        found = re.fullmatch(r"(.*\D)(\d{1,6})", self.layers[0].path) if len(self.layers) == 1 else None
        return (found[1], int(found[2])) if found else None


Parts = tuple[Part, ...]


def layers_in(parts: Parts) -> list[Layer]:
    """All layers of the parts, in order."""
    return [layer for part in parts for layer in part.layers]


def role_in(parts: Parts) -> str:
    """The role of the last part that has one."""
    return next((part.role for part in reversed(parts) if part.role), "")


def format_options(prefixes: Sequence[str]) -> str:
    """``--prefix actor_obs_normalizer. --prefix actor.``, as a shell takes them."""
    return " ".join(f"--prefix {shlex.quote(prefix)}" for prefix in prefixes)


def networks_in(layers: Sequence[Layer], ordered: bool) -> Iterator[Parts]:
    """Chains of parts that no further part fits into, each with its normaliser in front and its scale at the end.

    ``ordered`` says that the layers come in the order of their creation; no part then comes before an earlier one.
    """
    front, body, back = split_unindexed(layers)
    found = [Part(prefix, tuple(chain)) for prefix, chain in candidate_chains(body, ordered).items() if chain]
    parts = [part for part in found if all(layer.kind != "foreign" for layer in part.layers)][:MOST_LISTED]
    for network in _chains(parts, ordered):
        if any(layer.kind == "linear" for layer in layers_in(network)):
            chain = layers_in(network)
            fronts = fitting(front, layers, chain, chain[0].widths[0], role_in(network))
            backs = fitting(back, layers, chain, chain[-1].widths[1], role_in(network))
            for first in fronts or [None]:
                for last in backs or [None]:
                    yield (*([first] if first else []), *network, *([last] if last else []))


def fitting(
    candidates: Sequence[Layer], layers: Sequence[Layer], chosen: Sequence[Layer], width: int, role: str
) -> list[Part]:
    """The normalisers or scales for ``width`` features that may belong to a network of ``role``.

    Those with its very role come alone, if there are any: an actor's own normaliser, before one that says nothing.
    """
    parts = [
        Part(prefix, (layer,))
        for layer in candidates
        if layer not in chosen and layer.widths[0] in (0, width) and (prefix := own_prefix(layer, layers))
    ]
    parts = [part for part in parts if belong_together(part.role, role)]
    own = [part for part in parts if part.role == role]
    return own or parts


def own_prefix(layer: Layer, layers: Sequence[Layer]) -> str:
    """The prefix that selects this layer alone; an empty text if none does."""
    for prefix in (layer.prefix, *layer.names[:1]):
        if [other for other in layers if other.names[0].startswith(prefix)] == [layer]:
            return prefix
    return ""


def tried(networks: Iterator[Parts], selects: Selects) -> list[Parts]:
    """The networks whose prefixes select their layers, the first few."""
    return [network for network in islice(networks, _MOST_TRIED) if _works(network, selects)][:MOST_LISTED]


def _works(network: Parts, selects: Selects) -> bool:
    try:
        selected = selects(tuple(part.prefix for part in network))
    except ValueError:
        return False
    return [layer.names for layer in selected] == [layer.names for layer in layers_in(network)]


def format_networks(networks: Sequence[Parts], before: str = "") -> str:
    """The networks, a line each: the options that select it, and its widths."""
    lines = [
        f"\n  {before}{format_options([part.prefix for part in network])}  {format_widths(layers_in(network))}"
        for network in networks[:MOST_LISTED]
    ]
    return "".join(lines) + ("\n  …" if len(networks) > MOST_LISTED else "")


def _chains(parts: Sequence[Part], ordered: bool) -> Iterator[Parts]:
    """Chains of parts, of two and more or of one, that no other part fits into: none skips a layer."""
    parts = [part for part in parts if part.role != "spread" or len(parts) == 1]

    def follows(at: int, after: int) -> bool:
        return (at < after or not ordered) and at != after and _follow(parts[at], parts[after])

    def between(at: int, after: int, chain: Sequence[int]) -> bool:
        others = (index for index in range(len(parts)) if index not in (*chain, at, after))
        return any(follows(at, index) and follows(index, after) for index in others)

    def grown(chain: tuple[int, ...], role: str) -> Iterator[Parts]:
        fits = [
            index
            for index, part in enumerate(parts)
            if index not in chain and follows(chain[-1], index) and belong_together(part.role, role)
        ]
        for index in fits:
            if not between(chain[-1], index, chain):
                yield from grown((*chain, index), parts[index].role or role)
        if not fits:
            yield tuple(parts[index] for index in chain)

    for start in range(len(parts)):
        if not any(follows(index, start) for index in range(len(parts))):
            yield from grown((start,), parts[start].role)


def _follow(part: Part, following: Part) -> bool:
    """Whether the second takes what the first gives.

    Of two that take as many features the second must be a single named layer, such as the head ``mu``: others are
    networks on one input. Numbered layers are in the order of their numbers.
    """
    if not belong_together(part.role, following.role) or mismatch([*part.layers, *following.layers]) is not None:
        return False
    first, second = part.number, following.number
    if first and second and first[0] == second[0]:
        return first[1] < second[1]
    is_head = len(following.layers) == 1 and following.prefix == f"{following.layers[0].path}."
    return is_head or part.layers[0].widths[0] != following.layers[0].widths[0]
