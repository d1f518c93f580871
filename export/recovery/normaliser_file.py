"""A normaliser that a training kept outside of the checkpoint, as arrays in a NumPy archive: ``--normalizer FILE.npz``.

Stable-Baselines3's ``VecNormalize`` and gymnasium's ``NormalizeObservation`` are pickled with the environment; on the
training machine ``numpy.savez("normalizer.npz", mean=env.obs_rms.mean, var=env.obs_rms.var)`` writes what is needed.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from builder.errors import RecoveryError

from .checkpoint_file import opened_archive
from .recovered import Step, refusals_of

_DEFAULTS = {"epsilon": 1e-8, "clip": 10.0}
"""Those of ``VecNormalize`` and, with the clip that CleanRL puts behind it, of ``NormalizeObservation``."""
_MOST_BYTES = 1 << 28
SAVED = 'numpy.savez("normalizer.npz", mean=env.obs_rms.mean, var=env.obs_rms.var)'
"""What writes such a file."""


def normaliser_of(path: Path, features: int) -> tuple[list[Step], list[str]]:
    """The blocks of a normaliser of so many features, clip((x - mean) / sqrt(var + epsilon)), and notes.

    Raises RecoveryError: not such a file, or of another network.
    """
    arrays = _arrays(path)
    hint = f"What to do: write it with {SAVED}"
    for name in ("mean", "var"):
        if name not in arrays:
            raise RecoveryError(
                f"{path}: expected the arrays mean and var, found {', '.join(arrays) or 'none'}. {hint}"
            )
        if arrays[name].shape != (features,):
            shape = f"{name} has the shape {list(arrays[name].shape)}, and the network takes {features} features"
            raise RecoveryError(f"{path}: {shape}. What to do: take the normaliser of the same training")
    numbers: dict[str, float] = {}
    for name, default in _DEFAULTS.items():
        if name in arrays and arrays[name].size != 1:
            raise RecoveryError(f"{path}: {name} has the shape {list(arrays[name].shape)}; one number is expected")
        numbers[name] = float(arrays[name].reshape(-1)[0]) if name in arrays else default
    epsilon, clip = numbers["epsilon"], numbers["clip"]
    with np.errstate(invalid="ignore"):
        std = np.sqrt(arrays["var"] + epsilon)
    wrong = ~(np.isfinite(arrays["mean"]) & np.isfinite(std) & (std > 0))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        values = f"mean {arrays['mean'][at]!r} and variance {arrays['var'][at]!r}"
        raise RecoveryError(f"{path}: feature {at} has {values}; finite numbers and a positive variance are expected")
    if not clip > 0:
        raise RecoveryError(f"{path}: clip is {clip:g}; a positive number is expected, or inf for none")
    tensors = {"mean": torch.from_numpy(arrays["mean"]).float(), "std": torch.from_numpy(std).float()}  # pyright: ignore[reportUnknownMemberType]
    steps = [Step("standardize", tensors)]
    steps += [Step("clip", options={"min": -clip, "max": clip})] if np.isfinite(clip) else []
    what = [
        f"{name} {value:g} ({'in the file' if name in arrays else 'the default'})" for name, value in numbers.items()
    ]
    formula = "clip((x - mean) / sqrt(var + epsilon)), rounded to float32"
    return steps, [f"normaliser of {path.name}: {formula}, with {' and '.join(what)}"]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of numbers of a NumPy archive; pickled ones are refused."""
    hint = f"What to do: write it with {SAVED}"
    if not path.is_file():
        raise RecoveryError(f"{path}: cannot be read: no such file. {hint}")
    if not zipfile.is_zipfile(path):
        raise RecoveryError(f"{path}: not a NumPy archive (.npz). {hint}")
    with refusals_of(path), opened_archive(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > _MOST_BYTES:
            raise RecoveryError(f"{size:,} bytes when it is unpacked; at most {_MOST_BYTES:,} are read")
        try:
            with np.load(path, allow_pickle=False) as loaded:
                return {name: np.asarray(loaded[name], np.float64) for name in loaded.files}
        except (ValueError, TypeError) as error:
            raise RecoveryError(f"not arrays of numbers: {error}. {hint}") from None
