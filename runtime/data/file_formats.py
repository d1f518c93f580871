"""The file formats of data and of results: a table that reading, writing, messages and help texts are made from.

A new format is a file beside this one and a row here. This file imports neither the formats' modules nor NumPy, so
that the help of the commands appears at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from runtime.errors import InputError
from runtime.extras import imported


@dataclass(frozen=True)
class FileFormat:
    """A format, and the functions that read and write it, as ``module.function`` in this folder."""

    name: str
    suffixes: tuple[str, ...]
    """Help texts list the first."""
    read: str
    """``(path, ports, rounding, whole) -> context manager of a Source``; ``whole`` allows batches of any size."""
    write: str | None = None
    """``(file) -> context manager of a function`` that is called with the results of each batch."""
    results: Literal["columns", "arrays", "array"] = "columns"
    """What ``write`` takes: a polars data frame, a dict of arrays, or a dict of one array."""
    packages: tuple[str, ...] = ()
    """Needed for reading and writing."""
    has_lines: bool = False
    """Messages count the lines of the file instead of its rows."""
    options: tuple[str, ...] = ()
    """What ``read`` takes besides."""

    def names(self, name: str) -> bool:
        """Whether a file of this name is of this format."""
        return name.lower().endswith(self.suffixes)

    def stem(self, name: str) -> str:
        """A file's name without the suffix of the format: ``2024.01`` of ``2024.01.csv.gz``."""
        return name[: -len(next(suffix for suffix in self.suffixes if name.lower().endswith(suffix)))]

    def load(self, function: str, purpose: str) -> Callable[..., Any]:
        """The function ``read`` or ``write``. Raises MissingPackageError, which names the purpose."""
        for package in self.packages:
            imported(package, purpose)
        module, _, name = function.partition(".")
        return getattr(import_module(f"{__package__}.{module}"), name)


_CSV, _ARROW = ("polars",), ("pyarrow",)
_TEXT: dict[str, Any] = {"packages": _CSV, "has_lines": True, "options": ("keep", "separator")}
FORMATS = (
    FileFormat(".npy", (".npy",), "format_numpy.read_npy", "format_numpy.write_npy", "array"),
    FileFormat(".npz", (".npz",), "format_numpy.read_npz", "format_numpy.write_npz", "arrays"),
    FileFormat("CSV", (".csv",), "format_csv.read_csv", "format_csv.write_csv", **_TEXT),
    FileFormat("TSV", (".tsv",), "format_csv.read_tsv", "format_csv.write_tsv", **_TEXT),
    FileFormat("compressed CSV", (".csv.gz", ".tsv.gz"), "format_csv.read_compressed", **_TEXT),
    FileFormat(
        "Parquet",
        (".parquet",),
        "format_arrow.read_parquet",
        "format_arrow.write_parquet",
        packages=_ARROW,
        options=("keep", "row_groups", "threads"),
    ),
    FileFormat(
        "Arrow files",
        (".arrow", ".feather"),
        "format_arrow.read_ipc",
        "format_arrow.write_ipc",
        packages=_ARROW,
        options=("keep",),
    ),
)
_WRITABLE = tuple(each for each in FORMATS if each.write is not None)
DATA_SUFFIXES = tuple(each.suffixes[0] for each in FORMATS)
RESULTS_SUFFIXES = tuple(each.suffixes[0] for each in _WRITABLE)
"""For help texts."""


def format_of(path: Path, *, results: bool = False) -> FileFormat:
    """The format of a file of data or of ``results``, by its name. Raises InputError."""
    formats = _WRITABLE if results else FORMATS
    for each in formats:
        if each.names(path.name):
            return each
    listed = ", ".join(suffix for each in formats for suffix in each.suffixes)
    verb, preposition = ("results are written", "to") if results else ("data is read", "from")
    raise InputError(f"{path}: {verb} {preposition} {listed} files, not {preposition} '{path.suffix}'")


def has_lines(name: str) -> bool:
    """Whether messages on a data file of this name count its lines instead of its rows."""
    return any(each.has_lines and each.names(name) for each in FORMATS)
