"""Which file, and which machine, a tuning is of."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .machine import DISTRIBUTIONS, usable_cores
from .processor import cpuinfo, instructions

_PIECE, _PIECES = 2**16, 64
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "i8mm")


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
