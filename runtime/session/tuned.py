"""The settings that a tuning file has for a model file on this machine."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from runtime.errors import InputError
from runtime.extras import installed_version
from runtime.files import through_link

from .processor import instructions, processor_name, usable_cores
from .providers import DISTRIBUTIONS
from .settings import Settings
from .tuning_file import Tuning, read_tuning

_HINT = "What to do: measure here again, mlpx tune"
_PIECE, _PIECES = 2**16, 64
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "i8mm")


class TuningWarning(UserWarning):
    """A tuning file that was ignored, and why.

    Examples:
        >>> import warnings
        >>> from pathlib import Path
        >>> from runtime import TuningWarning, tuning_for
        >>> written = Path("damaged.json").write_text("{")
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always", TuningWarning)
        ...     print(tuning_for("comfort.onnx", "damaged.json"), caught[0].category.__name__)
        None TuningWarning
    """


class _Ignored(Exception):
    """Why a tuning file does not apply."""


def tuning_for(path: str | Path | bytes, tuning: str | Path | None = "auto") -> Settings | None:
    """The settings that were measured to be best for the very file at ``path``; None where there are none.

    ``tuning`` is a tuning file, None for none, or "auto": NAME.tuning.json beside the model, or for NAME.KIND.onnx the
    one of NAME. No other file than ``path`` is ever opened instead. A tuning file that is damaged, of another model or
    of another machine is ignored with a TuningWarning. Raises InputError: ``tuning`` names a file that does not exist.

    Examples:
        >>> from runtime import tuning_for
        >>> print(tuning_for("comfort.onnx", None))
        None
    """
    if tuning is None or isinstance(path, bytes):
        return None
    path, auto = through_link(path), tuning == "auto"
    tuning_path = _beside(path) if auto else Path(tuning)
    if tuning_path is None:
        return None
    if not auto and not tuning_path.is_file():
        raise InputError(f"{tuning_path}: no such file. What to do: make it with mlpx tune, or leave tuning out")
    try:
        return _settings(read_tuning(tuning_path), tuning_path, path, explicit=not auto)
    except (InputError, _Ignored) as error:
        warnings.warn(f"the tuning file is ignored: {error}", TuningWarning, stacklevel=3)
        return None


def _settings(record: Tuning, tuning_path: Path, path: Path, *, explicit: bool) -> Settings | None:
    """Raises _Ignored."""
    listed = any(file.name == path.name for file in record.files)
    meant = explicit or listed or tuning_path.name == f"{path.stem}.tuning.json"
    if not meant or not path.is_file():  # only the name begins alike; opening the file will say what is wrong
        return None
    machine = this_processor()
    if record.machine != machine:
        difference = _first_difference(record.machine, machine)
        raise _Ignored(f"{tuning_path} was made on another machine ({difference}). {_HINT}")
    digest = fingerprint(path)
    file = next((file for file in record.files if file.fingerprint == digest), None)
    if file is None:
        subject = "another file of that name" if listed else f"another model, {record.model}"
        raise _Ignored(f"{tuning_path} is of {subject}, not of {path}. {_HINT}")
    return file.best.settings if file.best is not None else None


def _beside(path: Path) -> Path | None:
    """NAME.tuning.json, for NAME.onnx itself and its files of reduced precision."""
    stems = [path.stem, path.stem.rpartition(".")[0]]
    candidates = (path.with_name(f"{stem}.tuning.json") for stem in stems if stem)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _first_difference(recorded: dict[str, str], actual: dict[str, str]) -> str:
    name = next(key for key in {**recorded, **actual} if recorded.get(key) != actual.get(key))
    return f"{name}: {recorded.get(name, 'unknown')} there, {actual.get(name, 'unknown')} here"


def fingerprint(path: str | Path) -> str:
    """SHA-256 of the size of a file and of 64 pieces of 64 KB spread over it, and the same of its external data.

    Up to 4 MB that is every byte; of a larger file it reads 4 MB, a few milliseconds for any size. Two files that
    differ only in bytes that it skips have one fingerprint: settings change how fast a file runs, never what it
    computes.
    """
    digest = hashlib.sha256()
    for name in (Path(path), Path(f"{path}.data")):
        if name.is_file():
            for piece in _pieces(name):
                digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    """What a fingerprint is made of."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        yield f"{size}\0".encode()
        if size <= _PIECE * _PIECES:
            yield file.read()
            return
        for index in range(_PIECES):
            file.seek((size - _PIECE) * index // (_PIECES - 1))
            yield file.read(_PIECE)


@cache
def this_processor() -> dict[str, str]:
    """The processor, the instructions that matter to a kernel, the usable cores, and ONNX Runtime's version.

    Measurements of a machine where any of these differs are not used.
    """
    flags = instructions()
    versions = (installed_version(name) for name in DISTRIBUTIONS)
    return {
        "processor": processor_name(),
        "instructions": " ".join(name for name in _INSTRUCTIONS if name in flags),
        "cores": str(usable_cores()),
        "onnxruntime": next((version for version in versions if version is not None), ""),
    }
