"""Plants the faults of ``planted`` into copies of a server's code, and turns them on and off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from runtime import Answers
from tests.support.servers import planted


def prepare(folder: Path, file: Path, answers: Answers) -> Path:
    """A folder with the faults of a model: older files of it, its answers in fewer bits, and no fault yet."""
    folder.mkdir()
    arrays = {f"inputs/{name}": values for name, values in answers.inputs.items()}
    for precision in planted.REDUCED:
        arrays |= {f"{precision}/{name}": values for name, values in answers.reduced[precision].items()}
    np.savez(folder / "answers.npz", **arrays)  # type: ignore[arg-type]
    shutil.copy(planted.__file__, folder / "planted.py")
    for place, factor in (("stale.onnx", 1.001), ("version.onnx", -1.5)):
        model = onnx.load(file)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.ndim == 2:
                tensor.CopyFrom(numpy_helper.from_array(values * np.float32(factor), tensor.name))
        onnx.save(model, folder / place)
    turn(folder, "")
    return folder


def plant(code: Path, folder: Path) -> None:
    """Have the code of a package open its model by the class of sessions with the faults of a folder."""
    text = code.read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line == "import onnxruntime")
    seam = (
        f"import sys\nsys.path.append({str(folder)!r})\nimport pathlib, planted\n"
        "onnxruntime.InferenceSession = planted.session_class(\n"
        f"    onnxruntime.InferenceSession, pathlib.Path({str(folder)!r}))"
    )
    code.write_text(text.replace(f"\n{line}\n", f"\n{line}\n{seam}\n", 1), encoding="utf-8")


def turn(folder: Path, fault: str) -> None:
    """Turn a fault on, or, by an empty name, off."""
    new = folder / "fault.new"
    new.write_text(fault)
    new.replace(folder / "fault")


@contextmanager
def turned(folder: Path, fault: str) -> Iterator[None]:
    """Turn a fault on while the block runs."""
    turn(folder, fault)
    try:
        yield
    finally:
        turn(folder, "")
