"""What one proof found of its layers, for a second file that gives the same bits on the same rows.

Two files of one network need not be compared twice: where every layer of the second received and gave the bits that it
received and gave in the first, all that was found of the first holds for the second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .layerwise import LayerCheck


class Differs(Exception):
    """The second file gives other bits, or its layers are others."""


@dataclass
class Recording:
    """The runs of a proof in order: a digest of every layer's bits, and the largest share of the bound in each row."""

    digests: list[bytes] = field(default_factory=list)
    shares: list[np.ndarray] = field(default_factory=list)
    checks: list[LayerCheck] = field(default_factory=list)
    called: str | None = None
    """What was found of the module as it is called, which is the same whatever the file."""

    def restart(self) -> None:
        """Forget the runs of a file whose proof went no further, or that another one was unlike."""
        self.digests.clear()
        self.shares.clear()
        self.checks = []

    def record(self, checks: Sequence[LayerCheck], values: Mapping[str, np.ndarray], shares: np.ndarray) -> None:
        """Keep a run of the first file."""
        self.digests.append(_digest(checks, values))
        self.shares.append(shares)

    def replayed(self, turn: int, checks: Sequence[LayerCheck], values: Mapping[str, np.ndarray]) -> np.ndarray:
        """What was found of a run of the first file, for the same run of the second. Raises Differs."""
        if turn >= len(self.digests) or self.digests[turn] != _digest(checks, values):
            raise Differs
        return self.shares[turn]

    def adopted(self, checks: Sequence[LayerCheck]) -> list[LayerCheck]:
        """What was found of the first file, as of the layers of the second. Raises Differs."""
        if len(checks) != len(self.checks) or any(map(_unlike, checks, self.checks)):
            raise Differs
        return [_of(own, known) for own, known in zip(checks, self.checks, strict=True)]


def _digest(checks: Sequence[LayerCheck], values: Mapping[str, np.ndarray]) -> bytes:
    """Of each value once, in the order in which the layers read and give them."""
    digest = hashlib.sha256()
    names = [name for check in checks for name in (*check.layers[0].inputs, check.layers[-1].output)]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    digest.update(str([places[name] for name in names]).encode())
    for name in places:
        digest.update(f"{len(values[name])} {values[name].size} ".encode())
        digest.update(np.ascontiguousarray(values[name]).data)
    return digest.digest()


def _unlike(own: LayerCheck, known: LayerCheck) -> bool:
    """Whether two checks are of blocks that compute something else, or of other constants."""
    blocks = [[member for layer in check.layers for member in layer.members] for check in (own, known)]
    if len(blocks[0]) != len(blocks[1]):
        return True
    for one, other in zip(*blocks, strict=True):
        same = one.op == other.op and dict(one.attributes) == dict(other.attributes) and one.shape == other.shape
        if not same or one.tensors.keys() != other.tensors.keys():
            return True
        if any(not np.array_equal(t.values, other.tensors[role].values) for role, t in one.tensors.items()):
            return True
    return False


def _of(own: LayerCheck, known: LayerCheck) -> LayerCheck:
    worst = replace(known.worst, layer=own.path) if known.worst is not None else None
    failure = replace(known.failure, layer=own.path) if known.failure is not None else None
    return replace(known, layers=own.layers, worst=worst, failure=failure)
