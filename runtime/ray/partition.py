"""A Parquet file, or a folder of them, cut into the parts that workers score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.data.columns import format_names, kept_columns
from runtime.data.dataframes import match_schema
from runtime.errors import InputError
from runtime.extras import imported
from runtime.model.port import Port

MAX_PART_ROWS, MAX_PART_BYTES = 1 << 18, 1 << 28
"""Unless one row group holds more; bytes before compression."""
PURPOSE = "scoring on Ray"
"""Of the packages that this folder imports, for the error if one is not installed."""


@dataclass(frozen=True)
class Part:
    """Consecutive row groups of a file, and the file for their results.

    Examples:
        >>> from runtime import Part
        >>> part = Part("rows.parquet", "rows.parquet", row_groups=[0], first_row=0, rows=2_000, target="0.parquet")
        >>> part.rows
        2000
    """

    source: str
    """The file's absolute path."""
    origin: str
    """The same, relative to the data's folder."""
    row_groups: Sequence[int]
    first_row: int
    """Counted from 0 in the file."""
    rows: int
    target: str
    """The file of results, relative to their folder: the name of the source, and which of its parts it is."""


def partition(
    data: str | Path, ports: Sequence[Port], *, keep: Sequence[str] = (), max_rows: int = MAX_PART_ROWS
) -> tuple[tuple[Part, ...], str]:
    """The parts, in the order of the files' names and rows, and how their columns match the model's inputs.

    Only the files' footers are read. How a file is cut depends on the file alone, so that the same data give the
    same names of results. Names that begin with "." or "_" are skipped, as Parquet readers do.
    Raises InputError: no such folder, none or other files in it, columns that do not match or differ between files.
    """
    data = Path(data).absolute()
    paths = _files(data)
    root = data if data.is_dir() else data.parent
    with ThreadPoolExecutor(16) as pool:
        footers = list(pool.map(_read_footer, paths))
    schemas = [footer.schema.to_arrow_schema() for footer in footers]
    how = _match_columns(paths[0], schemas[0], ports, keep)
    parts: list[Part] = []
    for path, footer, schema in zip(paths, footers, schemas, strict=True):
        _refuse_other_columns(path, schema, paths[0], schemas[0], keep)
        _match_columns(path, schema, ports, keep)
        parts += _cut(path, str(path.relative_to(root)), footer, max_rows)
    origins: dict[str, str] = {}
    for part in parts:
        other = origins.setdefault(part.target, part.origin)
        if other != part.origin:
            raise InputError(f"{data}: the results of {other} and {part.origin} would both be called {part.target}")
    return tuple(parts), how


def _files(data: Path) -> list[Path]:
    if data.is_file() and data.suffix.lower() == ".parquet":
        return [data]
    if data.is_file() or not data.exists():
        problem = "no such file or folder" if not data.exists() else f"not a Parquet file ('{data.suffix}')"
        raise InputError(f"{data}: {problem}; on Ray, data are a .parquet file or a folder of them")
    visible = [
        path
        for path in sorted(data.rglob("*"))
        if path.is_file() and not any(name[0] in "._" for name in path.relative_to(data).parts)
    ]
    other = [str(path.relative_to(data)) for path in visible if path.suffix.lower() != ".parquet"]
    if other:
        raise InputError(
            f"{data}: it holds files that are not .parquet: {format_names(other)}. What to do: take them out"
        )
    if not visible:
        raise InputError(f"{data}: the folder holds no .parquet file")
    return visible


def _read_footer(path: Path) -> Any:
    parquet, pyarrow = imported("pyarrow.parquet", PURPOSE), imported("pyarrow", PURPOSE)
    try:
        return parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: cannot be read as Parquet: {reason}") from None


def _match_columns(path: Path, schema: Any, ports: Sequence[Port], keep: Sequence[str]) -> str:
    """How the columns match the model's inputs. Raises InputError: they do not, or a column to keep is missing."""
    try:
        match = match_schema(schema, ports, keep=keep)
        kept_columns(schema.names, keep)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return match.description


def _refuse_other_columns(path: Path, schema: Any, first: Path, expected: Any, keep: Sequence[str]) -> None:
    """Raise InputError unless a file has the columns of the first one, and those to keep have the same types."""
    if schema.names != expected.names:
        extra = [name for name in schema.names if name not in expected.names]
        missing = [name for name in expected.names if name not in schema.names]
        differences = [f"it lacks {format_names(missing)}"] if missing else []
        differences += [f"it has {format_names(extra)} besides"] if extra else []
        message = " and ".join(differences) or "they are in another order"
        raise InputError(f"{path}: its columns are not those of {first}: {message}")
    for name in keep:
        own, other = schema.field(name).type, expected.field(name).type
        if own != other:
            message = f"column '{name}', which is to be kept, is {own} here and {other} in {first}"
            raise InputError(f"{path}: {message}")


def _cut(path: Path, origin: str, footer: Any, max_rows: int) -> Iterator[Part]:
    """The parts of a file: as many consecutive row groups in each as its limits allow."""
    groups: list[list[int]] = [[]]
    counts, size = [0], 0
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        if groups[-1] and (counts[-1] + group.num_rows > max_rows or size + group.total_byte_size > MAX_PART_BYTES):
            groups.append([])
            counts.append(0)
            size = 0
        groups[-1].append(index)
        counts[-1] += group.num_rows
        size += group.total_byte_size
    stem, suffix = origin[: -len(path.suffix)], path.suffix
    first_row = 0
    for number, (indices, rows) in enumerate(zip(groups, counts, strict=True)):
        target = origin if len(groups) == 1 else f"{stem}-{number:05}-of-{len(groups):05}{suffix}"
        yield Part(str(path), origin, tuple(indices), first_row, rows, target)
        first_row += rows
