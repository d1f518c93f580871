"""Trained weights into a module, without ever running what a file says."""

import warnings
from pathlib import Path

import torch
from torch import nn

from .errors import WeightsError, WeightsWarning
from .modules import Scale, Standardize
from .tensors import converted, read_tensors


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
    meta = next((name for name, value in wanted.items() if value.is_meta), None)
    if meta is not None:
        raise WeightsError(
            f"the module's {meta} is on the meta device. What to do: module.to_empty(device='cpu') first"
        )
    given = {name: wanted[name] for name in _declared(module)} | given  # the spec says them
    mismatches = _mismatches(given, wanted)
    if mismatches:
        listed = "".join(f"\n  {line}" for line in mismatches)
        raise WeightsError(f"{path}: the tensors do not fit the module{listed}")
    ready = {name: converted(path, name, given[name], wanted[name].dtype, dtype) for name in wanted}
    _refuse_different_ties(path, wanted, ready)
    for difference in _differences(module, ready):
        warnings.warn(f"{path}: {difference}", WeightsWarning, stacklevel=2)
    module.load_state_dict(module.state_dict() | ready)


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    loaded = read_tensors(path)
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
    found = {}
    for path, part in module.named_modules():
        if isinstance(part, Standardize | Scale):
            found |= {f"{path}.{name}" if path else name: value for name, value in part.declared.items()}
    return found


def _differences(module: nn.Module, given: dict[str, torch.Tensor]) -> list[str]:
    lines = []
    for key, declared in _declared(module).items():
        if not torch.equal(declared, given[key]):
            apart = (declared - given[key]).abs().max().item()
            lines.append(f"{key} differs from the spec's by up to {apart:.3g}; the weights file's is used")
    return lines
