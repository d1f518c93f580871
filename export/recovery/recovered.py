"""The end of every kind of recovery: blocks in their order, from which ``network_of`` makes a spec and its weights."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from builder.assembly import assemble
from builder.block import Shape, modules_of
from builder.blocks import AnyBlock
from builder.errors import RecoveryError, SpecError, WeightsError
from builder.spec import MLPSpec
from builder.values import is_list
from export.errors import ExportError
from runtime import ModelError

DEFAULTS = {"mean": 0.0, "std": 1.0, "factor": 1.0, "offset": 0.0, "num_batches_tracked": 0}
"""The values of a tensor that the file does not have."""
_WITHOUT_WEIGHT = {"batch_norm": "affine", "layer_norm": "elementwise_affine"}
"""The option that is off if the file has no weight."""
_SHIFTS = {"linear": ("weight", "bias"), "layer_norm": ("weight", "bias"), "scale": ("factor", "offset")}
"""Blocks that end with a sum: the tensor that they must have alone, and the tensor that is added."""
_BLOCK: TypeAdapter[Any] = TypeAdapter(AnyBlock)


class NotABlock(Exception):
    """Why an operator is not a block of a dense network; the message goes on after the name of the operator."""


@contextmanager
def refusals_of(path: Path) -> Generator[None]:
    """Make every error about the file at ``path`` a RecoveryError that starts with the path."""
    try:
        yield
    except (RecoveryError, WeightsError, SpecError, ExportError, ModelError) as error:
        message = str(error)
        named = message.startswith((f"{path}:", f"{path}{os.sep}"))  # or a file in the folder at the path
        raise RecoveryError(message if named else f"{path}: {message}") from None


@dataclass(frozen=True)
class Recovered:
    """A network that was recovered from a file: its spec, its weights, and the decisions that were made.

    Examples:
        >>> from export import read_onnx
        >>> recovered = read_onnx("comfort.onnx")
        >>> [block.kind for block in recovered.spec.blocks], sorted(recovered.weights)[:2]
        (['standardize', 'linear', 'relu', 'linear', 'softmax'], ['0.mean', '0.std'])
    """

    spec: MLPSpec
    weights: dict[str, torch.Tensor]
    """The state dict of ``assemble(spec)``, float32; the values may lie in the file's memory map."""
    notes: tuple[str, ...] = ()
    """What was detected, chosen by default or left out, a line each."""
    flattened: Shape | None = None
    """The shape of a row of the file's input, if its leading Flatten was left out."""

    def module(self) -> nn.Sequential:
        """The network in evaluation mode. Its parameters share their memory with ``weights``."""
        module = assemble(self.spec)
        module.load_state_dict(self.weights, assign=True)
        return module.eval()


@dataclass(frozen=True)
class Step:
    """A recovered block: its tensors by their names in its module, and its options (or the bare value for them).

    One number may stand for all values of a tensor; a tensor without effect is left out. ``blocks`` are a residual's.
    """

    kind: str
    tensors: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """NumPy arrays or torch tensors."""
    options: Any = field(default_factory=dict[str, Any])
    blocks: tuple[Step, ...] = ()

    @property
    def block(self) -> str | dict[str, Any]:
        """The block as written in a spec; a missing tensor is an option there."""
        if self.kind == "residual":
            return {"residual": [inner.block for inner in self.blocks]}
        options = {"features": len(self.tensors["weight"])} if self.kind == "linear" else self.options
        if self.kind in _WITHOUT_WEIGHT and "weight" not in self.tensors:
            options = {**options, _WITHOUT_WEIGHT[self.kind]: False}
        elif self.kind in ("linear", "layer_norm") and "bias" not in self.tensors:
            options = {**options, "bias": False}
        return self.kind if options == {} else {self.kind: options}

    def check(self) -> None:
        """Raises NotABlock: the block does not take its options."""
        try:
            _BLOCK.validate_python(self.block)
        except ValidationError as error:
            (first, *_) = error.errors(include_url=False)
            option = ".".join(str(part) for part in first["loc"] if part != self.kind)
            reason = ": ".join(filter(None, (option, first["msg"])))
            raise NotABlock(f"has invalid options for the block {self.kind}: {reason}") from None

    def joined(self, following: Step) -> Step | None:
        """This block and the following as one block, if they are one without any arithmetic but a change of sign."""
        kinds, roles, added = (self.kind, following.kind), set(self.tensors), set(following.tensors)
        shift = None
        if following.kind == "scale" and added == {"offset"}:
            shift = following.tensors["offset"]
        elif following.kind == "standardize" and added == {"mean"}:
            shift = -following.tensors["mean"]
        required, role = _SHIFTS.get(self.kind, ("", ""))
        if shift is not None and roles == {required}:
            return replace(self, tensors={**self.tensors, role: shift})
        if kinds == ("standardize", "standardize") and roles == {"mean"} and added == {"std"}:
            return replace(self, tensors={**self.tensors, **following.tensors})
        if kinds == ("scale", "standardize") and roles == {"offset"} and added == {"std"}:
            return replace(following, tensors={"mean": -self.tensors["offset"], **following.tensors})
        if kinds == ("clip", "clip"):
            return self._within(following)
        if kinds == ("layer_norm", "scale") and not roles and added == {"factor"}:
            return replace(self, tensors={"weight": following.tensors["factor"]})
        return None

    def _within(self, following: Step) -> Step | None:
        """A lower limit of each feature and then an upper one, as one clip."""
        lows, highs = self.options, following.options
        lists = [options.get(name) for options in (lows, highs) for name in ("min", "max")]
        if not all(map(is_list, lists)) or any(limit is not None for limit in (*lows["max"], *highs["min"])):
            return None
        both = replace(self, options={"min": lows["min"], "max": highs["max"]})
        pairs = zip(lows["min"], highs["max"], strict=True)
        return both if all(None in pair or pair[0] < pair[1] for pair in pairs) else None


def joined(steps: Sequence[Step]) -> list[Step]:
    """The steps, with neighbours that are one block joined."""
    result: list[Step] = []
    for step in steps:
        both = result[-1].joined(step) if result else None
        result[-1 if both else len(result) :] = [both or step]
    return result


def model_name(text: str) -> str:
    """A name that a model may have, from that of a file or of an experiment: ``model`` where none of it can stay."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-") or "model"


def network_of(
    steps: Sequence[Step],
    path: Path,
    name: str | None,
    source: Mapping[str, Any],
    output: Mapping[str, Any],
    notes: Sequence[str] = (),
    flattened: Shape | None = None,
    period: float | None = None,
) -> Recovered:
    """The spec of blocks in their order, and its state dict, whose tensors share no memory (safetensors requires that).

    ``source`` and ``output`` are the spec's input and output; the model's default name is the file's.
    Raises RecoveryError: a tensor of another size, or blocks and names that do not make a valid spec.
    """
    blocks: list[Any] = [step.block for step in steps]
    name = model_name(path.stem) if name is None else name
    try:
        spec = MLPSpec(name=name, period=period, input=source, blocks=blocks, output=output)
    except SpecError as error:
        raise RecoveryError(f"no valid spec describes its network: {error}") from None
    with torch.device("meta"):
        expected = nn.Sequential(*modules_of(spec.blocks, spec.input.row_shape)).state_dict()
    weights: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for key, like in expected.items():
        *indices, role = key.split(".")
        step = Step("", blocks=tuple(steps))
        for index in indices:
            step = step.blocks[int(index)]
        value = tensor_of(step.tensors.get(role, DEFAULTS.get(role)))
        if (like.dim() > 1 and value.shape != like.shape) or value.numel() not in (1, like.numel()):
            raise RecoveryError(f"block {key}: the file has {list(value.shape)}, and {list(like.shape)} is expected")
        if value.shape != like.shape:
            value = value.reshape(-1).expand(like.numel()).reshape(like.shape)
        value = value.contiguous()
        storage = value.untyped_storage().data_ptr()
        weights[key] = value.clone() if storage in storages else value
        storages.add(storage)
    return Recovered(spec, weights, tuple(notes), flattened)


def tensor_of(values: Any) -> torch.Tensor:
    """In the file's memory map if the values are there, otherwise a copy."""
    if isinstance(values, np.ndarray):
        kept = values.flags.c_contiguous and values.flags.writeable
        return torch.as_tensor(values if kept else values.copy("C"), device="cpu")
    return values if isinstance(values, torch.Tensor) else torch.tensor(values)
