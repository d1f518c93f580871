"""A folder of files of rows scored into a folder of results, file by file; and rows from standard input."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import whole_folder
from runtime.session.session import Session

from .file_formats import FORMATS, format_of
from .streaming import ScoreReport, score_file

STANDARD_INPUT = "standard input"
"""What messages call it."""


@dataclass(frozen=True)
class FilesReport:
    """What scoring a folder did."""

    files: tuple[ScoreReport, ...]
    """Of each file, in the order of their names."""
    output: Path
    seconds: float
    rows: int
    rows_per_second: float

    @property
    def declares_ranges(self) -> bool:
        """Whether the model's file declares any range for its input."""
        return any(report.declares_ranges for report in self.files)

    @property
    def rounded(self) -> bool:
        """Whether numbers of float64 columns became the nearest float32, without ``dtype="float32"``."""
        return any(report.rounded for report in self.files)


def score_files(
    session: Session,
    data: Path,
    output: Path,
    *,
    progress: Callable[[int, float], None] | None = None,
    **options: Any,
) -> FilesReport:
    """Score every file of the folder ``data`` into one of the same name in the folder ``output``, all of them or none.

    Files whose name begins with a dot or an underscore are left out; results of compressed files are CSV. ``options``
    are those of ``score_file``. Raises what it raises, and InputError: ``output`` has files, lies in ``data``, or two
    files would have results of one name.
    """
    data, output = data.absolute(), output.absolute()
    if output == data or data in output.parents:
        raise InputError(f"{output}: the results would lie within the data. What to do: give another folder, with -o")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: it exists and is not an empty folder. What to do: give another one, with -o")
    targets = _targets(data)
    reports: list[ScoreReport] = []
    with whole_folder(output) as stage:
        for number, (target, path) in enumerate(targets.items()):
            (stage / target).parent.mkdir(parents=True, exist_ok=True)
            done = sum(report.rows for report in reports)
            shown = None if progress is None else _shown(progress, done, number, len(targets))
            report = score_file(session, path, stage / target, progress=shown, **options)
            reports.append(replace(report, output=output / target))
    rows, seconds = sum(report.rows for report in reports), sum(report.seconds for report in reports)
    return FilesReport(tuple(reports), output, seconds, rows, rows / seconds)


def _shown(progress: Callable[[int, float], None], rows: int, number: int, count: int) -> Callable[[int, float], None]:
    return lambda own, share: progress(rows + own, (number + share) / count)


def _targets(data: Path) -> dict[Path, Path]:
    """The files of a folder, by the names of their results within another one."""
    targets: dict[Path, Path] = {}
    for path in sorted(data.rglob("*")):
        own = path.relative_to(data)
        if not path.is_file() or any(name[0] in "._" for name in own.parts):
            continue
        if not any(each.names(path.name) for each in FORMATS):
            format_of(path)  # raises the error that lists the formats
        can_write = any(each.write is not None and each.names(path.name) for each in FORMATS)
        target = own if can_write else own.with_name(f"{format_of(path).stem(own.name)}.csv")
        if target in targets:
            raise InputError(f"{data}: the results of {targets[target].name} and {path.name} would both be {target}")
        targets[target] = path
    if not targets:
        raise InputError(f"{data}: the folder holds no file of rows")
    return targets


@contextmanager
def standard_input() -> Generator[Path]:
    """A file with what comes from standard input, as CSV; errors name standard input."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{STANDARD_INPUT}.csv"
        with open(path, "wb") as target:
            shutil.copyfileobj(sys.stdin.buffer, target)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), STANDARD_INPUT)) from None
