"""CSV files of rows and of results."""

from __future__ import annotations

import csv
import gzip
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars

from runtime.errors import InputError
from runtime.extras import imported
from runtime.model.port import Port

from .arrays import to_int64
from .batches import BATCH_BYTES, Batch, Source, at_least_one, most_bytes, too_large, unreadable
from .columns import Column, ColumnMatch, encode, kept_columns, match_columns, missing_values
from .csv_lines import blocks, end_of_text, header
from .flaws import Flaw, flaw_of_values, location


@contextmanager
def read_csv(
    path: Path,
    ports: Sequence[Port],
    rounding: bool,
    whole: bool,
    *,
    separator: str | None = None,
    keep: Sequence[str] = (),
) -> Generator[Source]:
    """A table whose first line names its columns, read in blocks of whole lines.

    Numbers become the nearest float32; those for an int64 input must be whole. The batches also have the columns
    ``keep``, as texts.
    """
    separator = separator or ","
    if len(separator) != 1 or separator in '"\r\n' or not separator.isascii():
        raise InputError(f"a separator is one character, such as ';' or a tab, not {separator!r}")
    del rounding, whole  # texts have no dtype yet, and blocks are copied together anyway
    size = path.stat().st_size
    with open(path, "rb", buffering=0) as file:
        first_line, start = header(file)
        try:
            names = polars.read_csv(first_line, has_header=False, infer_schema=False, separator=separator).row(0)
        except (polars.exceptions.PolarsError, OSError) as error:
            raise unreadable("CSV", error) from None
        headers = [(name or "").strip() for name in names]
        if any("\r" in name for name in headers):
            raise InputError("its lines end in CR alone. What to do: end them in LF or CR LF")
        if all(port.features is None for port in ports) and any(name == "" or _is_number(name) for name in headers):
            message = f"the first line ({', '.join(headers[:3])}, …) holds values, not names of columns"
            raise InputError(f"{message}. What to do: put a line with the columns' names first")
        match = match_columns(headers, ports, keep=keep)
        decode = _Decoder(headers, match, separator, kept_columns(headers, keep))

        def decoders() -> Iterator[Callable[[], Batch]]:
            end = end_of_text(file, size)
            for block, position in blocks(file, start, end):
                yield partial(decode, block, position / end)

        yield Source(match.description, at_least_one(decoders(), match))


class _Decoder:
    """From the text of whole lines to a batch."""

    def __init__(self, headers: Sequence[str], match: ColumnMatch, separator: str, keep: Mapping[str, int]):
        self.headers, self.match, self.separator, self.keep = headers, match, separator, keep
        # Of a column that several inputs take, int64 comes last and counts: it holds every digit.
        dtypes = dict(sorted(zip(match.indices, match.dtypes, strict=True)))
        parsed = {None: polars.String, "float32": polars.Float32, "int64": polars.Int64}
        of_each = list(zip(match.indices, zip(match.categories, match.may_miss, strict=True), strict=True))
        self.of_columns = dict(of_each)
        """The vocabulary of every matched column, and whether a value may be missing."""
        self.may_parse = all(self.of_columns[index] == each for index, each in of_each)
        self.may_parse &= self.of_columns.keys().isdisjoint(keep.values())
        words = {index: polars.Enum(each.words) for index, (each, _) in of_each if each is not None}
        self.words: dict[int, polars.Enum] = words
        self.numbers = {f"{i}": polars.String if i in words else parsed[dtypes.get(i)] for i in range(len(headers))}
        self.texts = dict.fromkeys(self.numbers, polars.String)

    def __call__(self, block: bytes, share: float) -> Batch:
        columns, flaws = self._parse(block), []
        if columns is None:
            columns, flaws = self._parse_texts(block)
        values, frame = columns
        return Batch(self.match.to_rows(values), flaws, share, self._kept(frame))

    def _kept(self, frame: polars.DataFrame) -> Any:
        """The columns to keep as an Arrow record batch, or None."""
        if not self.keep:
            return None
        kept = {name: frame[f"{index}"] for name, index in self.keep.items()}
        imported("pyarrow", "keeping columns")
        table = polars.DataFrame(kept).rechunk().to_arrow(compat_level=polars.CompatLevel.oldest())
        return table.to_batches()[0] if table.num_rows else None

    def _parse(self, block: bytes) -> tuple[list[np.ndarray], polars.DataFrame] | None:
        """The matched columns, by polars' parsers of numbers; None if something is not plainly a number or a word."""
        if not self.may_parse:  # several inputs take a column in different ways
            return None
        try:
            frame = self._read(block, self.numbers, quote_char='"' if b'"' in block else None)
        except (polars.exceptions.PolarsError, polars.exceptions.PanicException):
            return None
        columns: dict[int, polars.Series] = {}
        for index, (vocabulary, may_miss) in self.of_columns.items():
            column = frame[f"{index}"]
            if vocabulary is not None:
                codes = column.str.strip_chars().cast(self.words[index], strict=False).to_physical()
                column = codes.cast(polars.Int64)
                column = column if vocabulary.unknown is None else column.fill_null(vocabulary.unknown)
            elif may_miss:
                column = column.fill_null(np.nan)
            if column.null_count():
                return None
            columns[index] = column
        arrays = {index: column.to_numpy() for index, column in columns.items()}
        # The sum of finite values may overflow; that only costs a second look.
        with np.errstate(over="ignore", invalid="ignore"):
            may_be_infinite = any(not np.isfinite(array.sum()) and np.isinf(array).any() for array in arrays.values())
        return None if may_be_infinite else ([arrays[index] for index in self.match.indices], frame)

    def _parse_texts(self, block: bytes) -> tuple[tuple[list[np.ndarray], polars.DataFrame], list[Flaw]]:
        """The matched columns from their texts, and the rows that cannot be read."""
        # A row in front, since polars takes the number of columns from the first.
        block = self.separator.encode().join([b"0"] * len(self.headers)) + b"\n" + block
        flaws: list[Flaw] = []
        try:
            frame = self._read(block, self.texts)
        except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
            flaw = self._too_long(block)
            if flaw is None:
                raise unreadable("CSV", error) from None
            flaws.append(flaw)
            try:
                frame = self._read(block, self.texts, truncate_ragged_lines=True)
            except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as another:
                raise unreadable("CSV", another) from None
        columns: list[np.ndarray] = []
        of_each = zip(self.match.indices, self.match.dtypes, self.match.categories, self.match.may_miss, strict=True)
        for index, dtype, vocabulary, may_miss in of_each:
            text = frame[f"{index}"][1:].str.strip_chars()
            if vocabulary is not None:
                words = np.array([*text.to_list(), None], object)[:-1]
                codes, wrong_words = encode(Column(self.headers[index], words), vocabulary)
                columns.append(codes)
                flaws += wrong_words
                continue
            values = _to_int64(text) if dtype == "int64" else text.cast(polars.Float32, strict=False)
            empty = (text.is_null() | (text == "")).to_numpy()
            if empty.any() and not may_miss:
                flaws.append(missing_values(self.headers[index], empty))
            infinite = values.cast(polars.Float64).is_infinite()
            too_large = (infinite & ~text.str.contains("(?i)inf")).fill_null(False).to_numpy()
            wrong = (values.is_null().to_numpy() & ~empty) | too_large
            if wrong.any():
                flaws.append(_wrong_texts(self.headers[index], text, dtype, wrong, too_large))
            numbers = values.fill_null(0).to_numpy()
            columns.append(np.where(empty, np.float32(np.nan), numbers) if may_miss and empty.any() else numbers)
        return (columns, frame[1:]), flaws

    def _read(self, block: bytes, schema: Mapping[str, Any], **options: Any) -> polars.DataFrame:
        # All columns: if some are chosen, polars no longer sees lines that have too many values or end in a quote.
        return polars.read_csv(block, has_header=False, schema=dict(schema), separator=self.separator, **options)

    def _too_long(self, block: bytes) -> Flaw | None:
        """The lines with more values than the header."""
        try:
            lines = block.decode(errors="replace").splitlines(keepends=True)
            counts = [len(row) for row in csv.reader(lines, delimiter=self.separator)][1:]
        except csv.Error:
            return None
        wrong = np.array([count > len(self.headers) for count in counts], bool)
        if not wrong.any():
            return None

        def describe(row: int, _: int, number: str) -> str:
            has = f"{number} has " if number else ""
            return f"{has}{counts[row]} values, and the header has {len(self.headers)} names"

        return flaw_of_values(wrong, describe)


def _to_int64(text: polars.Series) -> polars.Series:
    """Texts as int64, such as 3, 3.0 or 3e0; null if they are not whole numbers."""
    values, wrong = to_int64(text.cast(polars.Float64, strict=False).fill_null(np.nan).to_numpy())
    floats = polars.Series(values)
    if wrong is not None:
        floats = floats.set(polars.Series(wrong), None)
    return text.cast(polars.Int64, strict=False).fill_null(floats)


def _wrong_texts(name: str, text: polars.Series, dtype: str, wrong: np.ndarray, too_large: np.ndarray) -> Flaw:
    """The flaw of texts in a column that are not numbers of this dtype, or larger than float32."""
    label = f"column '{name}'"
    expected = "not a whole number that int64 holds" if dtype == "int64" else "not a number"

    def describe(row: int, _: int, number: str) -> str:
        why = "too large for float32" if too_large[row] else expected
        return f"{location(label, number)}: '{text[row]}' is {why}"

    return flaw_of_values(wrong, describe)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def read_tsv(path: Path, ports: Sequence[Port], rounding: bool, whole: bool, **options: Any) -> Generator[Source]:
    """A table whose values are separated by tabs, or as ``separator`` says."""
    with read_csv(path, ports, rounding, whole, **{**options, "separator": options.get("separator") or "\t"}) as source:
        yield source


@contextmanager
def read_compressed(
    path: Path, ports: Sequence[Port], rounding: bool, whole: bool, **options: Any
) -> Generator[Source]:
    """A CSV or TSV file compressed by gzip, which is decompressed into a temporary file first."""
    read = read_tsv if path.name.lower().endswith(".tsv.gz") else read_csv
    limit = most_bytes(path)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "rows.csv"
        try:
            with gzip.open(path) as source, open(text, "wb") as target:
                while piece := source.read(BATCH_BYTES):
                    target.write(piece)
                    if target.tell() > limit:
                        raise too_large(target.tell(), limit)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise unreadable("gzip", error) from None
        with read(text, ports, rounding, whole, **options) as source:
            yield source


@contextmanager
def write_tsv(file: IO[bytes]) -> Generator[Callable[[polars.DataFrame], None]]:
    """A table with a header, its values separated by tabs."""
    with write_csv(file, separator="\t") as write:
        yield write


@contextmanager
def write_csv(file: IO[bytes], *, separator: str = ",") -> Generator[Callable[[polars.DataFrame], None]]:
    """A table with a header."""
    header = True

    def write(results: polars.DataFrame) -> None:
        nonlocal header
        buffer = BytesIO()  # so that a full disk raises OSError, not an error of polars
        results.write_csv(buffer, include_header=header, separator=separator)
        file.write(buffer.getbuffer())
        header = False

    yield write
