"""Trained weights into a module, without ever running what a file says."""

import pickle
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .errors import WeightsError, WeightsWarning
from .modules import Scale, Standardize

_TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02")  # torch.save: a zip archive, or the pickle of before torch 1.6


def load_weights(module: nn.Module, path: str | Path, *, dtype: str | None = None) -> None:
    """Load a state dict from a safetensors or ``torch.save`` file into ``module``, in place, all of it or nothing.

    A ``torch.save`` file is read with ``weights_only=True``: code in it is never run. Values of another dtype are
    converted where none changes; ``dtype="float32"`` lets them be rounded.

    Raises WeightsError: unreadable, damaged or unsafe file; tensors that are missing, surplus or of another shape (all
    listed, with both shapes); values that a conversion would change. Warns with WeightsWarning where a Standardize's or
    Scale's constant differs from the one that the spec gave; the file's is used.
    """
    path = Path(path)
    given = read_state_dict(path)
    if dtype not in (None, "float32"):
        raise WeightsError(f"dtype is 'float32' or left out, not {dtype!r}")
    wanted = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    meta = next((name for name, value in wanted.items() if value.is_meta), None)
    if meta is not None:
        raise WeightsError(
            f"the module's {meta} is on the meta device. What to do: module.to_empty(device='cpu') first"
        )
    mismatches = _mismatches(given, wanted)
    if mismatches:
        listed = "".join(f"\n  {line}" for line in mismatches)
        raise WeightsError(f"{path}: the tensors do not fit the module{listed}")
    ready = {name: _converted(path, name, given[name], wanted[name].dtype, dtype) for name in wanted}
    _refuse_different_ties(path, wanted, ready)
    for difference in _differences(module, ready):
        warnings.warn(f"{path}: {difference}", WeightsWarning, stacklevel=2)
    module.load_state_dict(module.state_dict() | ready)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors or ``torch.save`` file by name. Raises WeightsError."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        # A safetensors file begins with the length of its header, whose bytes may be anything, and then a brace.
        torch_file = head.startswith(_TORCH_MAGIC) and head[8:] != b"{"
        return _read_torch(path) if torch_file else load_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        size = path.stat().st_size
        message = f"not a whole safetensors or torch.save file ({size:,} bytes): {error}"
        raise WeightsError(f"{path}: {message}") from None


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    try:
        loaded = torch.load(path, weights_only=True, map_location="cpu")
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
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        keys = f" with the keys {', '.join(map(str, list(loaded)[:8]))}" if isinstance(loaded, dict) else ""
        found = f"{type(loaded).__name__}{keys}"
        message = f"expected a state dict (names to tensors), found a {found}"
        raise WeightsError(f"{path}: {message}. What to do: save the state dict alone")
    return loaded


def _mismatches(given: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> list[str]:
    lines = []
    for name in [*wanted, *(n for n in given if n not in wanted)]:
        shapes = [list(tensors[name].shape) if name in tensors else None for tensors in (wanted, given)]
        if shapes[1] is None:
            lines.append(f"{name}: missing; the module has {shapes[0]}")
        elif shapes[0] is None:
            lines.append(f"{name}: surplus; the file has {shapes[1]}, the module no such tensor")
        elif shapes[0] != shapes[1]:
            lines.append(f"{name}: the file has {shapes[1]}, the module {shapes[0]}")
    return lines


def _converted(path: Path, name: str, value: torch.Tensor, to: torch.dtype, asked: str | None) -> torch.Tensor:
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        raise WeightsError(
            f"{path}: {name} is {value.dtype}, {value.layout}; a dense tensor of real numbers is expected"
        )
    if value.dtype == to:
        return value
    converted, back = value.to(to), value.to(torch.float64)
    asked_for = asked == str(to).removeprefix("torch.")
    exact_integers = value.is_floating_point() or bool((converted.to(value.dtype) == value).all())
    same = exact_integers & (converted.to(torch.float64) == back) | (back.isnan() & converted.isnan())
    beyond = converted.isinf() & ~back.isinf()
    if bool(beyond.any()):
        raise WeightsError(f"{path}: {name} has values that {to} cannot hold: they would become infinite")
    if not bool(same.all()) and not asked_for:
        message = f"{name} is {value.dtype} and the module {to}; the conversion would change values"
        raise WeightsError(f"{path}: {message}. What to do: allow the rounding with dtype='float32' (--dtype float32)")
    return converted


def _refuse_different_ties(path: Path, wanted: dict[str, torch.Tensor], ready: dict[str, torch.Tensor]) -> None:
    """Names that share one tensor in the module must agree in the file, or the last would win."""
    first: dict[tuple, str] = {}
    for name, tensor in wanted.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        other = first.setdefault(key, name) if tensor.numel() else name
        if other != name and not torch.equal(ready[other], ready[name]):
            raise WeightsError(f"{path}: {other} and {name} are one tensor in the module, and differ in the file")


def _differences(module: nn.Module, given: dict[str, torch.Tensor]) -> list[str]:
    lines = []
    for path, part in module.named_modules():
        if isinstance(part, Standardize | Scale):
            for name, declared in part.declared.items():
                key = f"{path}.{name}" if path else name
                if not torch.equal(declared, given[key]):
                    apart = (declared - given[key]).abs().max().item()
                    lines.append(f"{key} differs from the spec's by up to {apart:.3g}; the weights file's is used")
    return lines
