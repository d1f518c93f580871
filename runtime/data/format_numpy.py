"""Rows from ``.npy`` and ``.npz`` files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.files import identity
from runtime.model.port import Port

from .arrays import check_rows, of_one_length
from .batches import BATCH_BYTES, Batch, Source
from .columns import Flaw, numbers_as

ALIGNED = 4096
"""Rows that a batch has a multiple of, where it has more."""


@contextmanager
def npy(path: Path, ports: Sequence[Port], rounding: bool, whole: bool) -> Iterator[Source]:
    """An array (batch, *row), mapped into memory slice by slice; what has the input's dtype is not copied."""
    if len(ports) > 1:
        names = ", ".join(port.name for port in ports)
        message = f"one array, and the model has {len(ports)} inputs ({names})"
        raise InputError(f"{message}. What to do: give a .npz file with an array of each name")
    port = ports[0]

    file = identity(path)

    def mapped() -> np.ndarray:
        if identity(path) != file:
            raise InputError("it was replaced by another file while it was read. What to do: score it again")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # numpy raises what its header's parser raises
            raise InputError(f"cannot be read as .npy: {error}") from None
        if not isinstance(array, np.ndarray):
            array.close()
            raise InputError("it is an archive of arrays; name it .npz")
        return array

    first = mapped()
    check_rows(first, port.name, port.shape[1:])

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        # Mapped anew for every slice: what a mapping has read stays in memory for as long as the mapping.
        return {port.name: np.asarray(mapped())[start:stop]}

    yield Source("by position", _slices(rows, {port.name: first}, ports, rounding, whole))


@contextmanager
def npz(path: Path, ports: Sequence[Port], rounding: bool, whole: bool) -> Iterator[Source]:
    """An array (batch, *row) of each input's name, or the only one, read into memory."""
    arrays: dict[str, np.ndarray] = {}
    names: list[str] = []
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError("it is a single array, not an archive of arrays; name it .npy")
            held = list(archive)
            for port in ports:
                name = port.name if port.name in held else held[0] if len(held) == 1 else None
                if name is None:
                    listed = ", ".join(held) or "nothing"
                    raise InputError(f"it holds {listed}; the array for the model is called '{port.name}'")
                arrays[port.name] = archive[name]
                names.append(name)
        except InputError:
            raise
        except Exception as error:  # numpy and zipfile raise whatever their parsers raise
            raise InputError(f"cannot be read as .npz: {error}") from None
    for port in ports:
        check_rows(arrays[port.name], port.name, port.shape[1:])
    of_one_length(arrays)
    matched = f"the array '{names[0]}', by position" if len(ports) == 1 else f"the arrays {', '.join(names)}"

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        return {name: array[start:stop] for name, array in arrays.items()}

    yield Source(matched, _slices(rows, arrays, ports, rounding, whole))


def _slices(
    rows: Callable[[int, int], dict[str, np.ndarray]],
    arrays: dict[str, np.ndarray],
    ports: Sequence[Port],
    rounding: bool,
    whole: bool,
) -> Iterator[Callable[[], Batch]]:
    total = len(next(iter(arrays.values())))
    size = max(1, total) if whole else batch_rows(sum(prod(array.shape[1:]) for array in arrays.values()))
    for start in range(0, total, size) if total else (0,):

        def decode(start: int = start, stop: int = min(start + size, total)) -> Batch:
            found: dict[str, np.ndarray] = {}
            flaws: list[Flaw] = []
            held = rows(start, stop)
            for port in ports:
                values, what = held[port.name], f"'{port.name}'"
                found[port.name], flaw = numbers_as(port.dtype, values, what, rounding=rounding)
                if flaw is not None:
                    flaws.append(flaw)
            return Batch(found, flaws, stop / total if total else 1.0)

        yield decode


def batch_rows(width: int) -> int:
    """The rows of a batch, of ``width`` values each."""
    rows = max(1, BATCH_BYTES // (4 * max(1, width)))
    return rows if rows < ALIGNED else rows // ALIGNED * ALIGNED
