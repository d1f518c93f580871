"""``.npy`` and ``.npz`` files of rows and of results."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from runtime.errors import InputError
from runtime.files import identity
from runtime.model.port import Port

from .arrays import check_lengths, check_shape, convert
from .batches import Batch, Source, batch_rows, unreadable
from .flaws import Flaw

Arrays = Mapping[str, np.ndarray]


@contextmanager
def read_npy(path: Path, ports: Sequence[Port], rounding: bool, whole: bool) -> Generator[Source]:
    """An array (batch, *row), mapped into memory slice by slice; it is not copied if it has the input's dtype."""
    if len(ports) > 1:
        message = f"one array, and the model has {len(ports)} inputs ({', '.join(port.name for port in ports)})"
        raise InputError(f"{message}. What to do: give a .npz file with an array of each name")
    port = ports[0]
    file = identity(path)

    def load() -> np.ndarray:
        if identity(path) != file:
            raise InputError("it was replaced by another file while it was read. What to do: score it again")
        try:
            array: np.ndarray | np.lib.npyio.NpzFile[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy raises what its header's parser raises
            raise unreadable(".npy", error) from None
        if not isinstance(array, np.ndarray):
            array.close()
            raise InputError("it is an archive of arrays; name it .npz")
        return array

    array = load()
    check_shape(array, port)

    def slice_rows(start: int, stop: int) -> Arrays:
        # Each slice has a mapping of its own: pages that were read stay in memory as long as their mapping.
        return {port.name: np.asarray(load())[start:stop]}

    yield Source("by position", _decoders(slice_rows, {port.name: array}, ports, rounding, whole))


@contextmanager
def read_npz(path: Path, ports: Sequence[Port], rounding: bool, whole: bool) -> Generator[Source]:
    """An array (batch, *row) of each input's name, or a single array, read into memory."""
    arrays: dict[str, np.ndarray] = {}
    used: list[str] = []
    with open(path, "rb") as file:
        try:
            archive: np.ndarray | np.lib.npyio.NpzFile[Any] = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError("it is a single array, not an archive of arrays; name it .npy")
            names = list(archive)
            for port in ports:
                name = port.name if port.name in names else names[0] if len(names) == 1 else None
                if name is None:
                    listed = ", ".join(names) or "nothing"
                    raise InputError(f"it holds {listed}; the array for the model is called '{port.name}'")
                arrays[port.name] = archive[name]
                used.append(name)
        except InputError:
            raise
        except Exception as error:  # NumPy and zipfile raise whatever their parsers raise
            raise unreadable(".npz", error) from None
    for port in ports:
        check_shape(arrays[port.name], port)
    check_lengths(arrays)
    matched = f"the array '{used[0]}', by position" if len(ports) == 1 else f"the arrays {', '.join(used)}"

    def slice_rows(start: int, stop: int) -> Arrays:
        return {name: array[start:stop] for name, array in arrays.items()}

    yield Source(matched, _decoders(slice_rows, arrays, ports, rounding, whole))


def _decoders(
    slice_rows: Callable[[int, int], Arrays], arrays: Arrays, ports: Sequence[Port], rounding: bool, whole: bool
) -> Iterator[Callable[[], Batch]]:
    total = len(next(iter(arrays.values())))
    size = max(1, total) if whole else batch_rows(sum(prod(array.shape[1:]) for array in arrays.values()))

    def decode(start: int, stop: int) -> Batch:
        rows: dict[str, np.ndarray] = {}
        flaws: list[Flaw] = []
        values = slice_rows(start, stop)
        for port in ports:
            rows[port.name], flaw = convert(values[port.name], port.dtype, f"'{port.name}'", port, rounding=rounding)
            if flaw is not None:
                flaws.append(flaw)
        return Batch(rows, flaws, stop / total if total else 1.0)

    for start in range(0, total, size) if total else (0,):
        yield partial(decode, start, min(start + size, total))


@contextmanager
def write_npy(file: IO[bytes]) -> Generator[Callable[[Arrays], None]]:
    """A single array; its header is written again when its length is known."""
    header: dict[str, Any] = {}
    rows = 0

    def write(arrays: Arrays) -> None:
        nonlocal rows, header
        (array,) = arrays.values()
        if not header:
            header = np.lib.format.header_data_from_array_1_0(array) | {"fortran_order": False}
            np.lib.format.write_array_header_1_0(file, header | {"shape": (0, *array.shape[1:])})
        rows += len(array)
        file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")

    yield write
    file.seek(0)  # NumPy leaves room in the header for any number of rows
    np.lib.format.write_array_header_1_0(file, header | {"shape": (rows, *header["shape"][1:])})


@contextmanager
def write_npz(file: IO[bytes]) -> Generator[Callable[[Arrays], None]]:
    """Arrays by name, each kept in a temporary file until the end."""
    with ExitStack() as stack:
        parts: dict[str, tuple[IO[bytes], Callable[[Arrays], None]]] = {}
        open_parts = stack.enter_context(ExitStack())

        def write(arrays: Arrays) -> None:
            for name, array in arrays.items():
                if name not in parts:
                    part = stack.enter_context(tempfile.TemporaryFile(dir=Path(file.name).parent))
                    parts[name] = part, open_parts.enter_context(write_npy(part))
                parts[name][1]({name: array})

        yield write
        open_parts.close()
        with zipfile.ZipFile(file, "w") as archive:  # numpy.savez cannot name an array "file"
            for name, (part, _) in parts.items():
                part.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    shutil.copyfileobj(part, member, 1 << 20)
