"""The fastest way within a gate to run a file on this machine: settings, and files of reduced precision."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np

from runtime import InputError, ModelError, Session, read_header, sha256, through_link, whole_files
from runtime.extras import imported
from runtime.model.summary import Summary, rows_depend
from runtime.session.processor import usable_cores
from runtime.session.tuned import fingerprint, this_processor
from runtime.session.tuning_file import FileTuning, Measured, Tuning
from runtime.timing.accuracy import Gate, difference
from runtime.timing.candidates import EXACT, Candidate, best, settings_to_try
from runtime.timing.measuring import fewest_calls, measure
from runtime.timing.plot import can_plot, write_plot
from runtime.timing.rows import check_batch, described_inputs, repeated, rows_of_file, seeded_rows
from runtime.timing.timer import check_seconds

from .errors import ExportError


def tune(
    path: str | Path,
    *,
    data: str | Path | None = None,
    batch: int | None = None,
    rate: float | None = None,
    max_error: float | None = None,
    max_changed_labels: float | None = None,
    folder: str | Path | None = None,
    seconds: float = 20.0,
    dtype: str | None = None,
    plot: bool | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> Tuning:
    """Measure how the ONNX file at ``path`` is run fastest here on the CPU, and write ``NAME.tuning.json``.

    The traffic is ``batch`` rows a call (1 unless given, or what the file fixes), ``rate`` calls a second or back to
    back. With a gate, ``max_error`` (largest absolute difference of an output) or ``max_changed_labels`` (share of
    rows, for outputs with labels) or both, files of reduced precision are made as well and compared with the file on
    the rows of ``data`` (see ``runtime.read_rows``); those that pass stay, as ``NAME.KIND.onnx``. The ranges of
    int8-static come from every second row. Latencies are measured for ``seconds``. Everything is written to ``folder``
    (the file's own unless given), whole or not at all, with a plot where ``mlpx[report]`` is installed (``plot`` True
    or False insists).

    Raises InputError: data or traffic that the model cannot take, a gate without data or labels; ModelError;
    OutputError; MissingPackageError.

    Examples:
        >>> from mlpx import tune
        >>> tuning = tune("comfort.onnx", data="rows.csv", max_error=0.5, seconds=0.5, folder="tuned", plot=False)
        >>> tuning.batch, tuning.max_error
        (1, 0.5)
    """
    path, progress = through_link(path), progress or _unseen
    gate = None if max_error is None and max_changed_labels is None else Gate(max_error, max_changed_labels)
    _check_options(path, gate, data, rate, seconds)
    if plot:
        imported("matplotlib", "the plot of a tuning")  # before any work
    with Session(path, "cpu", tuning=None) as session:
        multiply_adds, summary = session.multiply_adds, session.summary
        ports = described_inputs(session)
        rows = rows_of_file(Path(data), ports, dtype) if data is not None else None
        size = check_batch(session, batch) or 1
        feed = repeated(rows, size) if rows is not None else seeded_rows(ports, size)
        if gate is not None:
            _check_labels(path, gate, summary)
    target = Path(folder) if folder is not None else path.parent
    kinds: list[str] = []
    if gate is not None:
        from .variants import KINDS, refuse_other  # needs onnx, which tuning of the file alone does not

        kinds = list(KINDS)
        for kind in kinds:
            refuse_other(target / f"{path.stem}.{kind}.onnx")
    _check_rate(rate, seconds, 1 + len(kinds))
    with whole_files(target) as stage:
        files, notes = [FileTuning(EXACT, path.name, error=None)], list[str]()
        if gate is not None and rows is not None:
            for number, kind in enumerate(kinds):
                progress(f"comparing {kind}", number, len(kinds))
                file, passed_over = _variant(kind, path, stage, rows, gate, size)
                files.append(file)
                notes += [] if passed_over is None else [passed_over]
        paths = {EXACT: path, **{file.kind: stage / file.name for file in files if (stage / file.name).exists()}}
        candidates, not_tried = _candidates(paths, multiply_adds, size)
        measured, left_out = measure(
            candidates, feed, rate=rate, seconds=seconds, progress=partial(progress, "measuring")
        )
        kept = {file.kind for file in files if file.kept}
        if gate is None:
            notes.append("files of reduced precision: they need --data and a gate (--max-error, --max-changed-labels)")
            notes += _stale_variants(path, target)
        tuning = Tuning(
            model=path.name,
            weights_sha256=summary.weights_sha256 if summary is not None else None,
            chosen=best({each: times for each, times in measured.items() if each.kind in kept}).kind,
            batch=size,
            rate=rate,
            seconds=seconds,
            max_error=max_error,
            max_changed_labels=max_changed_labels,
            data=Path(data).name if data is not None else None,
            machine=this_processor(),
            made=datetime.now(UTC).date().isoformat(),
            files=tuple(_with_times(file, paths.get(file.kind), measured) for file in files),
            notes=(*not_tried, *notes, *left_out),
        )
        for kind in paths.keys() - kept:
            paths[kind].unlink()
        tuning.write(stage / f"{path.stem}.tuning.json")
        if can_plot() if plot is None else plot:
            write_plot(tuning, stage / f"{path.stem}.tuning.png")
    for file in files:
        with suppress(ModelError, OSError):  # a file that an earlier tuning left, and this one refused
            if not file.kept and "mlpx.variant" in read_header(target / file.name).metadata:
                (target / file.name).unlink()
    return tuning


def _unseen(_step: str, _done: int, _total: int) -> None:
    """The progress of a tuning that nobody follows."""


def _check_options(path: Path, gate: Gate | None, data: str | Path | None, rate: float | None, seconds: float) -> None:
    """Raises InputError."""
    if gate is not None and data is None:
        hint = "give rows like those of the traffic with --data"
        raise InputError(f"a gate compares results on rows of your own, and there are none. What to do: {hint}")
    if rate is not None and not 0 < rate < np.inf:
        raise InputError(f"the rate is a number of calls a second above 0, not {rate!r}")
    check_seconds(seconds)
    if path.is_file() and "mlpx.variant" in read_header(path).metadata:
        hint = "tune the float32 file that it was made of, which measures this kind too"
        raise InputError(f"{path} is of reduced precision. What to do: {hint}")


def _check_labels(path: Path, gate: Gate, summary: Summary | None) -> None:
    labelled = summary is not None and any(port.labels is not None for port in summary.outputs)
    if gate.max_changed_labels is not None and not labelled:
        hint = "give --max-error alone, or name the labels in the spec"
        raise InputError(f"{path}: its outputs have no labels, so none can change. What to do: {hint}")


def _check_rate(rate: float | None, seconds: float, files: int) -> None:
    """Raises InputError: calls are so few that measuring would take far longer than ``seconds``."""
    needed = fewest_calls() * files / rate if rate is not None else 0.0
    if needed > 3 * seconds:
        hint = f"--seconds {ceil(needed)}, or a higher rate"
        message = f"{rate:g} calls a second need at least {needed:,.0f} s to be measured"
        raise InputError(f"{message}. What to do: {hint}")


def _variant(
    kind: str, path: Path, stage: Path, rows: Mapping[str, np.ndarray], gate: Gate, batch: int
) -> tuple[FileTuning, str | None]:
    """A file of reduced precision, written to ``stage`` and compared with the file, and why no faster way is taken."""
    from .variants import write_variant
    from .variants.kinds import passed_over

    file = FileTuning(kind, f"{path.stem}.{kind}.onnx", kept=False)
    try:
        variant = write_variant(path, kind, stage, rows={name: values[::2] for name, values in rows.items()})
    except (ExportError, InputError) as error:  # this kind does not fit; others may
        return replace(file, why=f"it cannot be made: {error}"), None
    try:
        result = difference(path, variant.path, rows, batch)
    except ModelError as error:  # an ONNX Runtime that lacks an operator
        variant.path.unlink()
        return replace(file, way=variant.way, why=f"it cannot be run here: {error}"), None
    why = gate.why_not(result)
    file = replace(file, rows=result.rows, error=result.error, changed_labels=result.changed_labels)
    return replace(file, way=variant.way, kept=why is None, why=why), passed_over(kind, variant.way)


def _candidates(paths: Mapping[str, Path], multiply_adds: int, batch: int) -> tuple[list[Candidate], list[str]]:
    """For every file the settings that are worth a try, and notes on those that are not."""
    candidates, notes, cores = list[Candidate](), list[str](), usable_cores()
    for kind, path in paths.items():
        metadata = read_header(path).metadata
        depend = rows_depend(metadata) or "mlpx.multiply_adds" not in metadata  # rows of other tools' files may
        settings, left_out = settings_to_try(multiply_adds, batch, cores, variant=kind != EXACT, by_batch=depend)
        candidates += [Candidate(kind, path, each) for each in settings]
        notes += [note for note in left_out if note not in notes]
    return candidates, notes


def _with_times(file: FileTuning, path: Path | None, measured: Mapping[Candidate, Measured]) -> FileTuning:
    """The record of a file with its identity and the times of its calls, where it could be made and run."""
    if path is None:
        return file
    data, own = Path(f"{path}.data"), {each: times for each, times in measured.items() if each.kind == file.kind}
    return replace(
        file,
        size=path.stat().st_size + (data.stat().st_size if data.is_file() else 0),
        sha256=sha256(path),
        fingerprint=fingerprint(path),
        best=own[best(own)] if own else None,
        measured=tuple(own.values()),
    )


def _stale_variants(path: Path, folder: Path) -> list[str]:
    """Notes on files of reduced precision under the file's name that were made of an earlier one."""
    digest, notes = sha256(path), list[str]()
    for file in sorted(folder.glob(f"{glob.escape(path.stem)}.*.onnx")):
        with suppress(ModelError, OSError, ValueError):
            variant = json.loads(read_header(file).metadata.get("mlpx.variant", "{}"))
            if variant.get("source_sha256", digest) != digest:
                hint = "make it again with a gate, or delete it"
                notes.append(f"{file.name}: it was made of another {path.name}; {hint}")
    return notes
