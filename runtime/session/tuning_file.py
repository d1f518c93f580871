"""The record of a tuning, beside the model: ``NAME.tuning.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isinf
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import write_whole

from .settings import Settings

FORMAT = 1
"""Of the record: a key may be added without a new format, never given another meaning."""


@dataclass(frozen=True)
class Measured:
    """The times of calls with one choice of settings, in seconds per call of the whole batch."""

    settings: Settings
    threads: int
    """Of one call, as it really ran."""
    latency: float
    """The median over the rounds of each round's median."""
    p50: float
    p99: float
    """Over all calls."""
    cpu: float
    """Processor time of all threads for a call, spinning between calls included: the median over the rounds."""
    calls: int
    rounds: tuple[float, ...] = ()
    """The median of each round."""


@dataclass(frozen=True)
class FileTuning:
    """The results for the file itself, or for one of reduced precision."""

    kind: str
    """float32 for the file itself."""
    name: str
    size: int | None = None
    """In bytes."""
    sha256: str | None = None
    fingerprint: str | None = None
    """See ``tuned.fingerprint``."""
    way: str | None = None
    rows: int | None = None
    """The number of rows that its results were compared on."""
    error: float | None = None
    """The largest absolute difference from the float32 file."""
    changed_labels: float | None = None
    """The share of rows whose label changed; None where there are no labels."""
    kept: bool = True
    """Whether it passed the gate and was written."""
    why: str | None = None
    """Why it was not kept, in words."""
    best: Measured | None = None
    """The measurement that its settings are taken from."""
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class Tuning:
    """The fastest way within a gate to run a model on one machine, for one kind of traffic.

    Examples:
        Continues the example of ``mlpx.tune``:

        >>> tuning.chosen in [file.kind for file in tuning.files], tuning.model
        (True, 'comfort.onnx')
    """

    model: str
    """The name of the float32 file."""
    weights_sha256: str | None
    chosen: str
    """The kind that is fastest within the gate."""
    batch: int
    rate: float | None
    """Calls per second; None: back to back."""
    seconds: float
    """The time allowed for measuring."""
    max_error: float | None
    max_changed_labels: float | None
    data: str | None
    machine: dict[str, str]
    made: str
    """The day, in UTC."""
    files: tuple[FileTuning, ...]
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    format: int = FORMAT

    def file(self, kind: str) -> FileTuning:
        """The results for one kind."""
        return next(file for file in self.files if file.kind == kind)

    def to_json(self) -> str:
        """One object; infinities, which JSON lacks, are texts."""
        return json.dumps(asdict(self, dict_factory=_json_fields), indent=1, ensure_ascii=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Write the record, whole. Raises OutputError."""
        write_whole(Path(path), self.to_json().encode())


def read_tuning(path: str | Path) -> Tuning:
    """Read a ``NAME.tuning.json``. Raises InputError: missing, damaged, or of a newer format.

    Examples:
        Continues the example of ``mlpx.tune``:

        >>> from runtime import read_tuning
        >>> read_tuning("tuned/comfort.tuning.json").chosen == tuning.chosen
        True
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        number = record["format"]
        tuning = _tuning(record) if number == FORMAT else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise InputError(f"{path}: not a tuning file, or a damaged one. What to do: make it again, mlpx tune") from None
    if tuning is None:
        raise InputError(f"{path}: a tuning file of format {number!r}; this version reads format {FORMAT}")
    return tuning


def _tuning(record: Mapping[str, Any]) -> Tuning:
    values = _known(Tuning, record)
    values["files"] = tuple(map(_file, values["files"]))
    values["machine"] = {_text(key): _text(value) for key, value in values["machine"].items()}
    values["notes"] = tuple(values.get("notes", ()))
    _text(values["model"])
    return Tuning(**values)


def _file(record: Mapping[str, Any]) -> FileTuning:
    values = _known(FileTuning, record)
    for name in ("kind", "name"):
        _text(values[name])
    if values.get("best") is not None:
        values["best"] = _measured(values["best"])
    values["measured"] = tuple(map(_measured, values.get("measured", ())))
    if values.get("error") is not None:
        values["error"] = float(values["error"])
    return FileTuning(**values)


def _measured(record: Mapping[str, Any]) -> Measured:
    values = _known(Measured, record)
    values["settings"] = Settings(**_known(Settings, values["settings"]))
    values["rounds"] = tuple(values.get("rounds", ()))
    return Measured(**values)


def _known(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that this version knows; a later one may have added others."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in record.items() if name in names}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _json_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, float) and isinf(value) else value for name, value in pairs}
