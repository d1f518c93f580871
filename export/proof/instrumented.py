"""The file with its layers' values as outputs: each layer against its bound, and the file's own bits against it.

A runtime may fuse operators. Asking it for a value in the middle of what it fuses changes the bits behind it, so the
proof asks for fewer values, level by level, until the file gives its own bits again. Layers that a runtime may compute
in one kernel are then held against the bound of them together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from export.onnxfile.model import Model

from .inputs import Domain, Inputs, search
from .layer_bounds import LayerCheck
from .running import Opener, outputs, with_layers
from .structure import Layer, Structure

LEVELS = (
    "every layer",
    "every linear layer with its activation",
    "every chain of elementwise operators",
    "every linear layer with the elementwise operators before it",
)
"""From the finest."""
_SCALES = ("mul", "div", "permute")
_APART = ("linear", "matmul", "batch_norm", "layer_norm", "rms_norm", "softmax", "log_softmax", "embedding", "sort")
_APART += ("permute", "select", "slice", "expand", "cat", "index_select", "gather", "argmax", "argmin", "any", "all")
_APART += ("sum", "mean", "amax", "amin", "var", "linalg_vector_norm", "cumsum")
"""Operators that are no part of a chain of elementwise ones."""


def groups(structure: Structure, level: int = 0) -> list[LayerCheck]:
    """The layers in groups with one output each, in order.

    A product of two values is one with the factors and the permutations around it at every level: runtimes move them
    into the product even where the values between are asked for.
    """
    layers = structure.layers
    readers: dict[str, set[int]] = {}
    for index, layer in enumerate(layers):
        for name in layer.inputs:
            readers.setdefault(name, set()).add(index)
    for output in structure.wiring.outputs:
        readers.setdefault(structure.values.get(output, output), set()).add(-1)
    taken: set[int] = set()
    found: list[list[int]] = []
    makers = {layer.output: index for index, layer in enumerate(layers)}
    for index in reversed(range(len(layers))):
        if index in taken:
            continue
        group = {index}
        waiting = list(layers[index].inputs)
        while waiting:
            maker = makers.get(waiting.pop())
            if maker is None or maker in group or not readers[layers[maker].output] <= group:
                continue
            if _fuse([layers[i] for i in sorted({maker, *group})], level):
                group.add(maker)
                waiting += layers[maker].inputs
        taken |= group
        found.append(sorted(group))
    return [LayerCheck(tuple(layers[i] for i in group), structure.graph.rows_depend) for group in reversed(found)]


def _fuse(layers: Sequence[Layer], level: int) -> bool:
    """Whether layers, in order, are what a runtime computes in one kernel."""
    ops = [layer.held.op for layer in layers]
    unscaled = [op for op in ops if op not in _SCALES]
    # A product of two values with factors and permutations; of these alone at least one permutation, at the end.
    if unscaled == ["matmul"] or (not unscaled and ops[-1] == "permute"):
        return True
    if level == 1:
        return len(ops) == 2 and ops[0] == "linear" and ops[1] != "linear" and len(layers[1].inputs) == 1
    # Some fusions are not made where their own value is asked for.
    before = ops[:-1] if level == 3 and ops[-1] == "linear" else ops
    return level > 1 and not any(op in _APART for op in before)


class Differs(Exception):
    """The second file gives other bits, or its layers are others."""


@dataclass
class Recording:
    """What one proof found of its layers, for a second file that gives the same bits on the same rows.

    Two files of one network need not be compared twice: where every layer of the second received and gave the bits that
    it received and gave in the first, all that was found of the first holds for the second.
    """

    runs: list[tuple[bytes, np.ndarray]] = field(default_factory=list)
    """In order: a digest of every layer's bits, and the largest share of the bound in each row."""
    checks: list[LayerCheck] = field(default_factory=list)
    called: str | None = None
    """What was found of the module as it is called, which is the same whatever the file."""

    def restart(self) -> None:
        """Forget the runs of a file whose proof went no further, or that another one was unlike."""
        self.runs, self.checks = [], []

    def record(self, checks: Sequence[LayerCheck], values: Mapping[str, np.ndarray], shares: np.ndarray) -> None:
        """Keep a run of the first file."""
        self.runs.append((_digest(checks, values), shares))

    def replayed(self, turn: int, checks: Sequence[LayerCheck], values: Mapping[str, np.ndarray]) -> np.ndarray:
        """What was found of a run of the first file, for the same run of the second. Raises Differs."""
        if turn >= len(self.runs) or self.runs[turn][0] != _digest(checks, values):
            raise Differs
        return self.runs[turn][1]

    def adopted(self, checks: Sequence[LayerCheck]) -> list[LayerCheck]:
        """What was found of the first file, as of the layers of the second. Raises Differs."""
        if len(checks) != len(self.checks) or any(map(_unlike, checks, self.checks)):
            raise Differs
        found = []
        for own, known in zip(checks, self.checks, strict=True):
            worst, failure = (e and e.model_copy(update={"layer": own.path}) for e in (known.worst, known.failure))
            found.append(replace(known, layers=own.layers, worst=worst, failure=failure))
        return found


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
    blocks, others = ([member for layer in check.layers for member in layer.members] for check in (own, known))
    described = [[(n.op, dict(n.attributes), n.shape, set(n.tensors)) for n in each] for each in (blocks, others)]
    if described[0] != described[1]:
        return True
    pairs = [(t, other.tensors[role]) for n, other in zip(blocks, others, strict=True) for role, t in n.tensors.items()]
    return not all(np.array_equal(tensor.values, other.values) for tensor, other in pairs)


@dataclass
class Exposed:
    """What was found at the finest level at which the file with more outputs has the bits of the file itself."""

    level: int
    checks: list[LayerCheck]
    searched: int
    repeats: bool
    """Whether there was such a level; the bound of the whole network at once would be too wide to prove anything."""

    def words(self) -> str:
        """How many values were compared, and how near they came to their bound."""
        worst = max(self.checks, key=lambda check: check.ratio)
        compared, exempt, alike = (sum(getattr(c, n) for c in self.checks) for n in ("compared", "exempt", "by_kind"))
        words = f"{compared:,} values of {LEVELS[self.level]} within their bound, at most {worst.ratio:.2g} of it"
        words += f" ('{worst.path}')"
        where = "of extreme rows " if not any(check.unbounded for check in self.checks) else ""
        words += f"; {exempt:,} {where}that may overflow or cancel are exempt" if exempt else ""
        return words + (f", {alike:,} of them NaN or infinite as PyTorch's own kernel gives them" if alike else "")


@dataclass(frozen=True)
class Exposing:
    """What is needed to run the file with its layers' values as outputs; ``shipped`` are its own outputs of ``runs``.

    ``inputs`` are the sets of rows, the first of ``runs``, from which the search starts. The first run whose bits
    differ ends a level before the coarsest; with ``stop_early`` also the first that a layer fails.
    """

    model: Model
    structure: Structure
    inputs: Sequence[Inputs]
    runs: Sequence[Inputs]
    shipped: Sequence[np.ndarray]
    opener: Opener
    seed: int
    stop_early: bool
    recording: Recording | None = None
    """Of another file of the same network, or an empty one to be filled; only the finest level is recorded."""

    def finest(self) -> Exposed:
        """Every layer checked on all runs, at the finest level that repeats the file's own bits, else the coarsest."""
        found = None
        if self.recording is not None and self.recording.checks:
            with suppress(Differs):  # of a file with the bits of another all holds that was found of that one
                found = self._at(0, self.recording)
        found = found or self._at(0)
        for level in range(1, len(LEVELS)):
            found = found if found.repeats else self._at(level)
        return found

    def _at(self, level: int, known: Recording | None = None) -> Exposed:
        checks = groups(self.structure, level)
        turn = count()
        found = Exposed(level, checks, 0, True)
        shown = [check.layers[-1] for check in checks]
        wiring = self.structure.wiring
        recording = self.recording if level == 0 and known is None else None
        if recording is not None:
            recording.restart()
        with with_layers(self.model, shown, self.opener) as running:

            def values_of(rows: np.ndarray) -> dict[str, np.ndarray]:
                return outputs(self.model, wiring, running, rows) | wiring.feed(rows)

            def shares_of(values: Mapping[str, np.ndarray], rows: np.ndarray, kind: str = "search") -> np.ndarray:
                if known is not None:
                    return known.replayed(next(turn), checks, values)
                shares = np.max([check.compare(kind, values, rows) for check in checks], axis=0)
                if recording is not None:
                    recording.record(checks, values, shares)
                return shares

            shares = []
            for given, own in zip(self.runs, self.shipped, strict=True):
                if not len(given.rows):  # there is nothing to compare
                    shares.append(np.zeros(0))
                    continue
                values = values_of(given.rows)
                found.repeats &= _bit_equal(wiring.output(values), own)
                if not found.repeats and (self.stop_early or level < len(LEVELS) - 1):
                    return found
                shares.append(shares_of(values, given.rows, given.kind))
                if self.stop_early and any(check.failure for check in checks):
                    return found
            finite = [np.isfinite(given.rows.reshape(len(given.rows), -1)).all(axis=1) for given in self.inputs]
            start = np.concatenate([given.rows[kept] for given, kept in zip(self.inputs, finite, strict=True)])
            best = np.concatenate([share[kept] for share, kept in zip(shares, finite, strict=False)])
            fit = Domain(self.structure.graph.inputs).fit
            found.searched = search(start, best, lambda rows: shares_of(values_of(rows), rows), self.seed, fit)
        if known is not None:
            found.checks = known.adopted(checks)
        elif recording is not None:
            recording.checks = checks
        return found


def _bit_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """The same bits; any NaN is as good as another, and zeros are compared unsigned: x + 0 may be left out."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())
