"""A checkpoint's file: its tensors by dotted names. Sizes are checked before anything is allocated."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from builder.assembly import is_torch_file, read_tensors
from builder.errors import RecoveryError, WeightsError
from builder.values import is_dict, is_list, is_tuple

from .inert_classes import is_stand_in, read_without_classes

_MAX_DEPTH = 32
_MAX_GROWTH, _SLACK = 16, 1 << 20  # the code in a TorchScript archive is compressed; torch.save compresses nothing
_OTHER_FORMATS = (
    (b"\x89HDF", "an HDF5 file (Keras, robomimic)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"(S'", "a pickle of Python 2"),
    (b"\x08", "perhaps an ONNX file, which needs a name that ends in .onnx"),
)


_AGAIN = "What to do: copy the file again"


@dataclass(frozen=True)
class Contents:
    """The tensors of a file by dotted name, and its structure."""

    tensors: dict[str, torch.Tensor]
    nodes: dict[str, bool]
    """The dotted names of the dicts that hold tensors directly (``""`` is the file), and whether there are weights."""
    optimizers: list[str]
    """The dotted names of optimiser states, which are not in ``tensors``."""
    ordered: bool
    """Whether the order is that of the modules' creation; a safetensors file sorts the names."""
    classes: tuple[str, ...] = ()
    """Classes and functions that the file names besides those of tensors; nothing of them was read or run."""

    def under(self, scope: str) -> dict[str, torch.Tensor]:
        """The tensors below a dotted name, by the rest of their names; all tensors for ``""``."""
        start = f"{scope}." if scope else ""
        return {name[len(start) :]: tensor for name, tensor in self.tensors.items() if name.startswith(start)}


@contextmanager
def opened_archive(path: Path) -> Generator[zipfile.ZipFile]:
    """The zip archive at a path; what is raised while it is read becomes a RecoveryError, without the path."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except RecoveryError:
        raise
    except OSError as error:
        raise RecoveryError(f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # zipfile raises what its decompressors raise
        raise RecoveryError(f"a damaged zip archive: {str(error) or type(error).__name__}. {_AGAIN}") from None


def archive_records(path: Path, members: Sequence[str] = ()) -> dict[str, int]:
    """The sizes of a zip archive's records by name, after a check of the archive; none for another file.

    ``members`` are names that archives of other formats have, and that are expected here.

    Raises RecoveryError: damaged, too large, or an archive of another format.
    """
    if not zipfile.is_zipfile(path):
        return {}
    with opened_archive(path) as archive:
        entries = archive.infolist()
        total, size = sum(entry.file_size for entry in entries), path.stat().st_size
        if total > _MAX_GROWTH * size + _SLACK:
            reason = "torch.save compresses nothing, so this is not a checkpoint, or a damaged one"
            message = f"refused: an archive of {size:,} bytes that declares {total:,}"
            raise RecoveryError(f"{message}; {reason}; nothing of it was read")
        if "policy.pth" in archive.namelist() and "policy.pth" not in members:
            hint = f"What to do: unzip {path.name} policy.pth, and recover policy.pth"
            raise RecoveryError(f"a Stable-Baselines3 archive; the policy's state dict is the policy.pth in it. {hint}")
        damaged = archive.testzip()
    if damaged is not None:
        raise RecoveryError(f"damaged: the checksum of {damaged} in it does not match its bytes")
    return {entry.filename: entry.file_size for entry in entries}


def first_bytes(path: Path) -> bytes:
    """The first nine bytes, which identify the format. Raises RecoveryError."""
    try:
        with open(path, "rb") as file:
            return file.read(9)
    except OSError as error:
        raise RecoveryError(f"{path}: cannot be read: {error.strerror or error}") from None


def is_torchscript(records: Iterable[str]) -> bool:
    """Whether an archive of these records is a TorchScript archive."""
    return any(name.endswith("/constants.pkl") for name in records) and any("/code/" in name for name in records)


def read_contents(path: Path, records: Mapping[str, int]) -> Contents:
    """The contents of a safetensors or ``torch.save`` file; no code in it is run. Raises RecoveryError.

    Objects of other classes than tensors and plain containers are left out.
    """
    head, refusal, classes = first_bytes(path), None, ()
    # torch warns of deprecated kinds of tensors; they are refused here
    with warnings.catch_warnings(action="ignore"):
        try:
            loaded = read_tensors(path, mapped=True)
        except WeightsError as error:
            other = next((name for magic, name in _OTHER_FORMATS if head.startswith(magic)), None)
            refusal = RecoveryError(f"{error}{f' (it begins like {other})' if other else ''}")
            try:
                loaded, classes = read_without_classes(path)
            except WeightsError:
                raise refusal from None
    sizes = {size for name, size in records.items() if "/data/" in name}
    contents = Contents({}, {}, [], is_torch_file(head), classes)
    seen: set[int] = set()  # a pickle can hold one container many times, or within itself

    def collect(value: object, name: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise RecoveryError(f"{name[:80]}… is nested deeper than {_MAX_DEPTH} levels; a state dict is not")
        if isinstance(value, torch.Tensor):
            if name in contents.tensors:
                raise RecoveryError(f"two tensors have the name {name}, one of them nested deeper in the file")
            if name.count(".") > _MAX_DEPTH:
                raise RecoveryError(f"{name[:80]}… is nested deeper than {_MAX_DEPTH} levels; a module is not")
            _refuse_beyond_file(name, value, sizes)
            contents.tensors[name] = value
        if not (is_dict(value) or is_list(value) or is_tuple(value)) or id(value) in seen:
            return
        seen.add(id(value))
        if is_dict(value):
            if {"state", "param_groups"} <= value.keys():
                contents.optimizers.append(name)
                return
            are_weights = [_is_weight(str(key), item) for key, item in value.items() if isinstance(item, torch.Tensor)]
            if are_weights:
                contents.nodes[name] = any(are_weights)
        for key, item in value.items() if is_dict(value) else enumerate(value):
            if is_stand_in(key):
                continue
            collect(item, f"{name}.{key}" if name else str(key), depth + 1)

    collect(loaded, "", 0)
    if not contents.tensors and refusal is not None:
        raise refusal
    if not contents.tensors:
        kind = type(loaded).__name__
        if is_dict(loaded):
            kind += f" with the keys {', '.join(map(str, list(loaded)[:8])) or '(none)'}"
        raise RecoveryError(f"no tensors in it; expected a state dict, found a {kind}")
    return contents


def _is_weight(name: str, value: torch.Tensor) -> bool:
    leaf = name.rpartition(".")[2].removesuffix("0")
    return leaf.startswith(("weight", "original", "in_proj")) and value.dim() > 1 and min(value.shape) > 0


def _refuse_beyond_file(name: str, value: torch.Tensor, sizes: set[int]) -> None:
    """A stride of 0 gives a few bytes any shape, and a mapped record may be read past its end."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        return
    needed, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
    if needed > stored or (sizes and stored not in sizes):
        raise RecoveryError(f"damaged: {name} of shape {list(value.shape)} needs more bytes than it has in the file")
