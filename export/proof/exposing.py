"""The file with its layers' values as outputs: each layer against its bound, and the file's own bits against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from export.onnxfile.reading import Model

from .grouping import LEVELS, groups
from .inputs import Inputs, search
from .layerwise import LayerCheck
from .recording import Differs, Recording
from .rows import Domain
from .running import Opener, outputs, with_layers
from .structure import Structure


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
    domain: Domain
    recording: Recording | None = None
    """Of another file of the same network, or an empty one to be filled; only the finest level is recorded."""

    def finest(self) -> Exposed:
        """Every layer checked on all runs, at the finest level that repeats the file's own bits, else the coarsest."""
        found = self._replayed() or self._at(0)
        for level in range(1, len(LEVELS)):
            found = found if found.repeats else self._at(level)
        return found

    def _replayed(self) -> Exposed | None:
        """What was found of another file, where this one gives the same bits."""
        if self.recording is None or not self.recording.checks:
            return None
        try:
            return self._at(0, self.recording)
        except Differs:
            return None

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
            found.searched = search(
                start, best, lambda rows: shares_of(values_of(rows), rows), self.seed, fit=self.domain.fit
            )
        if known is not None:
            found.checks = known.adopted(checks)
        elif recording is not None:
            recording.checks = checks
        return found


def _bit_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """The same bits; any NaN is as good as another, and zeros are compared unsigned: x + 0 may be left out."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())
