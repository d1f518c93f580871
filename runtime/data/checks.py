"""The rows of a file, checked batch by batch: unreadable, not finite, or outside their declared ranges."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.model.port import Port

from .batches import Batch, Source, decode_ahead
from .file_formats import has_lines
from .flaws import RowNumbers, failed_rows, in_order
from .indices import allowed_rows
from .reading import name_in_errors
from .unusual_values import NonFinite, Outside, OutsideTally, find_nonfinite, find_outside

MOST_EXAMPLES = 5
"""At most so many rows that could not be read are described."""
_Checked = tuple[Batch, NonFinite | None, list[tuple[int, dict[int, Outside]]]]
"""A batch, its NaN and infinite values, and for every input what ``find_outside`` gives."""


def check_on_error(on_error: str) -> bool:
    """Whether rows that cannot be read are skipped. Raises InputError for an option other than "fail" and "null"."""
    if on_error not in ("fail", "null"):
        raise InputError(f"on_error is 'fail' or 'null', not {on_error!r}")
    return on_error == "null"


class Checks:
    """Checks a file's batches: raises what ends the run, and counts the rest over all batches."""

    def __init__(self, ports: Sequence[Port], data: Path, *, on_error: str, reject_nonfinite: bool):
        self.ports: Sequence[Port] = ports
        self.data: Path = data
        self.lines: bool = has_lines(data.name)
        self._skips, self._reject_nonfinite = check_on_error(on_error), reject_nonfinite
        self.rows: int = 0
        self.failed_rows: int = 0
        self.failed: list[str] = []
        """The first rows that could not be read, and why."""
        self.nonfinite: NonFinite | None = None
        self.rounded: bool = False
        """Whether numbers of float64 columns became the nearest float32."""
        self._outside = [OutsideTally() for _ in self.ports]

    @property
    def outside(self) -> OutsideTally | None:
        """Of the first input that left its ranges."""
        return next((tally for tally in self._outside if tally.rows), None)

    def run(self, source: Source) -> Generator[Batch]:
        """The batches in order, decoded and checked ahead in threads. Raises InputError."""
        tasks = (partial(self._check, decode) for decode in source.decoders)
        with name_in_errors(self.data), closing(decode_ahead(tasks, source.threads)) as results:
            for batch, nonfinite, outside in results:
                self._count(batch, nonfinite, outside)
                yield batch

    def _check(self, decode: Callable[[], Batch]) -> _Checked:
        """Runs in any thread."""
        batch = decode()
        flaws, failed = batch.flaws, failed_rows(batch.flaws)
        nonfinite, flaw = find_nonfinite(batch.rows, self.ports, failed) or (None, None)
        if flaw is not None and self._reject_nonfinite:
            flaws = [*flaws, flaw]
            nonfinite, failed = None, failed_rows(flaws)
        outside = [find_outside(batch.rows[port.name], port, failed) for port in self.ports]
        rows = batch.rows
        if failed is not None:  # the model still needs values that it takes; the arrays may be read-only
            rows = {name: array.copy() for name, array in rows.items()}
            for port in self.ports:
                rows[port.name][failed] = allowed_rows(port, (1, *rows[port.name].shape[1:]))
        return replace(batch, rows=rows, flaws=flaws, failed=failed), nonfinite, outside

    def _count(
        self, batch: Batch, nonfinite: NonFinite | None, outside: Sequence[tuple[int, dict[int, Outside]]]
    ) -> None:
        first = self.rows
        numbers = RowNumbers(first, self.lines, complete=first == 0 and batch.share == 1)
        for flaw in in_order(batch.flaws):
            if flaw.fatal or not self._skips:
                raise flaw.error(numbers, may_skip=True)
        if batch.failed is not None:
            self.failed_rows += int(batch.failed.sum())
            for row in map(int, np.flatnonzero(batch.failed)[: max(0, MOST_EXAMPLES - len(self.failed))]):
                flaw = next(flaw for flaw in batch.flaws if flaw.rows[row])
                self.failed.append(f"{numbers(row)}: {flaw.reason(row)}")
        self.rounded |= batch.rounded
        if nonfinite is not None:
            new = replace(nonfinite, first_row=nonfinite.first_row + first)
            self.nonfinite = new if self.nonfinite is None else self.nonfinite.joined(new)
        for tally, (rows, features) in zip(self._outside, outside, strict=True):
            tally.add(rows, features, first)
        self.rows += len(batch)
