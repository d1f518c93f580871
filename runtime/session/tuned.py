"""The settings that a tuning file has for a model file, here."""

from __future__ import annotations

import hashlib
import os
import platform
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runtime.errors import InputError
from runtime.files import through_link

from .processor import cpuinfo, instructions, usable_cores
from .providers import DISTRIBUTIONS
from .settings import Settings
from .tuning_file import Tuning, read_tuning

_AGAIN = "What to do: measure here again, mlpx tune"
_PIECE, _PIECES = 2**16, 64
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "i8mm")


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


def fingerprint(path: str | Path) -> str:
    """SHA-256 of the size of a file and of 64 pieces of 64 KB spread over it, and the same of its external data.

    Up to 4 MB that is every byte; of more it reads 4 MB, a few milliseconds for any size. Two files that differ in
    places that it passes over have one fingerprint: settings change how fast a file runs, never what it computes.
    """
    digest = hashlib.sha256()
    for name in (Path(path), Path(f"{path}.data")):
        if name.is_file():
            _add(digest, name)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, path: Path) -> None:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(f"{size}\0".encode())
        if size <= _PIECE * _PIECES:
            digest.update(file.read())
            return
        for index in range(_PIECES):
            file.seek((size - _PIECE) * index // (_PIECES - 1))
            digest.update(file.read(_PIECE))


@cache
def this_processor() -> dict[str, str]:
    """The processor, the instructions that matter to a kernel, the cores that may be used, and ONNX Runtime's version.

    What was measured on a machine of another answer is not used.
    """
    flags = instructions()
    installed = [found for name in DISTRIBUTIONS if (found := _version(name)) is not None]
    return {
        "processor": cpuinfo().get("model name") or platform.processor() or platform.machine(),
        "instructions": " ".join(name for name in _INSTRUCTIONS if name in flags),
        "cores": str(usable_cores()),
        "onnxruntime": installed[0] if installed else "",
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
