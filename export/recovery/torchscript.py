"""A TorchScript archive back into a spec and weights: traced as any module is, and compared with it."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from builder.errors import RecoveryError, SpecError
from export.errors import ExportError
from export.trace import signature_of, trace

from .graph_blocks import steps_of
from .recovered import Recovered, network_of

_ROWS = 64
_DOUBLE, _SINGLE = 2.0**-20, 1e-4
"""How far outputs may be apart, as a share of the value and of the largest, in float64 and in float32: a net under the
reading of the graph, not a proof. Numbers in the file's code become float32 (2^-24), which carries on in float64."""


class TorchScriptArchive(nn.Module):
    """What TorchScript made, called from Python."""

    def __init__(self, script: nn.Module):
        super().__init__()
        self.script = script

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.script(x)


def read_torchscript(path: Path, name: str, input_name: str, output_name: str) -> Recovered:
    """The dense network in a TorchScript archive, which is loaded, and whose code is run on a few random rows.

    The names are the spec's. Raises RecoveryError: no chain of blocks (the first operator that is none is named), or
    another result.
    """
    # TorchScript is deprecated, which the person who has such a file need not be told at every call.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        try:
            script = torch.jit.load(str(path), map_location="cpu").eval()
            arguments = script.forward.schema.arguments[1:]
        except Exception as error:  # torch.jit raises what its parser raises; a module may have no forward
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise RecoveryError(f"TorchScript cannot read it: {reason}") from None
        if len(arguments) != 1:
            raise RecoveryError(f"forward takes {len(arguments)} inputs; one is expected")
        features = _features(script)
        called = TorchScriptArchive(script).eval()
        try:
            signature = signature_of(called, input_shape=(features,), input_name=(input_name,))
            steps = steps_of(trace(called, signature, (output_name,)))
        except ExportError as error:
            raise RecoveryError(str(error)) from None
        if not any(step.kind in ("linear", "residual") for step in steps):
            raise RecoveryError("no linear layer in it")
        try:
            network = Recovered(*network_of(steps, name, {"name": input_name, "features": features}, output_name))
        except SpecError as error:
            raise RecoveryError(f"its blocks make no network: {error}") from None
        compared = _compare(script, network)
    note = "TorchScript: its code was run; blocks and options are those that it ran, in evaluation mode"
    return replace(network, notes=(note, compared))


def _features(script: torch.jit.ScriptModule) -> int:
    """The width of a row: the largest of its matrices' sides that it runs on. Raises RecoveryError: none is."""
    tensors = script.state_dict()
    other = {value.dtype for value in tensors.values() if value.is_floating_point()} - {torch.float32}
    if other:
        raise RecoveryError(f"with a constant of {min(other, key=str)}; float32 is expected")
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
def _output(script: torch.jit.ScriptModule, rows: torch.Tensor) -> Any:
    """What the file's own module gives for rows. Raises RecoveryError: it fails on them."""
    try:
        return script(rows)
    except Exception as error:  # the file's own code: it may raise anything
        reason = str(error).strip().rpartition("\n")[2]
        raise RecoveryError(f"the file's own module fails on rows of {rows.shape[1]} features: {reason}") from None


def _compare(script: torch.jit.ScriptModule, found: Recovered) -> str:
    """Hold the network against the file's own module, in float64, or in float32 where that runs in nothing else.

    Returns: what was found, in words. Raises RecoveryError: the outputs differ, or the file's module does not run.
    """
    module = found.module()
    rows = torch.randn(_ROWS, *found.spec.input.row_shape, generator=torch.Generator().manual_seed(0)) * 2
    theirs, tolerance, precision = _output(script, rows), _SINGLE, "float32"
    with torch.no_grad():
        with suppress(RuntimeError):
            theirs, tolerance, precision = script.double()(rows.double()), _DOUBLE, "float64"
        ours = module.to(theirs.dtype)(rows.to(theirs.dtype)) if isinstance(theirs, torch.Tensor) else module(rows)
    if not isinstance(theirs, torch.Tensor) or theirs.shape != ours.shape:
        shape = getattr(theirs, "shape", type(theirs))
        raise RecoveryError(f"the file's module gives {shape}, the network {ours.shape}")
    largest = float(theirs.abs().nan_to_num(0.0, 0.0).max())
    if not torch.allclose(theirs, ours, rtol=tolerance, atol=tolerance * largest, equal_nan=True):
        apart = (theirs - ours).abs().max().item()
        raise RecoveryError(f"the network differs from the file's own module by up to {apart:.3g} on {_ROWS} rows")
    return f"on {_ROWS} random rows the network gives what the file gives, in {precision} to within {tolerance:.0e}"
