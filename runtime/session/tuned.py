"""The settings that a tuning file has for a model file, here."""

from __future__ import annotations

import warnings
from pathlib import Path

from runtime.errors import InputError
from runtime.files import through_link

from .settings import Settings
from .tuning_file import Tuning, read_tuning
from .tuning_identity import fingerprint, this_processor

_AGAIN = "What to do: measure here again, mlpx tune"


class TuningWarning(UserWarning):
    """A tuning file that was ignored, and why."""


class _Ignored(Exception):
    """Why a tuning file does not count."""


def tuning_for(path: str | Path | bytes, tuning: str | Path | None = "auto") -> Settings | None:
    """The settings that were measured to be best for the very file at ``path``; None where there are none.

    ``tuning`` is a tuning file, None for none, or "auto": NAME.tuning.json beside the model, or for NAME.KIND.onnx the
    one of NAME. Never does it lead to another file than ``path``. A tuning file that is damaged, of another model or of
    another machine is ignored with a TuningWarning. Raises InputError: a file that was named and is not there.
    """
    if tuning is None or isinstance(path, bytes):
        return None
    path, auto = through_link(path), tuning == "auto"
    found = _beside(path) if auto else Path(tuning)
    if found is None:
        return None
    if not auto and not found.is_file():
        raise InputError(f"{found}: no such file. What to do: make it with mlpx tune, or leave tuning out")
    try:
        record = read_tuning(found)
        return _settings(record, found, path, asked=not auto)
    except (InputError, _Ignored) as error:
        warnings.warn(f"the tuning file is ignored: {error}", TuningWarning, stacklevel=3)
        return None


def _settings(record: Tuning, found: Path, path: Path, *, asked: bool) -> Settings | None:
    """Raises _Ignored."""
    named = any(file.name == path.name for file in record.files)
    meant = asked or named or found.name == f"{path.stem}.tuning.json"
    if not meant or not path.is_file():  # it only shares a name's start; opening the file will say what is wrong
        return None
    if record.machine != (here := this_processor()):
        raise _Ignored(f"{found} was made on another machine ({_apart(record.machine, here)}). {_AGAIN}")
    mark = fingerprint(path)
    match = next((file for file in record.files if file.fingerprint == mark), None)
    if match is None:
        what = "another file of that name" if named else f"another model, {record.model}"
        raise _Ignored(f"{found} is of {what}, not of {path}. {_AGAIN}")
    return match.best.settings if match.best is not None else None


def _beside(path: Path) -> Path | None:
    """NAME.tuning.json, for the file of the name itself and those of reduced precision."""
    stems = [path.stem, path.stem.rpartition(".")[0]]
    places = [path.with_name(f"{stem}.tuning.json") for stem in stems if stem]
    return next((place for place in places if place.is_file()), None)


def _apart(there: dict[str, str], here: dict[str, str]) -> str:
    """The first difference of two machines, in words."""
    name = next(key for key in {**there, **here} if there.get(key) != here.get(key))
    return f"{name}: {there.get(name, 'unknown')} there, {here.get(name, 'unknown')} here"
