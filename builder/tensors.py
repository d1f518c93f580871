"""Tensors out of a safetensors or ``torch.save`` file, without ever running what it says, and their conversion."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray as numpy_multiarray
from safetensors import SafetensorError
from safetensors.torch import load_file

from .errors import WeightsError

_TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02")  # torch.save: a zip archive, or the pickle of before torch 1.6
_NUMPY: list[Any] = [
    np.dtype,
    np.ndarray,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *((numpy_multiarray.scalar, name) for name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")),
    *(
        (numpy_multiarray._reconstruct, name)
        for name in ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
    ),
]
"""NumPy numbers and arrays, which trainers save beside the tensors. They are data; making them runs no code."""
_AT_ONCE = 1 << 18  # values compared at a time, so that a conversion takes little memory beside its result


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
        size = path.stat().st_size
        message = f"not a whole safetensors or torch.save file ({size:,} bytes): {error}"
        raise WeightsError(f"{path}: {message}") from None


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
        raise WeightsError(
            f"{path}: {name} is {value.dtype}, {value.layout}; a dense tensor of real numbers is expected"
        )
    if value.dtype == to:
        return value
    converted = value.to(to)
    exact, beyond = True, False
    for given, got in zip(value.reshape(-1).split(_AT_ONCE), converted.reshape(-1).split(_AT_ONCE), strict=True):
        back = given.to(torch.float64)
        exact_integers = given.is_floating_point() or bool((got.to(given.dtype) == given).all())
        same = exact_integers & (got.to(torch.float64) == back) | (back.isnan() & got.isnan())
        exact &= bool(same.all())
        beyond |= bool((got.isinf() & ~back.isinf()).any())
    if beyond:
        raise WeightsError(f"{path}: {name} has values that {to} cannot hold: they would become infinite")
    if not exact and asked != str(to).removeprefix("torch."):
        message = f"{name} is {value.dtype} and the module {to}; the conversion would change values"
        raise WeightsError(f"{path}: {message}. What to do: allow the rounding with dtype='float32' (--dtype float32)")
    return converted
