"""The settings that a tuning file has for a model file, here."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..errors import InputError
from ..files import through_link
from ..settings import Settings
from .identity import fingerprint, this_processor
from .record import Tuning, read_tuning


class TuningWarning(UserWarning):
    """A tuning file that was ignored, and why."""


def tuning_for(path: str | Path | bytes, tuning: str | Path | None = "auto") -> Settings | None:
    """The settings that were measured to be best for the very file at ``path``; None where there are none.

    ``tuning`` is a tuning file, None for none, or "auto": NAME.tuning.json beside the model, or for NAME.KIND.onnx the
    one of NAME. Never does it lead to another file than ``path``. A tuning file that is damaged, of another model or of
    another machine is ignored with a TuningWarning. Raises InputError: a file that was named and is not there.
    """
    if tuning is None or isinstance(path, bytes):
        return None
    found = _beside(through_link(path)) if tuning == "auto" else Path(tuning)
    if found is None:
        return None
    if tuning != "auto" and not found.is_file():
        raise InputError(f"{found}: no such file. What to do: make it with mlpx tune, or leave tuning out")
    try:
        record = read_tuning(found)
    except InputError as error:
        return _ignored(f"{error}; it is ignored")
    if record.machine != (here := this_processor()):
        return _ignored(f"{found} is of another machine ({_apart(record.machine, here)}) and is ignored. {_AGAIN}")
    return _settings(record, found, through_link(path), asked=tuning != "auto")


def _settings(record: Tuning, found: Path, path: Path, *, asked: bool) -> Settings | None:
    mark = fingerprint(path) if path.is_file() else None
    match = next((file for file in record.files if file.fingerprint is not None and file.fingerprint == mark), None)
    if match is not None:
        return match.best.settings if match.best is not None else None
    of_name = any(file.name == path.name for file in record.files)
    meant = asked or of_name or found.name == f"{path.stem}.tuning.json"
    if mark is None or not meant:  # opening the file will say what is wrong with it; or it only shares a name's start
        return None
    what = "another file of that name" if of_name else f"another model, {record.model}"
    return _ignored(f"{found} is of {what}, not of {path}, and is ignored. {_AGAIN}")


_AGAIN = "What to do: measure here again, mlpx tune"


def _beside(path: Path) -> Path | None:
    """NAME.tuning.json, for the file of the name itself and those of reduced precision."""
    own = path.with_name(f"{path.stem}.tuning.json")
    stem = path.stem.rpartition(".")[0]
    return own if own.is_file() else of if stem and (of := path.with_name(f"{stem}.tuning.json")).is_file() else None


def _apart(there: dict[str, str], here: dict[str, str]) -> str:
    name = next(key for key in {**there, **here} if there.get(key) != here.get(key))
    return f"{name}: {there.get(name, 'unknown')}, here {here.get(name, 'unknown')}"


def _ignored(message: str) -> None:
    warnings.warn(message, TuningWarning, stacklevel=4)
