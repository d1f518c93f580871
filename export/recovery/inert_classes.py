"""Reads the tensors of a checkpoint that also holds objects of other classes, such as a trainer's callbacks.

Such an object becomes an empty one, whatever its class is: nothing is imported, and no code of the file or of the
class is run. ``torch.load`` reads with ``weights_only=True``, so all that it calls is its own list and these.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from builder.assembly import PLAIN_NUMPY, read_tensors
from builder.errors import WeightsError

_MOST_CLASSES = 1000
"""Far more than any trainer saves."""


class _Object:
    """Stands for an object of another class, or of none, and for what makes it: takes everything and keeps nothing."""

    def __new__(cls, *_args: object, **_options: object) -> Any:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_options: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Dictionary(_Object):
    """The same for a class that is filled as a dictionary is: it becomes one."""

    def __new__(cls, *_args: object, **_options: object) -> Any:
        return OrderedDict[Any, Any]()


def is_stand_in(value: object) -> bool:
    """Whether a value stands for an object or a class that was not read."""
    return isinstance(value, _Object) or (isinstance(value, type) and issubclass(value, _Object))


def read_without_classes(path: Path) -> tuple[object, tuple[str, ...]]:
    """The content of a ``torch.save`` archive without the objects of other classes, and the names of these.

    Raises WeightsError: damaged, or a file whose pickle does more with these classes than make objects.
    """
    with torch.serialization.safe_globals(PLAIN_NUMPY):
        try:
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except Exception as error:  # torch raises what its disassembler and its zip reader raise
            raise WeightsError(f"{path}: {error}") from None
    if len(names) > _MOST_CLASSES:
        raise WeightsError(f"{path}: it names {len(names):,} classes; at most {_MOST_CLASSES:,} are left out")
    failure = WeightsError(f"{path}: it names no other classes")
    for kind in (_Object, _Dictionary) if names else ():
        stand_ins: list[Any] = [(type(name, (kind,), {}), name) for name in names]
        with torch.serialization.safe_globals(stand_ins):
            try:
                return read_tensors(path, mapped=True), tuple(names)
            except WeightsError as error:
                failure = error
    raise failure
