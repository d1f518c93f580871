"""The fastest honest way to run a file on this machine: settings, and files of reduced precision within a gate."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from runtime import (
    InputError,
    ModelError,
    Session,
    imported,
    read_header,
    read_inputs,
    sha256,
    through_link,
    whole_files,
)
from runtime.benching.inputs import seeded_rows
from runtime.machine import usable_cores
from runtime.summary import rows_depend
from runtime.tuning import (
    Candidate,
    Difference,
    FileTuning,
    Gate,
    Measurement,
    Tuning,
    best,
    candidates,
    difference,
    fingerprint,
    measure,
)
from runtime.tuning.choosing import EXACT
from runtime.tuning.identity import this_processor
from runtime.tuning.measuring import fewest_calls
from runtime.tuning.plot import can_plot, write_plot
from runtime.tuning.record import Measured

from .errors import ExportError

_SEED = 0
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class _Made:
    """A file of reduced precision, what was found of its results, and why it is out, if it is."""

    path: Path | None
    way: str | None = None
    found: Difference | None = None
    why: str | None = None
    note: str | None = None


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
    progress: Progress | None = None,
) -> Tuning:
    """Measure how the ONNX file at ``path`` is run fastest here on the CPU, and write ``NAME.tuning.json``.

    The traffic is ``batch`` rows a call (1 unless given, or what the file fixes), ``rate`` calls a second or back to
    back. With a gate, ``max_error`` (largest absolute difference of an output) or ``max_changed_labels`` (share of
    rows, for outputs with labels) or both, files of reduced precision are made as well and compared with the file on
    the rows of ``data`` (see ``runtime.read_rows``); those that pass stay, as ``NAME.KIND.onnx``. The ranges of
    int8-static come from every second row. ``seconds`` go to the measuring of latencies. Everything is written to
    ``folder`` (the file's own unless given), whole or not at all, with a plot where ``mlpx[report]`` is installed
    (``plot`` True or False insists).

    Raises InputError: data or traffic that the model cannot take, a gate without data or labels; ModelError;
    OutputError; MissingPackageError.
    """
    path = through_link(path)
    gate = None if max_error is None and max_changed_labels is None else Gate(max_error, max_changed_labels)
    _refuse(data, gate, rate, seconds)
    if plot:
        imported("matplotlib", "the plot of a tuning")  # before any work
    if path.is_file() and "mlpx.variant" in read_header(path).metadata:
        hint = "tune the float32 file that it was made of, which measures this kind too"
        raise InputError(f"{path} is of reduced precision. What to do: {hint}")
    with Session(path, "cpu", tuning=None) as session:
        count, summary = session.multiply_adds, session.summary
        ports = summary.inputs if summary is not None else session.inputs
        rows = read_inputs(data, ports, dtype=dtype)[0] if data is not None else None
        feed = _feed(session, rows, batch)
        size = len(next(iter(feed.values())))
        labelled = summary is not None and any(port.labels is not None for port in summary.outputs)
        if max_changed_labels is not None and not labelled:
            hint = "give --max-error alone, or name the labels in the spec"
            raise InputError(f"{path}: its outputs have no labels, so none can change. What to do: {hint}")
    target = Path(folder) if folder is not None else path.parent
    if gate is not None:
        from .variants import KINDS, refuse_other

        for kind in KINDS:
            refuse_other(target / f"{path.stem}.{kind}.onnx")
    with whole_files(target) as stage:
        _refuse_slow(rate, seconds, gate)
        made: dict[str, _Made] = {}
        if gate is not None and rows is not None:
            made = _variants(path, stage, rows, gate, size, progress)
        passed = {kind: one.path for kind, one in made.items() if one.why is None and one.path is not None}
        shown = {kind: one.path for kind, one in made.items() if one.path is not None}
        tried, notes = _candidates(path, count, size, shown)
        tell = None if progress is None else lambda done, of: progress("measuring", done, of)
        measured, left_out = measure(tried, feed, rate=rate, seconds=seconds, progress=tell)
        notes += [one.note for one in made.values() if one.note is not None]
        chosen = best([one for one in measured if one.candidate.kind in {EXACT, *passed}])
        if gate is None:
            notes.append("files of reduced precision: they need --data and a gate (--max-error, --max-changed-labels)")
            notes += _of_another(path, target)
        tuning = Tuning(
            model=path.name,
            weights_sha256=summary.weights_sha256 if summary is not None else None,
            chosen=chosen.candidate.kind,
            batch=size,
            rate=rate,
            seconds=seconds,
            max_error=max_error,
            max_changed_labels=max_changed_labels,
            data=Path(data).name if data is not None else None,
            machine=this_processor(),
            made=datetime.now(UTC).date().isoformat(),
            files=_files(path, made, measured),
            notes=(*notes, *left_out),
        )
        for one in made.values():
            if one.path is not None and one.why is not None:
                one.path.unlink()
        tuning.write(stage / f"{path.stem}.tuning.json")
        if can_plot() if plot is None else plot:
            write_plot(tuning, stage / f"{path.stem}.tuning.png")
    for kind in made.keys() - passed.keys():
        _remove_old(target / f"{path.stem}.{kind}.onnx")
    return tuning


def _refuse(data: object, gate: Gate | None, rate: float | None, seconds: float) -> None:
    """Raises InputError."""
    if gate is not None and data is None:
        hint = "give rows like those of the traffic with --data"
        raise InputError(f"a gate compares results on rows of your own, and there are none. What to do: {hint}")
    if rate is not None and not 0 < rate < np.inf:
        raise InputError(f"the rate is a number of calls a second above 0, not {rate!r}")
    if not 0 < seconds < np.inf:
        raise InputError(f"the time to measure for is a number of seconds above 0, not {seconds!r}")


def _refuse_slow(rate: float | None, seconds: float, gate: Gate | None) -> None:
    """Raises InputError where so few calls a second come that measuring takes far longer than it may."""
    from .variants import KINDS

    needed = fewest_calls() * (1 if gate is None else 1 + len(KINDS)) / rate if rate is not None else 0.0
    if needed > 3 * seconds:
        hint = f"--seconds {ceil(needed)}, or a higher rate"
        raise InputError(f"{rate:g} calls a second need at least {needed:,.0f} s to be measured. What to do: {hint}")


def _feed(session: Session, rows: Mapping[str, np.ndarray] | None, batch: int | None) -> dict[str, np.ndarray]:
    """Rows for a call: of the data, from its beginning again and again, else seeded standard normal ones."""
    fixed = session.inputs[0].shape[0]
    size = batch if batch is not None else fixed if isinstance(fixed, int) else 1
    if size < 1:
        raise InputError(f"the batch is a number of rows from 1 on, not {size}")
    if isinstance(fixed, int) and size != fixed:
        hint = f"give --batch {fixed}, or leave it out"
        raise InputError(f"the file fixes its batch at {fixed} rows, and {size} were asked for. What to do: {hint}")
    if rows is not None:
        count = len(next(iter(rows.values())))
        if not count:
            raise InputError("the data has no rows. What to do: give rows like those of the traffic")
        return {name: np.ascontiguousarray(values[np.arange(size) % count]) for name, values in rows.items()}
    return seeded_rows(session.inputs, size, _SEED)


def _variants(
    path: Path, stage: Path, rows: Mapping[str, np.ndarray], gate: Gate, batch: int, progress: Progress | None
) -> dict[str, _Made]:
    """Every kind of reduced precision, written to ``stage`` and compared with the file."""
    from .variants import KINDS, write_variant  # needs onnx, which tuning of the file alone does not
    from .variants.exactness import passed_over

    made: dict[str, _Made] = {}
    seen = {name: values[::2] for name, values in rows.items()}
    for number, kind in enumerate(KINDS):
        if progress is not None:
            progress(f"comparing {kind}", number, len(KINDS))
        try:
            written = write_variant(path, kind, stage, rows=seen)
        except (ExportError, InputError) as error:  # this kind does not fit; others may
            made[kind] = _Made(None, why=f"it cannot be made: {error}")
            continue
        try:
            found = difference(path, written.path, rows, batch)
        except ModelError as error:  # an ONNX Runtime that lacks an operator
            written.path.unlink()
            made[kind] = _Made(None, written.way, why=f"it cannot be run here: {error}")
            continue
        note = passed_over(kind, written.way)
        made[kind] = _Made(written.path, written.way, found, gate.why_not(found), note)
    return made


def _candidates(
    path: Path, multiply_adds: int, batch: int, shown: Mapping[str, Path]
) -> tuple[list[Candidate], list[str]]:
    """For every file the settings that are worth a try."""
    cores = usable_cores()
    foreign = "mlpx.multiply_adds" not in read_header(path).metadata  # its rows may depend on each other
    settings, notes = candidates(multiply_adds, batch, cores, by_batch=foreign)
    tried = [Candidate(EXACT, path, each) for each in settings]
    for kind, file in shown.items():
        depends = foreign or rows_depend(read_header(file).metadata)
        settings, more = candidates(multiply_adds, batch, cores, variant=True, by_batch=depends)
        notes += [note for note in more if note not in notes]
        tried += [Candidate(kind, file, each) for each in settings]
    return tried, notes


def _files(path: Path, made: Mapping[str, _Made], measured: list[Measurement]) -> tuple[FileTuning, ...]:
    files = [_described(EXACT, path, FileTuning(EXACT, path.name, error=None), measured)]
    for kind, one in made.items():
        name = f"{path.stem}.{kind}.onnx"
        known: dict[str, Any] = {"way": one.way, "kept": one.why is None, "why": one.why}
        if one.found is not None:
            known |= {"rows": one.found.rows, "error": one.found.error, "changed_labels": one.found.changed_labels}
        files.append(_described(kind, one.path, FileTuning(kind, name, **known), measured))
    return tuple(files)


def _described(kind: str, path: Path | None, known: FileTuning, measured: list[Measurement]) -> FileTuning:
    own = [one for one in measured if one.candidate.kind == kind]
    if path is not None:
        size = path.stat().st_size + sum(data.stat().st_size for data in [Path(f"{path}.data")] if data.is_file())
        known = replace(known, size=size, sha256=sha256(path), fingerprint=fingerprint(path))
    if not own:
        return known
    return replace(known, best=_record(best(own)), measured=tuple(map(_record, own)))


def _record(one: Measurement) -> Measured:
    settings = one.candidate.settings
    return Measured(settings, one.threads, one.latency, one.p50, one.p99, one.cpu, one.calls, one.rounds)


def _of_another(path: Path, folder: Path) -> list[str]:
    """In words: files of reduced precision under the file's name that were made of an earlier one."""
    digest = sha256(path)
    found = []
    for other in sorted(folder.glob(f"{glob.escape(path.stem)}.*.onnx")):
        with suppress(ModelError, OSError, ValueError):
            about = json.loads(read_header(other).metadata.get("mlpx.variant", "{}"))
            if about.get("source_sha256", digest) != digest:
                found.append(
                    f"{other.name}: it was made of another {path.name}; make it again with a gate, or delete it"
                )
    return found


def _remove_old(path: Path) -> None:
    """A file of reduced precision that an earlier tuning left, and this one refused."""
    with suppress(ModelError, OSError):
        if "mlpx.variant" in read_header(path).metadata:
            path.unlink()
