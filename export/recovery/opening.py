"""A checkpoint's file: what lies in it, by dotted names. Sizes are checked before anything is allocated."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from builder.errors import RecoveryError, WeightsError
from builder.tensors import is_torch_file, read_tensors

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
    nodes: tuple[str, ...]
    """The dotted names of the dicts that hold tensors themselves; ``""`` is the whole file."""
    optimizers: tuple[str, ...]
    """The dotted names of the optimisers' states, which are left out of ``tensors``."""
    ordered: bool
    """Whether the order is the one in which modules were made; a safetensors file sorts them."""


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive. Raises RecoveryError for an archive that is damaged or too large."""
    names = _records(path)
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def contents(path: Path) -> Contents:
    """What lies in a safetensors or ``torch.save`` file; no code in it is run. Raises RecoveryError."""
    records = _records(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch warns of tensors that it will not make any more; they are refused here
            loaded = read_tensors(path, mapped=True)
    except WeightsError as error:
        raise RecoveryError(f"{error}{_guess(path)}") from None
    sizes = {size for name, size in records.items() if "/data/" in name}
    found: dict[str, torch.Tensor] = {}
    nodes: list[str] = []
    optimizers: list[str] = []
    for name, value in _walk(path, loaded, nodes, optimizers):
        if name in found:
            raise RecoveryError(f"{path}: two tensors bear the name {name}, one of them deeper in the file")
        if name.count(".") > _DEEPEST:
            raise RecoveryError(f"{path}: {name[:80]}… is nested deeper than {_DEEPEST} levels; no module is")
        _refuse_beyond_file(path, name, value, sizes)
        found[name] = value
    if not found:
        what = type(loaded).__name__
        if isinstance(loaded, dict):
            what += f" with the keys {', '.join(map(str, list(loaded)[:8])) or '(none)'}"
        raise RecoveryError(f"{path}: no tensors in it; expected a state dict, found a {what}")
    with open(path, "rb") as file:
        ordered = is_torch_file(file.read(9))
    return Contents(found, tuple(nodes), tuple(optimizers), ordered)


def _records(path: Path) -> dict[str, int]:
    """The sizes of a zip archive's records by name, once they are known to be sound; none for another file."""
    try:
        if not zipfile.is_zipfile(path):
            return {}
        with zipfile.ZipFile(path) as archive:
            records = {entry.filename: entry.file_size for entry in archive.infolist()}
            total, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
            if total > _GROWTH * size + _SLACK:
                raise RecoveryError(
                    f"{path}: refused: an archive of {size:,} bytes that says it holds {total:,}; torch.save compresses"
                    " nothing, so this is no checkpoint or a damaged one; nothing of it was read"
                )
            if "policy.pth" in records:
                raise RecoveryError(
                    f"{path}: a Stable-Baselines3 archive; the policy's state dict is the policy.pth in it."
                    f" What to do: unzip {path.name} policy.pth, and recover policy.pth"
                )
            damaged = archive.testzip()
    except OSError as error:
        raise RecoveryError(f"{path}: cannot be read: {error.strerror or error}") from None
    except RecoveryError:
        raise
    except Exception as error:  # zipfile raises what its decompressors raise
        raise RecoveryError(f"{path}: a damaged zip archive: {error or type(error).__name__}") from None
    if damaged is not None:
        raise RecoveryError(f"{path}: damaged: the checksum of {damaged} in it does not match its bytes")
    return records


def _guess(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError:
        return ""
    kind = next((words for magic, words in _OTHERS if head.startswith(magic)), "")
    return f" (it begins like {kind})" if kind else ""


def _walk(path: Path, root: object, nodes: list[str], optimizers: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    seen: set[int] = set()  # a pickle can hold one container many times, or in itself

    def visit(value: object, name: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
        if depth > _DEEPEST:
            raise RecoveryError(f"{path}: {name[:80]}… is nested deeper than {_DEEPEST} levels; no state dict is")
        if isinstance(value, torch.Tensor):
            yield name, value
        if not isinstance(value, dict | list | tuple) or id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, dict) and {"state", "param_groups"} <= value.keys():
            optimizers.append(name)
            return
        if isinstance(value, dict) and any(isinstance(item, torch.Tensor) for item in value.values()):
            nodes.append(name)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from visit(item, f"{name}.{key}" if name else str(key), depth + 1)

    return visit(root, "", 0)


def _refuse_beyond_file(path: Path, name: str, value: torch.Tensor, sizes: set[int]) -> None:
    """A few stored bytes can be given any shape with a stride of 0, and a mapped record can be read past its end."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        return
    shown, held = value.numel() * value.element_size(), value.untyped_storage().nbytes()
    if shown > held or (sizes and held not in sizes):
        raise RecoveryError(f"{path}: damaged: {name} of shape {list(value.shape)} has not as many bytes in the file")
