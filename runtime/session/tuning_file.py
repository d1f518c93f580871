"""What tuning found, as a record beside the model: ``NAME.tuning.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import write_whole

from .settings import Settings

FORMAT = 1
"""Of the record: a key may be added without a new format, never given another meaning."""


@dataclass(frozen=True)
class Measured:
    """One setting of a file, and what a call took, in seconds."""

    settings: Settings
    threads: int
    latency: float
    """The median over the rounds."""
    p50: float
    p99: float
    cpu: float
    """Processor time of all threads for a call."""
    calls: int
    rounds: tuple[float, ...] = ()
    """The median of each round."""


@dataclass(frozen=True)
class FileTuning:
    """What was found of the file itself, or of one of reduced precision."""

    kind: str
    """float32 for the file itself."""
    name: str
    size: int | None = None
    """In bytes."""
    sha256: str | None = None
    fingerprint: str | None = None
    """See ``runtime.session.tuned.fingerprint``."""
    way: str | None = None
    rows: int | None = None
    """That its results were compared on."""
    error: float | None = None
    """The largest absolute difference from the float32 file."""
    changed_labels: float | None = None
    """The share of rows whose label changed; None where there are no labels."""
    kept: bool = True
    """Whether the file is there: it passed the gate."""
    why: str | None = None
    """Why not, in words."""
    best: Measured | None = None
    """What its settings are taken from."""
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class Tuning:
    """The fastest honest way to run a model on one machine, for one kind of traffic."""

    model: str
    """The name of the float32 file."""
    weights_sha256: str | None
    chosen: str
    """The kind that is fastest within the gate."""
    batch: int
    rate: float | None
    """Calls a second; None: back to back."""
    seconds: float
    """That were given for measuring."""
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
        """What was found of one kind."""
        return next(found for found in self.files if found.kind == kind)

    def to_json(self) -> str:
        """One object; numbers that JSON lacks are texts."""
        return json.dumps(_texts(asdict(self)), indent=1, ensure_ascii=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Write the record, whole. Raises OutputError."""
        write_whole(Path(path), self.to_json().encode())


def read_tuning(path: str | Path) -> Tuning:
    """Read a ``NAME.tuning.json``. Raises InputError: missing, damaged, or of a newer format."""
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        number = record["format"]
        found = _tuning(record) if number == FORMAT else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise InputError(f"{path}: not a tuning file, or a damaged one. What to do: make it again, mlpx tune") from None
    if found is None:
        raise InputError(f"{path}: a tuning file of format {number!r}; this version reads format {FORMAT}")
    return found


def _tuning(record: Mapping[str, Any]) -> Tuning:
    known = {name: record[name] for name in Tuning.__dataclass_fields__ if name in record}
    files = tuple(_file(each) for each in known["files"])
    machine = {_text(key): _text(value) for key, value in known["machine"].items()}
    _text(known["model"])
    return Tuning(**{**known, "files": files, "machine": machine, "notes": tuple(known.get("notes", ()))})


def _file(record: Mapping[str, Any]) -> FileTuning:
    known = {name: record[name] for name in FileTuning.__dataclass_fields__ if name in record}
    for name in ("kind", "name"):
        _text(known[name])
    if known.get("best") is not None:
        known["best"] = _measured(known["best"])
    known["measured"] = tuple(_measured(each) for each in known.get("measured", ()))
    if known.get("error") is not None:
        known["error"] = float(known["error"])
    return FileTuning(**known)


def _measured(record: Mapping[str, Any]) -> Measured:
    known = {name: record[name] for name in Measured.__dataclass_fields__ if name in record}
    given = {name: record["settings"].get(name) for name in Settings.__dataclass_fields__}
    return Measured(**{**known, "settings": Settings(**given), "rounds": tuple(known.get("rounds", ()))})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(item) for item in value]
    return str(value) if isinstance(value, float) and value in (float("inf"), float("-inf")) else value
