"""The rows of a file checked batch by batch: which cannot be read, are not finite, or leave their ranges."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.extras import imported
from runtime.model.port import Port
from runtime.model.ranges import Outside, OutsideTally, outside_by_place

from .batches import Batch, Source, ahead
from .columns import Counted, Flaw, index_flaws
from .indices import allowed_rows
from .reading import told_of
from .unusual_values import NonFinite, nonfinite

SHOWN = 5
"""Rows that could not be read are named up to this many."""
_LEAST = 256
"""Rows of a batch that runs."""


@dataclass(frozen=True)
class Checked:
    """A batch, and what there is to say of its rows."""

    batch: Batch
    failed: np.ndarray | None
    """bool (rows,) the rows that cannot be read; None where all can."""
    flaws: list[Flaw]
    nonfinite: NonFinite | None
    outside: list[tuple[int, dict[int, Outside]]]
    """For every input."""


class Checks:
    """What is found in a file's batches: what ends the run, and what is counted over all of them."""

    def __init__(self, ports: Sequence[Port], data: Path, *, skipping: bool, reject_nonfinite: bool):
        self.ports, self.data, self.skipping, self.reject_nonfinite = ports, data, skipping, reject_nonfinite
        self.rows, self.failed_rows = 0, 0
        self.failed: list[str] = []
        self.nonfinite: NonFinite | None = None
        self.tallies = [OutsideTally() for _ in self.ports]

    def of(self, source: Source) -> Generator[Checked]:
        """The batches in order, decoded and checked ahead; what is wrong in them is raised or counted."""
        with told_of(self.data), closing(self._ahead(source)) as batches:
            for batch in batches:
                self._count(batch, source.lines)
                self.rows += len(batch.batch)
                yield batch

    def _ahead(self, source: Source) -> Generator[Checked]:
        return ahead((partial(self._check, piece) for piece in source.pieces), source.readers)

    def _check(self, piece: Callable[[], Batch]) -> Checked:
        """In a thread of its own."""
        batch = piece()
        flaws = list(batch.flaws)
        flaws += index_flaws(batch.rows, self.ports, _any(flaws))
        failed = _any(flaws)
        found = nonfinite(batch.rows, self.ports, failed)
        if found is not None and self.reject_nonfinite:
            flaws.append(found[1])
            failed, found = _any(flaws), None
        left = [outside_by_place(batch.rows[port.name], port, failed) for port in self.ports]
        if failed is not None:  # any values that the model takes will do, but the data may be read-only
            kept = {name: rows.copy() for name, rows in batch.rows.items()}
            for port in self.ports:
                rows = kept[port.name]
                rows[failed] = allowed_rows(port, (1, *rows.shape[1:]))
            batch = replace(batch, rows=kept)
        return Checked(batch, failed, flaws, found[0] if found is not None else None, left)

    def _count(self, checked: Checked, lines: bool) -> None:
        first = self.rows
        counted = Counted(first, lines, whole=first == 0 and checked.batch.share == 1)
        for flaw in checked.flaws:
            if flaw.fatal or not self.skipping:
                raise InputError(flaw.message(counted))
        if checked.failed is not None:
            self.failed_rows += int(checked.failed.sum())
            for row in np.flatnonzero(checked.failed)[: max(0, SHOWN - len(self.failed))]:
                flaw = next(flaw for flaw in checked.flaws if flaw.rows[row])
                self.failed.append(f"{counted(int(row))}: {flaw.reason(int(row))}")
        if checked.nonfinite is not None:
            here = replace(checked.nonfinite, first_row=checked.nonfinite.first_row + first)
            self.nonfinite = here if self.nonfinite is None else self.nonfinite.joined(here)
        for tally, (rows, features) in zip(self.tallies, checked.outside, strict=True):
            tally.add(rows, features, first)

    @property
    def left(self) -> OutsideTally | None:
        """The first input's whose ranges were left."""
        return next((tally for tally in self.tallies if tally.rows), None)


def large(batches: Iterator[Checked]) -> Iterator[Checked]:
    """The batches, with small ones joined to their neighbours: small ones may run on kernels that round otherwise."""
    waiting: list[Checked] = []
    rows = 0
    for new in batches:
        if rows >= _LEAST and (len(new.batch) >= _LEAST or rows >= 2 * _LEAST):
            yield joined(waiting)
            waiting, rows = [], 0
        waiting.append(new)
        rows += len(new.batch)
    yield joined(waiting)


def joined(parts: Sequence[Checked]) -> Checked:
    """The rows of several batches at once."""
    if len(parts) == 1:
        return parts[0]
    rows = {name: np.concatenate([part.batch.rows[name] for part in parts]) for name in parts[0].batch.rows}
    masks = [np.zeros(len(part.batch), bool) if part.failed is None else part.failed for part in parts]
    failed = np.concatenate(masks) if any(part.failed is not None for part in parts) else None
    kept = [part.batch.table for part in parts if part.batch.table is not None]
    table = imported("pyarrow", "keeping columns").Table.from_batches(kept) if kept else None
    return replace(parts[-1], batch=replace(parts[-1].batch, rows=rows, table=table), failed=failed)


def _any(flaws: Sequence[Flaw]) -> np.ndarray | None:
    return np.logical_or.reduce([flaw.rows for flaw in flaws]) if flaws else None
