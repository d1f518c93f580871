"""Small proved models to serve."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from export import publish
from runtime import Answers, read_certificate
from tests.support.cases import network

BLOCKS = [{"linear": 16}, "relu", {"linear": 3}]
SLOW = [{"linear": 512}, "relu", {"linear": 512}, "relu", {"linear": 3}]
"""Of which a call takes so long that it runs on a thread."""


class Proved(NamedTuple):
    """A model's file and the answers of its certificate."""

    file: Path
    answers: Answers


def proved(folder: Path, name: str = "arm", *, blocks: list | None = None, features: int = 5, seed: int = 0) -> Proved:
    """A network of random weights, published as FOLDER/NAME.onnx."""
    spec, module = network(BLOCKS if blocks is None else blocks, features, seed)
    file = folder / f"{name}.onnx"
    publish(module, file, spec=spec, device="cpu", page=False)
    answers = read_certificate(file.with_suffix(".parity.json")).answers
    assert answers is not None
    return Proved(file, answers)


def copied(one: Proved, folder: Path) -> Proved:
    """The file and its certificate in a folder of a test's own."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (one.file, one.file.with_suffix(".parity.json")):
        shutil.copy2(path, folder / path.name)
    return Proved(folder / one.file.name, one.answers)
