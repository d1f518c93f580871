"""What reading a network back gives: a spec and its weights, made of the blocks in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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


@dataclass
class Step:
    """A block under way: its options (or the value that is short for them) and its tensors by their module's names.

    One number may stand for a tensor's values.
    """

    kind: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    options: Any = field(default_factory=dict)

    @property
    def block(self) -> str | dict[str, Any]:
        """The block as a spec has it; that a tensor is absent is an option there."""
        options = {"features": len(self.tensors["weight"])} if self.kind == "linear" else self.options
        if self.kind in _WITHOUT_WEIGHT and "weight" not in self.tensors:
            options = {**options, _WITHOUT_WEIGHT[self.kind]: False}
        elif self.kind in ("linear", "layer_norm") and "bias" not in self.tensors:
            options = {**options, "bias": False}
        return self.kind if options == {} else {self.kind: options}


def network_of(
    steps: Sequence[Step], name: str, input_name: str, output_name: str
) -> tuple[MLPSpec, dict[str, torch.Tensor]]:
    """The spec of blocks in their order, and its state dict.

    Raises RecoveryError: no Linear, or a tensor of another size; SpecError: a name that is none, or no network.
    """
    first = next((step for step in steps if any(tensor.dim() for tensor in step.tensors.values())), Step(""))
    sizes = [tensor.numel() for tensor in first.tensors.values()]
    features = first.tensors["weight"].shape[1] if first.kind == "linear" else max(sizes, default=0)
    if not any(step.kind == "linear" for step in steps) or not features:
        raise RecoveryError("no linear layer in it")
    ports = {"input": {"name": input_name, "features": features}, "output": {"name": output_name}}
    spec = MLPSpec(name=name, blocks=[step.block for step in steps], **ports)
    with torch.device("meta"):
        likes = nn.Sequential(*modules_of(spec.blocks, spec.input.row_shape)).state_dict()
    weights: dict[str, torch.Tensor] = {}
    for key, like in likes.items():
        index, _, role = key.partition(".")
        tensors = steps[int(index)].tensors
        value = tensors[role] if role in tensors else torch.tensor(_DEFAULTS[role])
        if (like.dim() > 1 and value.shape != like.shape) or value.numel() not in (1, like.numel()):
            raise RecoveryError(f"block {key}: the file has {list(value.shape)}, and {list(like.shape)} is expected")
        if value.shape != like.shape:
            value = value.reshape(-1).expand(like.numel()).reshape(like.shape).contiguous()
        weights[key] = value
    return spec, weights
