"""A file of any kind that a network is read back from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.errors import RecoveryError

from .checkpoint import read_checkpoint
from .onnx_network import read_onnx
from .recovered import Recovered

_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".tar", ".zip")


def is_onnx(path: str | Path) -> bool:
    """Whether a file is to be read as ONNX: by its name, or by its first byte where the name does not say."""
    path = Path(path)
    if path.suffix.lower() == ".onnx":
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise RecoveryError(f"{path}: cannot be read: {error.strerror or error}") from None
    # The first field of an ONNX file is its IR version; a safetensors header has a brace behind its length.
    return head.startswith(b"\x08") and head[8:] != b"{" and path.suffix.lower() not in _CHECKPOINTS


def read_network(path: str | Path, *, keep_shape: bool = False, name: str | None = None, **options: Any) -> Recovered:
    """The dense network in an ONNX file (see ``read_onnx``) or in a checkpoint (see ``read_checkpoint``).

    Raises RecoveryError: as those, and for options that are for the other kind of file.
    """
    # An epsilon of 0 is said, and equals False.
    given = {key: value for key, value in options.items() if value is not None and value is not False and value != ()}
    if not is_onnx(path):
        if keep_shape:
            raise RecoveryError(f"{path}: --keep-shape is for ONNX files; a checkpoint holds no shape of its input")
        return read_checkpoint(path, name=name, **given)
    if given:
        listed = ", ".join(f"--{key.replace('_', '-')}" for key in given)
        raise RecoveryError(f"{path}: an ONNX file says its layers itself. What to do: leave out {listed}")
    return read_onnx(path, keep_shape=keep_shape, name=name)
