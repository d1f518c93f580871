"""Builds a trainable module from a spec and loads weights into it without running code from the weights file."""

import os
import pickle
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy._core import multiarray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .block import modules_of
from .errors import Problem, SpecError, WeightsError, WeightsWarning
from .joining import Categories, SeveralInputs
from .modules import Impute, Scale, Standardize
from .random_state import kept_random_state
from .spec import MLPSpec
from .values import is_dict

_TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02")  # torch.save: a zip archive, or the pickle of before torch 1.6
PLAIN_NUMPY: list[Any] = [
    np.dtype,
    np.ndarray,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *((multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((multiarray._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""NumPy scalars and arrays, which trainers save beside the tensors. Unpickling them runs no code."""
_SMALL = 1 << 28  # weights that any machine holds: then the tensors of the file are compared one by one
_CHUNK = 1 << 18  # values compared at a time, to limit the memory of a conversion


def assemble(spec: MLPSpec, *, seed: int = 0) -> nn.Sequential:
    """The network of ``spec`` as a plain ``nn.Sequential`` of ``torch.nn`` modules, one per block, in training mode.

    It maps (N, *spec.input.row_shape) to (N, *spec.output_shape). With several inputs, categories or blocks of an
    input's own it is a ``builder.joining.SeveralInputs``, whose forward takes a tensor for each input, in their order.
    Parameters are float32, initialised by torch from ``seed``; the caller's random state is not changed. Raises
    SpecError: this machine has not the memory for them.

    Examples:
        >>> import torch
        >>> from mlpx import MLPSpec, assemble
        >>> spec = MLPSpec(name="and", input={"features": 2}, blocks=[{"linear": 1}, "sigmoid"])
        >>> assemble(spec, seed=0)
        Sequential(
          (0): Linear(in_features=2, out_features=1, bias=True)
          (1): Sigmoid()
        )
        >>> assemble(spec, seed=0)(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """
    refuse_too_large(spec)
    default = torch.get_default_dtype()
    with kept_random_state(seed), torch.device("cpu"):
        torch.set_default_dtype(torch.float32)
        try:
            return network_of(spec)
        finally:
            torch.set_default_dtype(default)


def network_of(spec: MLPSpec) -> nn.Sequential:
    """The modules of ``spec``, on torch's default device and from its random state."""
    if spec.is_plain:
        return nn.Sequential(*modules_of(spec.blocks, spec.input.row_shape))
    parts: dict[str, nn.Module] = {}
    for port in spec.inputs:
        if port.is_categories:
            parts[port.name] = Categories((len(f.categories or ()), f.embedding) for f in port.listed or ())
        else:
            parts[port.name] = nn.Sequential(*modules_of(port.blocks or [], port.row_shape))
    return SeveralInputs(parts, modules_of(spec.blocks, spec.joined_shape))


def refuse_too_large(spec: MLPSpec, source: Path | None = None) -> None:
    """Raise SpecError where this machine's memory, or the file ``source``, cannot hold the network's weights."""
    weights = spec.weights
    where = "its linear blocks" if spec.is_plain else "its linear blocks and embeddings"
    needs = f"the network has {weights:,} weights in {where}"
    if source is not None and weights > max(_SMALL, source.stat().st_size):
        raise SpecError([Problem(("blocks",), f"{needs}, and {source} has only {source.stat().st_size:,} bytes")])
    memory = _memory()
    if memory is not None and 4 * weights > memory:
        message = f"{needs}, {4 * weights:,} bytes, and this machine has {memory:,} bytes of memory"
        raise SpecError([Problem(("blocks",), message)])


def _memory() -> int | None:
    """Of this machine, bytes; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # on Windows
        return None


def load_weights(module: nn.Module, path: str | Path, *, dtype: str | None = None) -> None:
    """Load a state dict from a safetensors or ``torch.save`` file into ``module``, in place, all of it or nothing.

    A ``torch.save`` file is read with ``weights_only=True``: code in it is never run. Values of another dtype are
    converted if the conversion is exact; ``dtype="float32"`` allows rounding.

    The file may lack constants of a Standardize, Scale or Impute that the spec gives.
    Raises WeightsError: unreadable, damaged or unsafe file; tensors that are missing, surplus or of another shape (all
    listed, with both shapes); values that a conversion would change. Warns with WeightsWarning if a Standardize's or
    Scale's constant differs from the spec's; the file's is used.

    Examples:
        >>> from mlpx import assemble, load_spec, load_weights
        >>> module = assemble(load_spec("spec.yaml"))
        >>> load_weights(module, "weights.safetensors")
        >>> module[1].weight.shape
        torch.Size([8, 2])
    """
    path = Path(path)
    stored = _read_state_dict(path)
    if dtype not in (None, "float32"):
        raise WeightsError(f"dtype is 'float32' or left out, not {dtype!r}")
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    if meta := [name for name, value in expected.items() if value.is_meta]:
        hint = "module.to_empty(device='cpu') first"
        raise WeightsError(f"the module's {meta[0]} is on the meta device. What to do: {hint}")
    declared = _declared(module)
    stored = {name: expected[name] for name in declared} | stored
    if mismatches := _mismatches(stored, expected):
        raise WeightsError("\n  ".join([f"{path}: the tensors do not match the module", *mismatches]))
    weights = {name: converted(path, name, stored[name], expected[name].dtype, dtype) for name in expected}
    _refuse_different_ties(path, expected, weights)
    for name, constant in declared.items():
        if not torch.equal(constant, weights[name]):
            difference = f"{name} differs from the spec's by up to {(constant - weights[name]).abs().max().item():.3g}"
            warnings.warn(f"{path}: {difference}; the weights file's is used", WeightsWarning, stacklevel=2)
    module.load_state_dict(module.state_dict() | weights)


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    loaded = read_tensors(path)
    if not is_dict(loaded) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        keys = f" with the keys {', '.join(map(str, list(loaded)[:8]))}" if is_dict(loaded) else ""
        message = f"expected a state dict (names to tensors), found a {type(loaded).__name__}{keys}"
        raise WeightsError(f"{path}: {message}. What to do: save the state dict alone")
    return loaded


def _mismatches(stored: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    lines: list[str] = []
    for name in expected | stored:
        ours, theirs = (list(tensors[name].shape) if name in tensors else None for tensors in (expected, stored))
        if theirs is None:
            lines.append(f"{name}: missing; the module has {ours}")
        elif ours is None:
            lines.append(f"{name}: surplus; the file has {theirs}, the module has no such tensor")
        elif ours != theirs:
            lines.append(f"{name}: the file has {theirs}, the module {ours}")
    return lines


def _refuse_different_ties(path: Path, expected: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> None:
    """Names that share one tensor in the module must have the same values in the file, or the last would win."""
    first_name: dict[tuple[int | tuple[int, ...], ...], str] = {}
    for name, tensor in expected.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        other = first_name.setdefault(key, name) if tensor.numel() else name
        if other != name and not torch.equal(weights[other], weights[name]):
            raise WeightsError(f"{path}: {other} and {name} are one tensor in the module, and differ in the file")


def _declared(module: nn.Module) -> dict[str, torch.Tensor]:
    """The constants that the spec gives, by their names in a state dict."""
    parts = cast("Iterable[tuple[str, nn.Module]]", module.named_modules())
    children = {path: part for path, part in parts if isinstance(part, Standardize | Scale | Impute)}
    return {f"{path}.{key}".lstrip("."): value for path, c in children.items() for key, value in c.declared.items()}


def is_torch_file(head: bytes) -> bool:
    """Whether a file's first nine bytes are those of a ``torch.save`` file."""
    # A safetensors file starts with the length of its header, whose bytes may be anything, and then a brace.
    return head.startswith(_TORCH_MAGIC) and head[8:] != b"{"


def read_tensors(path: Path, *, mapped: bool = False) -> object:
    """The content of a safetensors or ``torch.save`` file: tensors by name, or the object that was saved.

    ``mapped`` keeps the values in the file's memory map where possible (not in files from before torch 1.6).
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
        raise WeightsError(f"{path}: not a complete safetensors or torch.save file ({size}): {error}") from None


def _read_torch(path: Path, mapped: bool) -> object:
    try:
        with torch.serialization.safe_globals(PLAIN_NUMPY):
            return torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error: ")[2].partition("\n")[0] or "not a plain pickle"
        message = "refused: it contains more than tensors, and unpickling that can run code; nothing was run"
        hint = "save the weights alone, with torch.save(module.state_dict(), path) or safetensors"
        raise WeightsError(f"{path}: {message} ({reason}). What to do: {hint}") from None
    except OSError:
        raise
    except Exception as error:  # torch.load raises what its zip reader and its unpickler raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: damaged, or not a torch.save file: {reason}") from None


def converted(path: Path, name: str, value: torch.Tensor, to: torch.dtype, rounded_to: str | None) -> torch.Tensor:
    """``value`` as ``to``, if that is exact or ``rounded_to`` is the name of ``to``. Raises WeightsError."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        kind = f"{value.dtype}, {value.layout}"
        raise WeightsError(f"{path}: {name} is {kind}; a dense tensor of real numbers is expected")
    if value.dtype == to:
        return value
    converted = value.to(to)
    exact, overflows = True, False
    chunks, converted_chunks = (torch.split(tensor.reshape(-1), _CHUNK) for tensor in (value, converted))
    for before, after in zip(chunks, converted_chunks, strict=True):
        wide = before.to(torch.float64)
        exact &= torch.allclose(after.to(torch.float64), wide, rtol=0, atol=0, equal_nan=True)
        exact &= before.is_floating_point() or torch.equal(after.to(before.dtype), before)  # beyond float64's integers
        overflows |= bool((after.isinf() & ~wide.isinf()).any())
    if overflows:
        raise WeightsError(f"{path}: {name} has values that {to} cannot hold: they would become infinite")
    if not exact and rounded_to != str(to).removeprefix("torch."):
        message = f"{name} is {value.dtype} and the module {to}; the conversion would change values"
        raise WeightsError(f"{path}: {message}. What to do: allow rounding with dtype='float32' (--dtype float32)")
    return converted
