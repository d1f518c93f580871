"""The instrumented file, with the values of its layers as outputs: each layer against its bound, all on real inputs.

A runtime may fuse operators. Asking it for a value in the middle of a fused kernel changes the bits after it, so the
proof asks for fewer values, level by level, until the instrumented file gives the bits of the file itself. Layers that
a runtime may compute in one kernel are then compared with their bound as one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .inputs import Domain, Inputs, search
from .layer_bounds import LayerCheck
from .running import FileRunner, Run
from .structure import Layer, Structure

LEVELS = (
    "every layer",
    "every linear layer with its activation",
    "every chain of elementwise operators",
    "every linear layer with the elementwise operators before it",
)
"""What is compared as one, from the finest level to the coarsest."""
_SCALES = ("mul", "div", "permute")
_UNFUSED = (
    *("linear", "matmul", "batch_norm", "layer_norm", "rms_norm", "softmax", "log_softmax", "embedding", "sort"),
    *("topk", "permute", "select", "slice", "expand", "cat", "index_select", "gather", "argmax", "argmin"),
    *("any", "all", "sum", "mean", "amax", "amin", "var", "linalg_vector_norm", "cumsum"),
)
"""Operators that are not part of a chain of elementwise ones."""


def groups(structure: Structure, level: int = 0) -> list[LayerCheck]:
    """The layers in groups with one output each, in order.

    A product of two values forms a group with the factors and permutations around it at every level: runtimes move them
    into the product even where the values between are outputs.
    """
    layers = structure.layers
    readers: dict[str, set[int]] = {}
    for index, layer in enumerate(layers):
        for name in layer.inputs:
            readers.setdefault(name, set()).add(index)
    for output in structure.wiring.outputs:
        readers.setdefault(structure.values.get(output, output), set()).add(-1)
    grouped: set[int] = set()
    indices: list[list[int]] = []
    makers = {layer.output: index for index, layer in enumerate(layers)}
    for index in reversed(range(len(layers))):
        if index in grouped:
            continue
        group = {index}
        waiting = list(layers[index].inputs)
        while waiting:
            maker = makers.get(waiting.pop())
            if maker is None or maker in group or not readers[layers[maker].output] <= group:
                continue
            if _may_fuse([layers[i] for i in sorted({maker, *group})], level):
                group.add(maker)
                waiting += layers[maker].inputs
        grouped |= group
        indices.append(sorted(group))
    return [LayerCheck(tuple(layers[i] for i in group), structure.graph.rows_depend) for group in reversed(indices)]


def _may_fuse(layers: Sequence[Layer], level: int) -> bool:
    """Whether a runtime may compute these layers, in order, in one kernel."""
    ops = [layer.expected.op for layer in layers]
    unscaled = [op for op in ops if op not in _SCALES]
    # A product of two values with factors and permutations; of these alone at least one permutation, at the end.
    if unscaled == ["matmul"] or (not unscaled and ops[-1] == "permute"):
        return True
    if level == 1:
        return len(ops) == 2 and ops[0] == "linear" and ops[1] != "linear" and len(layers[1].inputs) == 1
    # Some fusions are not made where their own value is an output.
    before = ops[:-1] if level == 3 and ops[-1] == "linear" else ops
    return level > 1 and not any(op in _UNFUSED for op in before)


@dataclass
class LayerResults:
    """The layers' checks at one level."""

    level: int
    checks: list[LayerCheck]
    repeats: bool = True
    """Whether the instrumented file gives the bits of the file itself."""
    searched: int = 0
    """Rows of the search."""


@dataclass
class Recording:
    """The results of one proof's layers, for a second file of the network that gives the same bits on the same rows.

    Two files of one network need not be compared twice: where every layer of the second receives and gives the bits
    that it received and gave in the first, all results of the first hold for the second.
    """

    digests: list[bytes] = field(default_factory=list[bytes])
    """Of the bits of all layers, for each run and then for each batch of rows that was ``searched``."""
    searched: list[np.ndarray] = field(default_factory=list[np.ndarray])
    checks: list[LayerCheck] = field(default_factory=list[LayerCheck])
    """Empty until the runs of a file are complete."""
    module_words: str | None = None
    """The result for the module as it is called, which does not depend on the file."""

    def restart(self) -> None:
        """Forget a file whose proof stopped, or whose bits the second file does not give."""
        self.digests, self.searched, self.checks = [], [], []

    def checks_for(self, checks: Sequence[LayerCheck]) -> list[LayerCheck] | None:
        """The recorded results, for a second file's layers; None if these compute something else."""
        if len(checks) != len(self.checks) or any(map(_differ, checks, self.checks)):
            return None
        results: list[LayerCheck] = []
        for own, known in zip(checks, self.checks, strict=True):
            worst, failure = (e and e.model_copy(update={"layer": own.path}) for e in (known.worst, known.failure))
            results.append(replace(known, layers=own.layers, worst=worst, failure=failure))
        return results


def _differ(own: LayerCheck, known: LayerCheck) -> bool:
    """Whether two checks are of layers with other operators or other constants."""
    nodes, others = ([node for layer in check.layers for node in layer.source_nodes] for check in (own, known))
    described = [[(n.op, dict(n.attributes), n.shape, set(n.tensors)) for n in each] for each in (nodes, others)]
    if described[0] != described[1]:
        return True
    pairs = [(t, other.tensors[role]) for n, other in zip(nodes, others, strict=True) for role, t in n.tensors.items()]
    return not all(np.array_equal(tensor.values, other.values) for tensor, other in pairs)


def _digest(checks: Sequence[LayerCheck], values: Mapping[str, np.ndarray]) -> bytes:
    """A digest of each value once, in the order in which the layers read and give them."""
    digest = hashlib.sha256()
    names = [name for check in checks for name in (*check.layers[0].inputs, check.layers[-1].output)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    digest.update(str([numbers[name] for name in names]).encode())
    for name in numbers:
        digest.update(f"{len(values[name])} {values[name].size} ".encode())
        digest.update(np.ascontiguousarray(values[name]).data)
    return digest.digest()


@dataclass(frozen=True)
class Instrumented:
    """The instrumented file, on ``runs``, for which the file itself gave the outputs ``shipped``.

    ``inputs`` are the first of the runs, where the search starts. The first run with other bits ends a level except
    the coarsest; with ``stop_early`` also the first run on which a layer fails.
    """

    runner: FileRunner
    structure: Structure
    inputs: Sequence[Inputs]
    runs: Sequence[Inputs]
    shipped: Sequence[np.ndarray]
    seed: int
    stop_early: bool
    recording: Recording | None = None
    """Of another file of the network, or an empty one to be filled; only the finest level is recorded."""

    def compare(self) -> LayerResults:
        """Compare all layers with their bounds, at the finest level that repeats the file's bits, else the coarsest."""
        results = self._recorded() or self._compare_at(0)
        for level in range(1, len(LEVELS)):
            results = results if results.repeats else self._compare_at(level)
        return results

    def _run(self, run: Run, rows: np.ndarray) -> dict[str, np.ndarray]:
        return run(rows) | self.structure.wiring.feed(rows)

    def _recorded(self) -> LayerResults | None:
        """The results of the recorded file, if this one has its layers and gives its bits on the same rows."""
        recording, own_checks = self.recording, groups(self.structure)
        checks = recording.checks_for(own_checks) if recording is not None else None
        if recording is None or checks is None:
            return None
        pairs = zip(self.runs, self.shipped, strict=True)
        runs: list[tuple[np.ndarray, np.ndarray | None]] = [(inputs.rows, own) for inputs, own in pairs if len(own)]
        if len(runs) + len(recording.searched) != len(recording.digests):
            return None
        shape = self.runs[0].rows.shape  # a file that was read back may give its rows more dimensions
        runs += [(rows.reshape(-1, *shape[1:]), None) for rows in recording.searched]
        with self.runner.open_with([check.layers[-1] for check in own_checks]) as run:
            for (rows, own), digest in zip(runs, recording.digests, strict=True):
                values = self._run(run, rows)
                repeats = own is None or _same_bits(self.structure.wiring.output(values), own)
                if not repeats or _digest(own_checks, values) != digest:
                    return None
        return LayerResults(0, checks, searched=sum(map(len, recording.searched)))

    def _compare_at(self, level: int) -> LayerResults:
        results = LayerResults(level, checks := groups(self.structure, level))
        recording = self.recording if level == 0 else None
        if recording is not None:
            recording.restart()
        with self.runner.open_with([check.layers[-1] for check in checks]) as run:

            def shares_of(values: Mapping[str, np.ndarray], rows: np.ndarray, kind: str) -> np.ndarray:
                if recording is not None:
                    recording.digests.append(_digest(checks, values))
                return np.max([check.compare(kind, values, rows) for check in checks], axis=0)

            def measure(rows: np.ndarray) -> np.ndarray:
                if recording is not None:
                    recording.searched.append(rows)
                return shares_of(self._run(run, rows), rows, "search")

            shares: list[np.ndarray] = []
            for inputs, own in zip(self.runs, self.shipped, strict=True):
                if not len(inputs.rows):  # nothing to compare
                    shares.append(np.zeros(0))
                    continue
                values = self._run(run, inputs.rows)
                results.repeats &= _same_bits(self.structure.wiring.output(values), own)
                if not results.repeats and (self.stop_early or level < len(LEVELS) - 1):
                    return results
                shares.append(shares_of(values, inputs.rows, inputs.kind))
                if self.stop_early and any(check.failure for check in checks):
                    return results
            finite = [np.isfinite(inputs.rows.reshape(len(inputs.rows), -1)).all(axis=1) for inputs in self.inputs]
            start = np.concatenate([inputs.rows[kept] for inputs, kept in zip(self.inputs, finite, strict=True)])
            best = np.concatenate([share[kept] for share, kept in zip(shares, finite, strict=False)])
            fit = Domain(self.structure.graph.inputs).fit
            results.searched = search(start, best, measure, self.seed, fit)
        if recording is not None:
            recording.checks = checks
        return results


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits; any NaN equals another, and zeros are compared unsigned, since x + 0 may be left out."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())
