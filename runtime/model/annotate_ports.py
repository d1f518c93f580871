"""The inputs and outputs of a session as its file's metadata describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runtime.errors import ModelError

from .port import Port


def described(said: Sequence[Port] | None, real: Sequence[Port], path: Path | None) -> tuple[Port, ...]:
    """The ports ``real`` with the features, units, ranges, labels and indices of ``said``; ``real`` where that is None.

    ``path`` is the file's, None for bytes. Raises ModelError where the metadata describe other ports.
    """
    if said is None:
        return tuple(real)
    by_name = {port.name: port for port in said}
    if len(said) == len(real) == 1:  # whatever it is called
        by_name = {real[0].name: said[0]}
    for port in real:
        other = by_name.get(port.name)
        if other is None or not _alike(other.shape[1:], port.shape[1:]):
            found = list(other.shape[1:]) if other is not None else "nothing"
            message = f"its metadata describes rows of shape {found}, and '{port.name}' has {list(port.shape[1:])}"
            raise ModelError(f"{path or 'the model'}: {message}. What to do: export it again")
    return tuple(replace(by_name[port.name], name=port.name, dtype=port.dtype) for port in real)


def _alike(said: tuple[int | str, ...], real: tuple[int | str, ...]) -> bool:
    """Whether no two sizes that are numbers contradict each other."""
    sizes = [pair for pair in zip(said, real, strict=False) if all(isinstance(size, int) for size in pair)]
    return len(said) == len(real) and all(one == other for one, other in sizes)
