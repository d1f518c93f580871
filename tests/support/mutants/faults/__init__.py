"""Every kind of fault, by name: a function that changes a file at a place that its generator picks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto

from tests.support.mutants.editing import File, NoPlace

from .attributes import ATTRIBUTES
from .constants import CONSTANTS
from .inserted import INSERTED
from .nested import NESTED
from .shapes import SHAPES
from .wiring import WIRING

Fault = Callable[[File], None]
_SINGLE: dict[str, Fault] = ATTRIBUTES | WIRING | CONSTANTS | INSERTED | SHAPES | NESTED


def _several(names: dict[str, Fault], count: int) -> Fault:
    def fault(file: File) -> None:
        for _ in range(count):
            file.then(file.one(names.values()))

    fault.__doc__ = f"{count} faults, one after the other."
    return fault


FAULTS: dict[str, Fault] = _SINGLE | {
    "two faults": _several(_SINGLE, 2),
    "two faults of shapes and operators put between": _several(SHAPES | INSERTED, 2),
    "two faults of constants": _several(CONSTANTS, 2),
    "five faults": _several(_SINGLE, 5),
}


def faulty(name: str, proto: ModelProto, seed: list[int]) -> ModelProto | None:
    """The file with a fault of this kind; None where it has no place for it, or would be the same."""
    file = File(proto, np.random.default_rng(seed))
    try:
        FAULTS[name](file)
    except NoPlace:
        return None
    return None if file.proto == proto else file.proto
