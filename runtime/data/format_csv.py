"""Rows from CSV files."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.extras import imported
from runtime.model.port import Port

from .batches import BATCH_BYTES, Batch, Source, never_none
from .columns import Flaw, Matching, gaps, matching, wrong_texts
from .indices import int64_of

_BLOCK = 2 * BATCH_BYTES
_WINDOW = 1 << 16
_LONGEST = 64 * _BLOCK
"""Bytes that one line may have."""


@contextmanager
def csv_file(path: Path, ports: Sequence[Port], rounding: bool, whole: bool) -> Iterator[Source]:
    """A table whose first line names its columns, read in blocks of whole lines.

    Numbers become the nearest float32; those for an int64 input must be whole.
    """
    del rounding, whole  # texts are no numbers yet, and blocks are copied together anyway
    polars = imported("polars", "reading CSV")
    size = path.stat().st_size
    with open(path, "rb", buffering=0) as file:
        head, start = _header(file)
        try:
            names = polars.read_csv(head, has_header=False, infer_schema=False).row(0)
        except (polars.exceptions.PolarsError, OSError) as error:
            raise InputError(f"cannot be read as CSV: {first_line(error)}") from None
        headers = [(name or "").strip() for name in names]
        if any("\r" in name for name in headers):
            raise InputError("its lines end in CR alone. What to do: end them in LF or CR LF")
        if all(port.features is None for port in ports) and any(name == "" or _is_number(name) for name in headers):
            shown = ", ".join(headers[:3])
            hint = "put a line with the columns' names first"
            raise InputError(f"the first line ({shown}, …) holds values, not names of columns. What to do: {hint}")
        matched = matching(headers, ports)
        decoder = _Decoder(polars, headers, matched)

        def pieces() -> Iterator[Callable[[], Batch]]:
            end = _end_of_text(file, size)
            for block, read in _blocks(file, start, end):
                yield lambda block=block, read=read: decoder.batch(block, read / end)

        yield Source(matched.how, never_none(pieces(), matched), lines=True)


class _Decoder:
    """From the text of whole lines to a batch."""

    def __init__(self, polars: Any, headers: Sequence[str], matched: Matching):
        self.polars, self.headers, self.matched = polars, headers, matched
        self.taken = list(zip(matched.chosen, matched.dtypes, strict=True))
        chosen, whole = set(matched.chosen), {index for index, dtype in self.taken if dtype == "int64"}
        self.numbers = {
            f"{i}": polars.Int64 if i in whole else polars.Float32 if i in chosen else polars.String
            for i in range(len(headers))
        }
        self.texts = dict.fromkeys(self.numbers, polars.String)

    def batch(self, block: bytes, share: float) -> Batch:
        columns, flaws = self._plain(block), []
        if columns is None:
            columns, flaws = self._named(block)
        return Batch(self.matched.rows_of(columns), flaws, share)

    def _plain(self, block: bytes) -> list[np.ndarray] | None:
        """The chosen columns, by polars' own parsers of numbers; None where something there is not plainly a number."""
        try:
            frame = self._read(block, self.numbers, quote_char='"' if b'"' in block else None)
        except (self.polars.exceptions.PolarsError, self.polars.exceptions.PanicException):
            return None
        columns = {i: frame[f"{i}"] for i in dict.fromkeys(self.matched.chosen)}
        if any(column.null_count() for column in columns.values()):
            return None
        arrays = {i: column.to_numpy() for i, column in columns.items()}
        # The sum of finite values may overflow; that only costs a second look.
        with np.errstate(over="ignore", invalid="ignore"):
            may_be_infinite = any(not np.isfinite(array.sum()) and np.isinf(array).any() for array in arrays.values())
        return None if may_be_infinite else [arrays[i] for i in self.matched.chosen]

    def _named(self, block: bytes) -> tuple[list[np.ndarray], list[Flaw]]:
        """The chosen columns by way of their texts, and what is wrong with which rows."""
        polars = self.polars
        # A row in front, since polars takes the number of columns from the first.
        block = b",".join([b"0"] * len(self.headers)) + b"\n" + block
        flaws: list[Flaw] = []
        try:
            frame = self._read(block, self.texts)
        except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
            found = self._too_long(block)
            if found is None:
                raise InputError(f"cannot be read as CSV: {first_line(error)}") from None
            flaws.append(found)
            frame = self._read(block, self.texts, truncate_ragged_lines=True)
        frame = frame[1:]
        columns: list[np.ndarray] = []
        for index, dtype in self.taken:
            name, text = self.headers[index], frame[f"{index}"].str.strip_chars()
            values = self._whole(text) if dtype == "int64" else text.cast(polars.Float32, strict=False)
            empty = (text.is_null() | (text == "")).to_numpy()
            if empty.any():
                flaws.append(gaps(name, empty))
            infinite = values.cast(polars.Float64).is_infinite()
            too_large = (infinite & ~text.str.contains("(?i)inf")).fill_null(False).to_numpy()
            wrong = (values.is_null().to_numpy() & ~empty) | too_large
            if wrong.any():
                kind = "not a whole number that int64 holds" if dtype == "int64" else "not a number"

                def why(row: int, text: Any = text, too_large: np.ndarray = too_large, kind: str = kind) -> str:
                    return f"'{text[row]}' is {'too large for float32' if too_large[row] else kind}"

                flaws.append(wrong_texts(name, wrong, why))
            columns.append(values.fill_null(0).to_numpy())
        return columns, flaws

    def _whole(self, text: Any) -> Any:
        """Texts as int64, such as 3, 3.0 or 3e0; null where they are no whole number."""
        found, wrong = int64_of(text.cast(self.polars.Float64, strict=False).fill_null(np.nan).to_numpy())
        floats = self.polars.Series(found)
        if wrong is not None:
            floats = floats.set(self.polars.Series(wrong), None)
        return text.cast(self.polars.Int64, strict=False).fill_null(floats)

    def _read(self, block: bytes, schema: dict[str, Any], **more: Any) -> Any:
        # All columns: where some are chosen, polars no longer sees lines that have too many values or end in a quote.
        return self.polars.read_csv(block, has_header=False, schema=schema, **more)

    def _too_long(self, block: bytes) -> Flaw | None:
        """The lines with more values than the header."""
        try:
            counts = [len(row) for row in csv.reader(block.decode(errors="replace").splitlines(keepends=True))][1:]
        except csv.Error:
            return None
        wanted = len(self.headers)
        wrong = np.array([count > wanted for count in counts], bool)
        if not wrong.any():
            return None
        first = int(wrong.argmax())
        return Flaw(
            wrong,
            lambda counted: f"{counted(first)} has {counts[first]} values, and the header has {wanted} names",
            lambda row: f"{counts[row]} values, and the header has {wanted} names",
        )


def _header(file: Any) -> tuple[bytes, int]:
    """The bytes of the first line, and where the second begins."""
    head, quotes, at = b"", 0, 0
    while at < _LONGEST:
        part = os.pread(file.fileno(), _WINDOW, at)
        end = _line_end(part, quotes)
        if end is not None or not part:
            return head + part[:end], at + (end or 0)
        head, quotes, at = head + part, quotes + part.count(b'"'), at + len(part)
    raise InputError(f"cannot be read as CSV: its first line does not end within {_LONGEST:,} bytes")


def _line_end(text: bytes, quotes: int) -> int | None:
    """Behind the first line break outside quotes, where ``quotes`` came before; None where there is none."""
    end = text.find(b"\n")
    while end >= 0 and (quotes + text.count(b'"', 0, end)) % 2:
        end = text.find(b"\n", end + 1)
    return end + 1 if end >= 0 else None


def _blocks(file: Any, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """The bytes from ``start`` to ``end`` in blocks of whole lines, and where each ends.

    A line break within quotes does not end a line.
    """
    handle, wanted = file.fileno(), _BLOCK
    while start < end:
        stop = min(start + wanted, end)
        if stop < end:
            found = os.pread(handle, _WINDOW, stop).find(b"\n")
            stop = min(stop + (found + 1 if found >= 0 else _WINDOW), end)
        block = os.pread(handle, stop - start, start)
        if stop < end and (not block.endswith(b"\n") or (b'"' in block and block.count(b'"') % 2)):
            block = block[: _last_line_end(block)]
        if not block:
            wanted = 2 * (stop - start)
            if wanted > _LONGEST:
                hint = "look for a quotation mark that is not closed"
                raise InputError(f"cannot be read as CSV: a line does not end within {_LONGEST:,} bytes; {hint}")
            continue
        start, wanted = start + len(block), _BLOCK
        yield block, start


def _last_line_end(block: bytes) -> int:
    """Behind the last line break outside quotes; 0 where there is none."""
    end, quotes = len(block), block.count(b'"')
    while (found := block.rfind(b"\n", 0, end)) >= 0:
        quotes -= block.count(b'"', found, end)
        if quotes % 2 == 0:
            return found + 1
        end = found
    return 0


def _end_of_text(file: Any, size: int) -> int:
    """Where the last line that is not empty ends."""
    end = size
    while end:
        start = max(0, end - _WINDOW)
        text = len(os.pread(file.fileno(), end - start, start).rstrip(b"\r\n"))
        if text:
            rest = os.pread(file.fileno(), 2, start + text)
            return min(size, start + text + (2 if rest == b"\r\n" else 1))
        end = start
    return 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def first_line(error: BaseException) -> str:
    """Of a library's message."""
    return str(error).strip().partition("\n")[0]
