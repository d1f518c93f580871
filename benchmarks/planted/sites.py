"""Where a fault goes: it is planned for one file, and then is an edit by names.

The edit is applied to the file itself, or by a runtime (``faulty``) to every model that it opens, which is a fault that
no look at the file can find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from export.onnxfile.model import Model
from export.proof.running import Opener, Running
from export.proof.structure import Layer

from .edits import Edit


@dataclass(frozen=True)
class Site:
    """A file, its layers, and the generator that picks where in it a fault goes."""

    model: Model
    layers: Sequence[Layer]
    rng: np.random.Generator

    def pick(self, *ops: str, fits: Callable[[Layer], bool] = lambda _: True) -> Layer | None:
        """A layer of one of these kinds; None where there is none."""
        found = [layer for layer in self.layers if layer.expected.op in ops and fits(layer)]
        return found[self.rng.integers(len(found))] if found else None

    def constant(self, layer: Layer, role: str) -> str | None:
        """The file's name for a tensor of a layer."""
        held = layer.expected.tensors.get(role)
        if held is None:
            return None
        names = [name for node in layer.nodes for name in node.input if name in self.model.constants]
        shapes = held.values.shape, held.values.shape[::-1]
        return next((name for name in names if self.model.constants[name].shape in shapes), None)

    def held(self, node: NodeProto, place: int) -> np.ndarray | None:
        """The constant that an operator reads in one of its places, if it is one."""
        name = node.input[place] if place < len(node.input) else ""
        return self.model.constants.get(name)


Plan = Callable[[Site], Edit | None]


def planned(plan: Plan, model: Model, layers: Sequence[Layer], seed: int) -> Edit | None:
    """Where a fault goes in this file; None where the file has no place for it, or where it would change nothing."""
    edit = plan(Site(model, layers, np.random.default_rng(seed)))
    if edit is None:
        return None
    before, after = (onnx.load(str(model.path)) for _ in range(2))
    edit(after)
    return None if _same(before, after) else edit


def _same(before: ModelProto, after: ModelProto) -> bool:
    if list(before.graph.node) != list(after.graph.node):
        return False
    held, now = ({t.name: numpy_helper.to_array(t).tobytes() for t in p.graph.initializer} for p in (before, after))
    return held == now


def planted(model: Model, edit: Edit, path: Path) -> None:
    """Write the file with the fault."""
    proto = onnx.load(str(model.path))
    edit(proto)
    path.write_bytes(proto.SerializeToString())


def faulty(opener: Opener, edit: Edit) -> Opener:
    """A runtime that has the fault: whatever it opens, it edits first."""

    def opened(source: Path | bytes) -> Running:
        proto = onnx.load(str(source)) if isinstance(source, Path) else onnx.load_from_string(source)
        edit(proto)
        return opener(proto.SerializeToString())

    return opened
