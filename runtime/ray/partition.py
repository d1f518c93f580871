"""A Parquet file, or a folder of them, cut into the parts that workers score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.data.columns import few, matching
from runtime.data.dataframes import is_arrow_number, not_arrow_numbers
from runtime.errors import InputError
from runtime.extras import imported
from runtime.model.port import Port

MOST_ROWS, MOST_BYTES = 1 << 18, 1 << 28
"""Of a part, unless one row group holds more; bytes before compression."""


@dataclass(frozen=True)
class Part:
    """Some row groups of a file, one after the other, and the file that their results become."""

    source: str
    """The file's absolute path."""
    origin: str
    """The same, relative to the folder that was given."""
    row_groups: tuple[int, ...]
    first_row: int
    """Counted from 0 in the file."""
    rows: int
    target: str
    """The results' file, relative to the folder of results: the name of the source, and which of its parts it is."""


def parts_of(
    data: str | Path, ports: Sequence[Port], *, keep: Sequence[str] = (), most_rows: int = MOST_ROWS
) -> tuple[tuple[Part, ...], str]:
    """The parts, in the order of the files' names and rows, and how their columns match the model's inputs.

    Only the files' footers are read. How a file is cut depends on nothing but the file, so that the same data give the
    same names of results. Names that begin with "." or "_" are passed over, as Parquet readers do.
    Raises InputError: no such folder, none or other files in it, columns that do not match or differ between files.
    """
    data = Path(data).absolute()
    paths = _files(data)
    root = data if data.is_dir() else data.parent
    with ThreadPoolExecutor(16) as pool:
        footers = list(pool.map(_footer, paths))
    first, names = paths[0], list(footers[0].schema.to_arrow_schema().names)
    matched = _matched(first, footers[0], ports, keep)
    parts: list[Part] = []
    for path, footer in zip(paths, footers, strict=True):
        _refuse_other_columns(path, footer, first, footers[0], names, keep)
        _matched(path, footer, ports, keep)
        parts += _cut(path, str(path.relative_to(root)), footer, most_rows)
    targets: dict[str, Part] = {}
    for part in parts:
        if part.target in targets:
            other = targets[part.target].origin
            raise InputError(f"{data}: the results of {other} and {part.origin} would both be called {part.target}")
        targets[part.target] = part
    return tuple(parts), matched


def _files(data: Path) -> list[Path]:
    if data.is_file() and data.suffix.lower() == ".parquet":
        return [data]
    if data.is_file() or not data.exists():
        found = "no such file or folder" if not data.exists() else f"not a Parquet file ('{data.suffix}')"
        raise InputError(f"{data}: {found}; on Ray, data are a .parquet file or a folder of them")
    visible = [
        path
        for path in sorted(data.rglob("*"))
        if path.is_file() and not any(name[0] in "._" for name in path.relative_to(data).parts)
    ]
    other = [str(path.relative_to(data)) for path in visible if path.suffix.lower() != ".parquet"]
    if other:
        raise InputError(f"{data}: it holds files that are not .parquet: {few(other)}. What to do: take them out")
    if not visible:
        raise InputError(f"{data}: the folder holds no .parquet file")
    return visible


def _footer(path: Path) -> Any:
    parquet = imported("pyarrow.parquet", "scoring on Ray")
    pyarrow = imported("pyarrow", "scoring on Ray")
    try:
        return parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: cannot be read as Parquet: {reason}") from None


def _matched(path: Path, footer: Any, ports: Sequence[Port], keep: Sequence[str]) -> str:
    schema = footer.schema.to_arrow_schema()
    try:
        found = matching(schema.names, ports)
        for index in found.chosen:
            if not is_arrow_number(schema.field(index).type):
                raise not_arrow_numbers(schema.field(index).name, schema.field(index).type)
        missing = [name for name in keep if schema.names.count(name) != 1]
        if missing:
            raise InputError(
                f"to keep, exactly one column {few(missing)} is expected; the file has {few(schema.names)}"
            )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return found.how


def _refuse_other_columns(
    path: Path, footer: Any, first: Path, wanted: Any, names: list[str], keep: Sequence[str]
) -> None:
    schema, other = footer.schema.to_arrow_schema(), wanted.schema.to_arrow_schema()
    if schema.names != names:
        own, lacking = [n for n in schema.names if n not in names], [n for n in names if n not in schema.names]
        told = [f"it lacks {few(lacking)}"] if lacking else []
        told += [f"it has {few(own)} besides"] if own else []
        message = " and ".join(told) or "they stand in another order"
        raise InputError(f"{path}: its columns are not those of {first}: {message}")
    for name in keep:
        if schema.field(name).type != other.field(name).type:
            found = f"{schema.field(name).type} here and {other.field(name).type} in {first}"
            raise InputError(f"{path}: column '{name}', which is to be kept, is {found}")


def _cut(path: Path, origin: str, footer: Any, most_rows: int) -> Iterator[Part]:
    groups: list[list[int]] = [[]]
    rows = size = 0
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        if groups[-1] and (rows + group.num_rows > most_rows or size + group.total_byte_size > MOST_BYTES):
            groups.append([])
            rows = size = 0
        groups[-1].append(index)
        rows, size = rows + group.num_rows, size + group.total_byte_size
    first = 0
    for number, indices in enumerate(groups):
        count = sum(footer.row_group(index).num_rows for index in indices)
        stem, suffix = origin[: -len(path.suffix)], path.suffix
        target = origin if len(groups) == 1 else f"{stem}-{number:05}-of-{len(groups):05}{suffix}"
        yield Part(str(path), origin, tuple(indices), first, count, target)
        first += count
