"""A checkpoint's file: what lies in it, by dotted names. Sizes are checked before anything is allocated."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from builder.assembly import is_torch_file, read_tensors
from builder.errors import RecoveryError, WeightsError

_DEEPEST = 32
_GROWTH, _SLACK = 16, 1 << 20  # the code in a TorchScript archive is compressed; what torch.save writes never is
_OTHERS = (
    (b"\x89HDF", "an HDF5 file (Keras, robomimic)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"(S'", "a pickle of Python 2"),
    (b"\x08", "perhaps an ONNX file, which is read by its name's ending .onnx"),
)


@dataclass(frozen=True)
class Contents:
    """The tensors of a file by dotted name, and how they lie in it."""

    tensors: dict[str, torch.Tensor]
    nodes: dict[str, bool]
    """The dotted names of the dicts that hold tensors themselves (``""`` is the whole file): whether weights of layers
    are among them."""
    optimizers: list[str]
    """The dotted names of the optimisers' states, which are left out of ``tensors``."""
    ordered: bool
    """Whether the order is the one in which modules were made; a safetensors file sorts them."""

    def under(self, scope: str) -> dict[str, torch.Tensor]:
        """The tensors below a dotted name, by the rest of their names; all of them below ``""``."""
        start = f"{scope}." if scope else ""
        return {name[len(start) :]: tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def archive_records(path: Path) -> dict[str, int]:
    """The sizes of a zip archive's records by name, once they are known to be sound; none for another file.

    Raises RecoveryError for an archive that is damaged, too large or one of something else.
    """
    try:
        if not zipfile.is_zipfile(path):
            return {}
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            total, size = sum(entry.file_size for entry in entries), path.stat().st_size
            if total > _GROWTH * size + _SLACK:
                raise RecoveryError(
                    f"refused: an archive of {size:,} bytes that says it holds {total:,}; torch.save compresses"
                    " nothing, so this is no checkpoint or a damaged one; nothing of it was read"
                )
            if "policy.pth" in archive.namelist():
                raise RecoveryError(
                    "a Stable-Baselines3 archive; the policy's state dict is the policy.pth in it."
                    f" What to do: unzip {path.name} policy.pth, and recover policy.pth"
                )
            damaged = archive.testzip()
    except OSError as error:
        raise RecoveryError(f"cannot be read: {error.strerror or error}") from None
    except RecoveryError:
        raise
    except Exception as error:  # zipfile raises what its decompressors raise
        raise RecoveryError(f"a damaged zip archive: {error or type(error).__name__}") from None
    if damaged is not None:
        raise RecoveryError(f"damaged: the checksum of {damaged} in it does not match its bytes")
    return {entry.filename: entry.file_size for entry in entries}


def first_bytes(path: Path) -> bytes:
    """The nine bytes that tell what a file is. Raises RecoveryError."""
    try:
        with open(path, "rb") as file:
            return file.read(9)
    except OSError as error:
        raise RecoveryError(f"{path}: cannot be read: {error.strerror or error}") from None


def is_torchscript(records: Iterable[str]) -> bool:
    """Whether an archive of these records is a TorchScript archive."""
    return any(name.endswith("/constants.pkl") for name in records) and any("/code/" in name for name in records)


def contents(path: Path, records: Mapping[str, int]) -> Contents:
    """What lies in a safetensors or ``torch.save`` file; no code in it is run. Raises RecoveryError."""
    head = first_bytes(path)
    try:
        # torch warns of tensors that it will not make any more; they are refused here
        with warnings.catch_warnings(action="ignore"):
            loaded = read_tensors(path, mapped=True)
    except WeightsError as error:
        kind = next((words for magic, words in _OTHERS if head.startswith(magic)), None)
        raise RecoveryError(f"{error}{f' (it begins like {kind})' if kind else ''}") from None
    sizes = {size for name, size in records.items() if "/data/" in name}
    found = Contents({}, {}, [], is_torch_file(head))
    seen: set[int] = set()  # a pickle can hold one container many times, or in itself

    def collect(value: object, name: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise RecoveryError(f"{name[:80]}… is nested deeper than {_DEEPEST} levels; no state dict is")
        if isinstance(value, torch.Tensor):
            if name in found.tensors:
                raise RecoveryError(f"two tensors bear the name {name}, one of them deeper in the file")
            if name.count(".") > _DEEPEST:
                raise RecoveryError(f"{name[:80]}… is nested deeper than {_DEEPEST} levels; no module is")
            _refuse_beyond_file(name, value, sizes)
            found.tensors[name] = value
        if not isinstance(value, dict | list | tuple) or id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, dict):
            if {"state", "param_groups"} <= value.keys():
                found.optimizers.append(name)
                return
            own = [_is_weight(str(key), item) for key, item in value.items() if isinstance(item, torch.Tensor)]
            if own:
                found.nodes[name] = any(own)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            collect(item, f"{name}.{key}" if name else str(key), depth + 1)

    collect(loaded, "", 0)
    if not found.tensors:
        what = type(loaded).__name__
        if isinstance(loaded, dict):
            what += f" with the keys {', '.join(map(str, list(loaded)[:8])) or '(none)'}"
        raise RecoveryError(f"no tensors in it; expected a state dict, found a {what}")
    return found


def _is_weight(name: str, value: torch.Tensor) -> bool:
    leaf = name.rpartition(".")[2].removesuffix("0")
    return leaf.startswith(("weight", "original", "in_proj")) and value.dim() > 1 and min(value.shape) > 0


def _refuse_beyond_file(name: str, value: torch.Tensor, sizes: set[int]) -> None:
    """A few stored bytes can be given any shape with a stride of 0, and a mapped record can be read past its end."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        return
    needed, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
    if needed > stored or (sizes and stored not in sizes):
        raise RecoveryError(f"damaged: {name} of shape {list(value.shape)} has not as many bytes in the file")
