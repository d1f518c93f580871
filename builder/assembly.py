"""From a spec to a trainable module, and trained weights into it, without ever running what their file says."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .block import modules_of
from .errors import WeightsError, WeightsWarning
from .modules import Scale, Standardize
from .spec import MLPSpec

_TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02")  # torch.save: a zip archive, or the pickle of before torch 1.6
_NUMPY: list[Any] = [
    np.dtype,
    np.ndarray,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *((multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((multiarray._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""NumPy numbers and arrays, which trainers save beside the tensors. They are data; making them runs no code."""
_AT_ONCE = 1 << 18  # values compared at a time, so that a conversion takes little memory beside its result


def assemble(spec: MLPSpec, *, seed: int = 0) -> nn.Sequential:
    """The network of ``spec`` as a plain ``nn.Sequential`` of ``torch.nn`` modules, one per block, in training mode.

    It maps (N, *spec.input.row_shape) to (N, *spec.output_shape). Parameters are float32 and initialised as torch does,
    reproducibly from ``seed``; the caller's random state is left as it was.
    """
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            return nn.Sequential(*modules_of(spec.blocks, spec.input.row_shape))
        finally:
            torch.set_default_dtype(default)


def load_weights(module: nn.Module, path: str | Path, *, dtype: str | None = None) -> None:
    """Load a state dict from a safetensors or ``torch.save`` file into ``module``, in place, all of it or nothing.

    A ``torch.save`` file is read with ``weights_only=True``: code in it is never run. Values of another dtype are
    converted where none changes; ``dtype="float32"`` lets them be rounded.

    Constants of a Standardize or Scale that the spec gives may be missing in the file.
    Raises WeightsError: unreadable, damaged or unsafe file; tensors that are missing, surplus or of another shape (all
    listed, with both shapes); values that a conversion would change. Warns with WeightsWarning where a Standardize's or
    Scale's constant differs from the one that the spec gave; the file's is used.
    """
    path = Path(path)
    given = _read_state_dict(path)
    if dtype not in (None, "float32"):
        raise WeightsError(f"dtype is 'float32' or left out, not {dtype!r}")
    wanted = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    if meta := [name for name, value in wanted.items() if value.is_meta]:
        hint = "module.to_empty(device='cpu') first"
        raise WeightsError(f"the module's {meta[0]} is on the meta device. What to do: {hint}")
    declared = _declared(module)
    given = {name: wanted[name] for name in declared} | given  # the spec says them
    if mismatches := _mismatches(given, wanted):
        raise WeightsError("\n  ".join([f"{path}: the tensors do not fit the module", *mismatches]))
    ready = {name: converted(path, name, given[name], wanted[name].dtype, dtype) for name in wanted}
    _refuse_different_ties(path, wanted, ready)
    for name, constant in declared.items():
        if not torch.equal(constant, ready[name]):
            apart = f"{name} differs from the spec's by up to {(constant - ready[name]).abs().max().item():.3g}"
            warnings.warn(f"{path}: {apart}; the weights file's is used", WeightsWarning, stacklevel=2)
    module.load_state_dict(module.state_dict() | ready)


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    loaded = read_tensors(path)
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        keys = f" with the keys {', '.join(map(str, list(loaded)[:8]))}" if isinstance(loaded, dict) else ""
        message = f"expected a state dict (names to tensors), found a {type(loaded).__name__}{keys}"
        raise WeightsError(f"{path}: {message}. What to do: save the state dict alone")
    return loaded


def _mismatches(given: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> list[str]:
    lines = []
    for name in wanted | given:
        ours, theirs = (list(tensors[name].shape) if name in tensors else None for tensors in (wanted, given))
        if theirs is None:
            lines.append(f"{name}: missing; the module has {ours}")
        elif ours is None:
            lines.append(f"{name}: surplus; the file has {theirs}, the module no such tensor")
        elif ours != theirs:
            lines.append(f"{name}: the file has {theirs}, the module {ours}")
    return lines


def _refuse_different_ties(path: Path, wanted: dict[str, torch.Tensor], ready: dict[str, torch.Tensor]) -> None:
    """Names that share one tensor in the module must agree in the file, or the last would win."""
    first: dict[tuple, str] = {}
    for name, tensor in wanted.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        other = first.setdefault(key, name) if tensor.numel() else name
        if other != name and not torch.equal(ready[other], ready[name]):
            raise WeightsError(f"{path}: {other} and {name} are one tensor in the module, and differ in the file")


def _declared(module: nn.Module) -> dict[str, torch.Tensor]:
    """The constants that the spec gives, by their names in a state dict."""
    parts = {path: part for path, part in module.named_modules() if isinstance(part, Standardize | Scale)}
    return {f"{path}.{key}".lstrip("."): value for path, part in parts.items() for key, value in part.declared.items()}


def is_torch_file(head: bytes) -> bool:
    """Whether a file's first nine bytes are those of ``torch.save``; else it may be safetensors."""
    # A safetensors file begins with the length of its header, whose bytes may be anything, and then a brace.
    return head.startswith(_TORCH_MAGIC) and head[8:] != b"{"


def read_tensors(path: Path, *, mapped: bool = False) -> object:
    """What a safetensors or ``torch.save`` file holds: tensors by name, or whatever ``torch.save`` was given.

    ``mapped`` leaves the values in the file's memory map where it can (not in files of before torch 1.6).
    Raises WeightsError: unreadable, damaged, or a pickle of more than tensors and plain containers.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        if is_torch_file(head):
            return _read_torch(path, mapped=mapped and head.startswith(_TORCH_MAGIC[0]))
        return load_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        size = f"{path.stat().st_size:,} bytes"
        raise WeightsError(f"{path}: not a whole safetensors or torch.save file ({size}): {error}") from None


def _read_torch(path: Path, mapped: bool) -> object:
    try:
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error: ")[2].partition("\n")[0] or "not a plain pickle"
        message = "refused: it holds more than tensors, and unpickling that can run code; nothing was run"
        hint = "save the weights alone, with torch.save(module.state_dict(), path) or safetensors"
        raise WeightsError(f"{path}: {message} ({reason}). What to do: {hint}") from None
    except OSError:
        raise
    except Exception as error:  # torch.load raises what its zip reader and its unpickler raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: damaged, or not a torch.save file: {reason}") from None


def converted(path: Path, name: str, value: torch.Tensor, to: torch.dtype, asked: str | None) -> torch.Tensor:
    """``value`` as ``to``, where no value changes, or where ``asked`` is the name of ``to``. Raises WeightsError."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        kind = f"{value.dtype}, {value.layout}"
        raise WeightsError(f"{path}: {name} is {kind}; a dense tensor of real numbers is expected")
    if value.dtype == to:
        return value
    converted = value.to(to)
    exact, beyond = True, False
    for given, got in zip(value.reshape(-1).split(_AT_ONCE), converted.reshape(-1).split(_AT_ONCE), strict=True):
        back = given.to(torch.float64)
        exact &= torch.allclose(got.to(torch.float64), back, rtol=0, atol=0, equal_nan=True)
        exact &= given.is_floating_point() or torch.equal(got.to(given.dtype), given)  # beyond float64's integers
        beyond |= bool((got.isinf() & ~back.isinf()).any())
    if beyond:
        raise WeightsError(f"{path}: {name} has values that {to} cannot hold: they would become infinite")
    if not exact and asked != str(to).removeprefix("torch."):
        message = f"{name} is {value.dtype} and the module {to}; the conversion would change values"
        raise WeightsError(f"{path}: {message}. What to do: allow the rounding with dtype='float32' (--dtype float32)")
    return converted
