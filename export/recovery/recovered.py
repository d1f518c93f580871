"""What reading a network back gives: a spec and its weights, made of the blocks in their order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from builder.assembly import assemble
from builder.block import Shape, modules_of
from builder.errors import RecoveryError
from builder.spec import MLPSpec

_DEFAULTS = {"mean": 0.0, "std": 1.0, "factor": 1.0, "offset": 0.0, "num_batches_tracked": 0}
"""What a tensor is where the file has none."""
_WITHOUT_WEIGHT = {"batch_norm": "affine", "layer_norm": "elementwise_affine"}
"""The option that is off where the file has no weight."""


@dataclass(frozen=True)
class Recovered:
    """A network that was read from a file: its spec, its weights, and what was decided on the way."""

    spec: MLPSpec
    weights: dict[str, torch.Tensor]
    """The state dict of ``assemble(spec)``, float32; the values may lie in the file's memory map."""
    notes: tuple[str, ...] = ()
    """What was found, chosen by default or left out, a line each."""
    flattened: Shape | None = None
    """The shape of a row of the file's input, where its leading Flatten was left out."""

    def module(self) -> nn.Sequential:
        """The network in evaluation mode. Its parameters share their memory with ``weights``."""
        module = assemble(self.spec)
        module.load_state_dict(self.weights, assign=True)
        return module.eval()


@dataclass(frozen=True)
class Step:
    """A block that was read: its tensors by their module's names, its options (or the value that is short for them).

    One number may stand for a tensor's values; a tensor that has no effect is left out. ``blocks`` are a residual's.
    """

    kind: str
    tensors: Mapping[str, Any] = field(default_factory=dict)
    """Arrays, or tensors of PyTorch."""
    options: Any = field(default_factory=dict)
    blocks: tuple[Step, ...] = ()

    @property
    def block(self) -> str | dict[str, Any]:
        """The block as a spec has it; that a tensor is absent is an option there."""
        if self.kind == "residual":
            return {"residual": [inner.block for inner in self.blocks]}
        options = {"features": len(self.tensors["weight"])} if self.kind == "linear" else self.options
        if self.kind in _WITHOUT_WEIGHT and "weight" not in self.tensors:
            options = {**options, _WITHOUT_WEIGHT[self.kind]: False}
        elif self.kind in ("linear", "layer_norm") and "bias" not in self.tensors:
            options = {**options, "bias": False}
        return self.kind if options == {} else {self.kind: options}

    def joined(self, following: Step) -> Step | None:
        """The one block that this and the following are, if they are: no value is computed but a sign turned."""
        kinds, has, gets = (self.kind, following.kind), set(self.tensors), set(following.tensors)
        shift = None
        if following.kind == "scale" and gets == {"offset"}:
            shift = following.tensors["offset"]
        elif following.kind == "standardize" and gets == {"mean"}:
            shift = -following.tensors["mean"]
        if shift is not None and self.kind == "linear" and "bias" not in has:
            return replace(self, tensors={**self.tensors, "bias": shift})
        if shift is not None and self.kind == "scale" and has == {"factor"}:
            return replace(self, tensors={**self.tensors, "offset": shift})
        if shift is not None and self.kind == "layer_norm" and has == {"weight"}:
            return replace(self, tensors={**self.tensors, "bias": shift})
        if kinds == ("standardize", "standardize") and has == {"mean"} and gets == {"std"}:
            return replace(self, tensors={**self.tensors, **following.tensors})
        if kinds == ("scale", "standardize") and has == {"offset"} and gets == {"std"}:
            return replace(following, tensors={"mean": -self.tensors["offset"], **following.tensors})
        if kinds == ("layer_norm", "scale") and not has and gets == {"factor"}:
            return replace(self, tensors={"weight": following.tensors["factor"]})
        return None


def joined(steps: Sequence[Step]) -> list[Step]:
    """The steps with neighbours that are one block made one."""
    result: list[Step] = []
    for step in steps:
        both = result[-1].joined(step) if result else None
        result[-1 if both else len(result) :] = [both or step]
    return result


def network_of(
    steps: Sequence[Step], name: str, source: Mapping[str, Any], output_name: str
) -> tuple[MLPSpec, dict[str, torch.Tensor]]:
    """The spec of blocks in their order, and its state dict, whose tensors share no memory, as safetensors wants them.

    ``source`` is the spec's input. Raises RecoveryError: a tensor of another size; SpecError: no network.
    """
    blocks: list[Any] = [step.block for step in steps]
    spec = MLPSpec(name=name, input=source, blocks=blocks, output={"name": output_name})
    with torch.device("meta"):
        likes = nn.Sequential(*modules_of(spec.blocks, spec.input.row_shape)).state_dict()
    weights: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for key, like in likes.items():
        *places, role = key.split(".")
        step = Step("", blocks=tuple(steps))
        for place in places:
            step = step.blocks[int(place)]
        value = _tensor(step.tensors.get(role, _DEFAULTS.get(role)))
        if (like.dim() > 1 and value.shape != like.shape) or value.numel() not in (1, like.numel()):
            raise RecoveryError(f"block {key}: the file has {list(value.shape)}, and {list(like.shape)} is expected")
        if value.shape != like.shape:
            value = value.reshape(-1).expand(like.numel()).reshape(like.shape)
        value = value.contiguous()
        storage = value.untyped_storage().data_ptr()
        weights[key] = value.clone() if storage in memory else value
        memory.add(storage)
    return spec, weights


def _tensor(values: Any) -> torch.Tensor:
    """In the file's memory map where it lies there, otherwise a copy."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(values if values.flags.c_contiguous and values.flags.writeable else values.copy("C"))
    return values if isinstance(values, torch.Tensor) else torch.tensor(values)


def fitted_name(path: Path) -> str:
    """A model's name of a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "model"
