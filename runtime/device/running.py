"""How a file, or a layer of it, is run on this device.

An ``Opener`` opens files, so that tests can use a runtime with a fault that no file can hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from runtime.session.session import Session
from runtime.session.tuned import TuningWarning, tuning_for


class Running(Protocol):
    """An opened model. ``Session`` is one."""

    device: str

    @property
    def multiply_adds(self) -> int:
        """Per row."""
        ...

    def run(self, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for one batch, by name. Raises ModelError: it does not run on it."""
        ...

    def __enter__(self) -> Running: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Opener = Callable[[Path | bytes], Running]


def on_device(path: Path, device: str) -> Opener:
    """ONNX Runtime on a device as users run the file at ``path``, and its layers with the settings tuned for it."""
    settings: dict[str, Any] = {}
    if device == "cpu":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TuningWarning)  # opening the file itself gives it
            tuned = tuning_for(path)
        settings = tuned.chosen() if tuned is not None else {}
    return lambda source: Session(source, device, **(settings if isinstance(source, bytes) else {}))
