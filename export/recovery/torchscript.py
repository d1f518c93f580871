"""Recovers the network of a TorchScript archive: traced as any module is, then compared with the archive."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from builder.errors import RecoveryError
from export.trace import signature_of, trace

from .graph_blocks import steps_of
from .recovered import Recovered, network_of

_ROWS = 64
_FLOAT64_TOLERANCE, _FLOAT32_TOLERANCE = 2.0**-20, 1e-4
"""Of the outputs, relative to the value and to the largest: a check of the reading of the graph, not a proof.

Numbers in the file's code are rounded to float32 (2^-24), which shows in float64.
"""


class TorchScriptArchive(nn.Module):
    """A TorchScript module with a Python forward, which can be traced."""

    def __init__(self, script: nn.Module):
        super().__init__()
        self.script = script

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the archive's module gives for rows ``x``."""
        return self.script(x)


def read_torchscript(path: Path, name: str | None, input_name: str, output_name: str) -> Recovered:
    """The dense network in a TorchScript archive. The archive is loaded, and its code is run on a few random rows.

    The names are the spec's. Raises RecoveryError: not a chain of blocks (the first operator that is not a block is
    named), or different outputs; ExportError: it cannot be traced.
    """
    # TorchScript is deprecated; a warning at every call would not help a user who has such a file.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        try:
            loaded = cast(Any, torch.jit.load(str(path), map_location="cpu"))  # pyright: ignore[reportUnknownMemberType] - torch gives it no types
            script: torch.jit.ScriptModule = loaded.eval()
            arguments = loaded.forward.schema.arguments[1:]
        except Exception as error:  # torch.jit raises what its parser raises; a module may have no forward
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise RecoveryError(f"TorchScript cannot read it: {reason}") from None
        if len(arguments) != 1:
            raise RecoveryError(f"forward takes {len(arguments)} inputs; one is expected")
        features = _features(script)
        called = TorchScriptArchive(script).eval()
        signature = signature_of(called, input_shape=(features,), input_name=(input_name,))
        steps = steps_of(trace(called, signature, (output_name,)))
        if not any(step.kind in ("linear", "residual") for step in steps):
            raise RecoveryError("no linear layer in it")
        network = network_of(steps, path, name, {"name": input_name, "features": features}, {"name": output_name})
        agreement = _compare(script, network)
    note = "TorchScript: its code was run; blocks and options are those that it ran, in evaluation mode"
    return replace(network, notes=(note, agreement))


def _features(script: torch.jit.ScriptModule) -> int:
    """The number of input features: the largest side of a matrix that it runs on. Raises RecoveryError: none."""
    tensors = script.state_dict()
    other_dtypes = {value.dtype for value in tensors.values() if value.is_floating_point()} - {torch.float32}
    if other_dtypes:
        raise RecoveryError(f"it has a constant of {min(other_dtypes, key=str)}; float32 is expected")
    failure = RecoveryError("no linear layer in it")
    sides = {size for value in tensors.values() if value.dim() == 2 for size in value.shape}
    for features in sorted(sides, reverse=True):
        try:
            _output(script, torch.zeros(_ROWS, features))
            return features
        except RecoveryError as error:
            failure = error
    raise failure


@torch.no_grad()
def _output(script: torch.jit.ScriptModule, rows: torch.Tensor) -> object:
    """The output of the file's module. Raises RecoveryError: it fails."""
    try:
        return script(rows)
    except Exception as error:  # the file's own code: it may raise anything
        reason = str(error).strip().rpartition("\n")[2]
        raise RecoveryError(f"the file's own module fails on rows of {rows.shape[1]} features: {reason}") from None


def _compare(script: torch.jit.ScriptModule, network: Recovered) -> str:
    """A note that the network gives the outputs of the file's module, in float64 if the module runs in float64.

    Raises RecoveryError: the outputs differ, or the file's module does not run.
    """
    module = network.module()
    rows = torch.randn(_ROWS, *network.spec.input.row_shape, generator=torch.Generator().manual_seed(0)) * 2
    theirs, tolerance, precision = _output(script, rows), _FLOAT32_TOLERANCE, "float32"
    with torch.no_grad():
        with suppress(RuntimeError):
            theirs, tolerance, precision = script.double()(rows.double()), _FLOAT64_TOLERANCE, "float64"
        ours = module.to(theirs.dtype)(rows.to(theirs.dtype)) if isinstance(theirs, torch.Tensor) else module(rows)
    if not isinstance(theirs, torch.Tensor) or theirs.shape != ours.shape:
        shape = getattr(theirs, "shape", type(cast(object, theirs)))
        raise RecoveryError(f"the file's module gives an output of shape {shape}, the network of shape {ours.shape}")
    largest = float(theirs.abs().nan_to_num(0.0, 0.0).max())
    if not torch.allclose(theirs, ours, rtol=tolerance, atol=tolerance * largest, equal_nan=True):
        difference = (theirs - ours).abs().max().item()
        raise RecoveryError(f"the network differs from the file's own module by up to {difference:.3g} on {_ROWS} rows")
    return f"on {_ROWS} random rows the network gives what the file gives, in {precision} to within {tolerance:.0e}"
