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
from .batches import Batch, Source, batch_rows, most_bytes, too_large, unreadable
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

    def slice_rows(start: int, stop: int) -> Callable[[], Arrays]:
        # Each slice has a mapping of its own: pages that were read stay in memory as long as their mapping.
        return lambda: {port.name: np.asarray(load())[start:stop]}

    yield Source("by position", _decoders(slice_rows, {port.name: array}, ports, rounding, whole))


@contextmanager
def read_npz(path: Path, ports: Sequence[Port], rounding: bool, whole: bool) -> Generator[Source]:
    """An array (batch, *row) of each input's name, or a single array, read from the archive batch by batch.

    An archive may hold a thousand times its own size, so what it declares is checked before memory is taken.
    """
    with ExitStack() as stack:
        archive = stack.enter_context(_opened(path))
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        used: list[str] = []
        for port in ports:
            name = port.name if port.name in members else next(iter(members)) if len(members) == 1 else None
            if name is None:
                listed = ", ".join(members) or "nothing"
                raise InputError(f"it holds {listed}; the array for the model is called '{port.name}'")
            used.append(name)
        try:
            inner = [_Member(archive, members[name]) for name in used]
        except Exception as error:  # NumPy and zipfile raise whatever their parsers raise
            raise unreadable(".npz", error) from None
        arrays = {port.name: member for port, member in zip(ports, inner, strict=True)}
        limit = most_bytes(path)
        for port, member in zip(ports, inner, strict=True):
            if whole or member.fortran or member.dtype.kind not in "fiub":
                member.read_whole(limit)
            check_shape(member.array if member.array is not None else member.placeholder, port)
        check_lengths({name: member.placeholder for name, member in arrays.items()})
        matched = f"the array '{used[0]}', by position" if len(ports) == 1 else f"the arrays {', '.join(used)}"
        read = {name: member.placeholder for name, member in arrays.items()}

        def slice_rows(start: int, stop: int) -> Callable[[], Arrays]:
            rows = {name: member.rows(start, stop) for name, member in arrays.items()}
            return lambda: rows

        yield Source(matched, _decoders(slice_rows, read, ports, rounding, whole))


@contextmanager
def _opened(path: Path) -> Generator[zipfile.ZipFile]:
    """The archive of a ``.npz`` file. Raises InputError."""
    with open(path, "rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise InputError("it is a single array, not an archive of arrays; name it .npy")
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises whatever its parsers raise
            raise unreadable(".npz", error) from None
        with archive:
            yield archive


class _Member:
    """An array inside an archive, read in the order of its rows."""

    dtype: np.dtype[Any]
    fortran: bool
    """Whether its first dimension varies fastest: then it is read as a whole."""
    placeholder: np.ndarray
    """Of its shape and dtype, without memory of its own."""
    array: np.ndarray | None
    """Its values, if they were read as a whole."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo):
        """Raises ValueError, or whatever zipfile and NumPy raise: it is damaged, or not an array."""
        self._file: Any = archive.open(info)  # ZipExtFile: typeshed says less
        version = np.lib.format.read_magic(self._file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise ValueError(f"{info.filename} has version {version} of the format")
        shape, self.fortran, self.dtype = header[version](self._file)
        if self.dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects, which are not loaded")
        held, declared = info.file_size - self._file.tell(), prod(shape) * self.dtype.itemsize
        if held != declared or min(shape, default=0) < 0:
            message = f"{info.filename} declares the shape {shape} of {self.dtype}, {declared:,} bytes"
            raise ValueError(f"{message}, and holds {held:,}")
        self.placeholder = np.broadcast_to(np.zeros((), self.dtype), shape)
        self.array = None

    def read_whole(self, limit: int) -> None:
        """Read all values. Raises InputError: more than ``limit`` bytes, or damaged."""
        if self.placeholder.nbytes > limit:
            raise too_large(self.placeholder.nbytes, limit)
        values = self._read(self.placeholder.nbytes).view(self.dtype)
        self.array = values.reshape(self.placeholder.shape, order="F" if self.fortran else "C")

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The next rows, which are those from ``start`` to ``stop``. Raises InputError."""
        if self.array is not None:
            return self.array[start:stop]
        shape = (stop - start, *self.placeholder.shape[1:])
        return self._read(prod(shape) * self.dtype.itemsize).view(self.dtype).reshape(shape)

    def _read(self, size: int) -> np.ndarray:
        values, done = np.empty(size, np.uint8), 0
        try:
            while done < size:
                count = self._file.readinto(values.data[done:])
                if not count:
                    raise ValueError(f"{size - done:,} bytes are missing")
                done += count
        except Exception as error:  # zipfile and zlib raise whatever their parsers raise
            raise unreadable(".npz", error) from None
        return values


def _decoders(
    slice_rows: Callable[[int, int], Callable[[], Arrays]],
    arrays: Arrays,
    ports: Sequence[Port],
    rounding: bool,
    whole: bool,
) -> Iterator[Callable[[], Batch]]:
    """``slice_rows`` is called for one slice after the other, and what it gives in any thread."""
    total = len(next(iter(arrays.values())))
    size = max(1, total) if whole else batch_rows(sum(prod(array.shape[1:]) for array in arrays.values()))

    def decode(load: Callable[[], Arrays], stop: int) -> Batch:
        rows: dict[str, np.ndarray] = {}
        flaws: list[Flaw] = []
        values = load()
        for port in ports:
            rows[port.name], flaw = convert(values[port.name], port.dtype, f"'{port.name}'", port, rounding=rounding)
            if flaw is not None:
                flaws.append(flaw)
        return Batch(rows, flaws, stop / total if total else 1.0)

    for start in range(0, total, size) if total else (0,):
        stop = min(start + size, total)
        yield partial(decode, slice_rows(start, stop), stop)


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
