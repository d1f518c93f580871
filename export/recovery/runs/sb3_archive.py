"""The zip archives of Stable-Baselines3: the policy's state dict, and what its JSON says. Pickles stay closed.

``data`` is JSON; what is no JSON is a pickle in base64 (``:serialized:``) beside its class (``:type:``) and the texts
of its attributes, which are read here. Source: ``stable_baselines3/common/save_util.py``.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.errors import RecoveryError
from builder.values import is_dict
from export.recovery.checkpoint_file import Contents, archive_records, opened_archive, read_contents
from export.recovery.recovered import refusals_of

POLICY, DATA = "policy.pth", "data"
_MOST_BYTES = 1 << 26
"""Of the JSON; with its pickles it has about 20 kB."""
_MOST_SYSTEM = 1 << 16


def is_archive(path: Path) -> bool:
    """Whether a file is an archive of Stable-Baselines3."""
    try:
        if path.suffix != ".zip" or not zipfile.is_zipfile(path):
            return False
        with opened_archive(path) as archive:
            return {POLICY, DATA} <= set(archive.namelist())
    except RecoveryError:
        return False


def policy_contents(path: Path) -> Contents:
    """The tensors of the policy. Raises RecoveryError: damaged, too large, or no code-free state dict."""
    records = archive_records(path, members=(POLICY,))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        inner = Path(folder) / POLICY
        with opened_archive(path) as archive:
            inner.write_bytes(archive.read(POLICY))
        assert POLICY in records
        contents = read_contents(inner, archive_records(inner))
        tensors = {name: tensor.clone() for name, tensor in contents.tensors.items()}  # the file goes away
    return replace(contents, tensors=tensors)


@dataclass(frozen=True)
class Data:
    """The JSON of an archive."""

    values: dict[str, Any]
    file: str

    def place(self, *keys: str) -> str:
        """Where a value is: ``data of model.zip, policy_kwargs.net_arch``."""
        return f"{DATA} of {self.file}, {'.'.join(keys)}"

    def get(self, *keys: str) -> Any:
        """The value under nested keys; None where one is missing."""
        value: Any = self.values
        for key in keys:
            value = value.get(key) if is_dict(value) else None
        return value


def read_data(path: Path) -> Data:
    """The JSON of an archive. Raises RecoveryError: damaged, not JSON, or too large."""
    with refusals_of(path), opened_archive(path) as archive:
        size = archive.getinfo(DATA).file_size
        if size > _MOST_BYTES:
            raise RecoveryError(f"{DATA}: {size:,} bytes; at most {_MOST_BYTES:,} are read")
        content = archive.read(DATA)
    try:
        values: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RecoveryError(f"{DATA} of {path.name} is not JSON: {error}. What to do: copy the archive again") from None
    if not is_dict(values):
        raise RecoveryError(f"{DATA} of {path.name}: expected an object, found {type(values).__name__}")
    return Data(values, path.name)


def read_system(path: Path) -> str:
    """The versions that system_info.txt names, of the library and of PyTorch; an empty text where there is none.

    Raises RecoveryError: damaged.
    """
    with refusals_of(path), opened_archive(path) as archive:
        name = "system_info.txt"
        small = name in archive.namelist() and archive.getinfo(name).file_size < _MOST_SYSTEM
        text = archive.read(name).decode("utf-8", "replace") if small else ""
    found = re.findall(r"^- (Stable-Baselines3|PyTorch): ([\w.+-]+)", text, re.MULTILINE)
    return " with ".join(f"{name} {version}" for name, version in found)


def printed_numbers(text: object, count: int) -> list[float] | None:
    """The numbers of an array as NumPy prints it, or of one number for all; None where it leaves some out."""
    if not isinstance(text, str):
        return None
    words = text.replace("[", " ").replace("]", " ").split()
    try:
        numbers = [float(np.float32(word)) for word in words]
    except ValueError:
        return None
    return numbers * count if len(numbers) == 1 else numbers if len(numbers) == count else None
