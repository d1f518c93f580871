"""A PyTorch checkpoint back into a spec and weights. What it cannot say is asked for, never guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from builder.errors import RecoveryError, SpecError, WeightsError
from builder.spec import MLPSpec
from builder.tensors import converted

from .activations import BlockData
from .layers import Layer
from .normalizers import std_of
from .opening import Contents, contents, is_torchscript
from .places import Said, fill
from .recovered import Recovered
from .selection import Selection, select
from .torchscript import read_torchscript

_MOST_COPIES = 8
_TORCH_EPS = 1e-5
_VALUES = (
    *("weight", "bias", "weight_g", "weight_v", "running_mean", "running_var", "mean", "spread", "factor", "offset"),
)


def read_checkpoint(
    path: str | Path,
    *,
    key: str | None = None,
    prefix: Sequence[str] = (),
    activation: str | None = None,
    output_activation: str | None = None,
    activations: Sequence[str] | None = None,
    dropout: float | None = None,
    epsilon: float | None = None,
    dtype: str | None = None,
    name: str | None = None,
    input_name: str = "input",
    output_name: str = "output",
    trust: bool = False,
) -> Recovered:
    """The dense network in a ``torch.save``, safetensors or TorchScript file: its spec and its weights.

    ``key`` names a state dict within the file (dotted), ``prefix`` the network's names in it, or those of its parts in
    order. ``activation`` stands between hidden layers, ``activations`` gives one per place, ``output_activation`` comes
    last. ``epsilon`` is what a normaliser adds, or where there is none, what the norm layers add. ``dtype="float32"``
    lets values of another dtype be rounded. ``trust`` lets a TorchScript file be loaded, which can run its code.

    Raises RecoveryError: a file that cannot be read or is refused, no dense network in it, or more than one reading.
    """
    path = Path(path)
    if dtype not in (None, "float32"):
        raise RecoveryError(f"{path}: dtype is 'float32' or left out, not {dtype!r}")
    for option, number in (("--epsilon", epsilon), ("--dropout", dropout)):
        if number is not None and not 0 <= number <= 1:
            raise RecoveryError(f"{path}: {option} {number}: expected a number from 0 to 1")
    prefix = (prefix,) if isinstance(prefix, str) else tuple(prefix)
    called = name if name is not None else fitted(path.stem)
    if is_torchscript(path):
        surplus = {"--key": key, "--prefix": prefix or None, "--activation": activation, "--epsilon": epsilon}
        surplus |= {"--output-activation": output_activation, "--activations": activations, "--dropout": dropout}
        _refuse_script(path, trust, [option for option, value in surplus.items() if value is not None])
        try:
            return read_torchscript(path, name=called, input_name=input_name, output_name=output_name)
        except RecoveryError as error:
            raise _placed(path, error) from None
    file = contents(path)
    said = Said(activation, output_activation, activations, dropout)
    try:
        selection = select(file, key, prefix)
        _refuse_too_large(path, file, selection)
        after, notes = fill(selection.layers, said)
        blocks, weights, more = _network(path, selection.layers, after, epsilon, dtype)
        spec = MLPSpec(
            name=called,
            input={"name": input_name, "features": features(selection.layers)},
            blocks=blocks,
            output={"name": output_name},
        )
    except (RecoveryError, WeightsError, SpecError) as error:
        raise _placed(path, error) from None
    return Recovered(spec, weights, (*selection.notes, *notes, *more))


def _placed(path: Path, error: Exception) -> RecoveryError:
    text = str(error)
    return RecoveryError(text if text.startswith(str(path)) else f"{path}: {text}")


def _refuse_script(path: Path, trust: bool, options: list[str]) -> None:
    if not trust:
        raise RecoveryError(
            f"{path}: a TorchScript archive: a program with its weights; to load it can run code that lies in it."
            " What to do: if you trust where it comes from, add --trust; else ask for the state dict"
        )
    if options:
        raise RecoveryError(f"{path}: a TorchScript archive says its layers itself; leave out {', '.join(options)}")


def fitted(stem: str) -> str:
    """A file's stem as a model's name: what a name cannot hold becomes ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-") or "model"


def features(layers: Sequence[Layer]) -> int:
    """The number of features that go into a chain of layers."""
    return next(layer.widths[0] for layer in layers if layer.widths[0])


def _refuse_too_large(path: Path, file: Contents, selection: Selection) -> None:
    """Many names of the same few bytes make a network that no memory holds."""
    needed = sum(t.numel() * 4 for layer in selection.layers for t in layer.tensors.values())
    size = path.stat().st_size
    if needed > _MOST_COPIES * size:
        raise RecoveryError(
            f"refused: {len(file.tensors)} tensors share {size:,} bytes, and need {needed:,} as a network"
        )


def _network(
    path: Path, layers: Sequence[Layer], after: list[list[BlockData]], epsilon: float | None, dtype: str | None
) -> tuple[list[BlockData], dict[str, torch.Tensor], list[str]]:
    """The blocks, their state dict and notes."""
    blocks: list[BlockData] = []
    weights: dict[str, torch.Tensor] = {}
    notes: list[str] = []
    width = features(layers)
    norm_epsilon = epsilon if all(layer.kind != "standardize" for layer in layers) else None
    if epsilon is not None and all(layer.kind in ("linear", "scale") for layer in layers):
        raise RecoveryError(f"--epsilon {epsilon:g}: no normaliser, BatchNorm or LayerNorm is in the network")
    for layer, following in zip(layers, after, strict=True):
        values = {
            role: converted(path, f"{layer.path}.{role}".lstrip("."), tensor, torch.float32, dtype)
            for role, tensor in layer.tensors.items()
            if role in _VALUES
        }
        index, options = len(blocks), {}
        if layer.kind == "linear":
            values, lines = _linear(layer, values)
            options = {"features": layer.widths[1]} | ({} if "bias" in values else {"bias": False})
            notes += lines
        elif layer.kind in ("batch_norm", "layer_norm"):
            options, line = _norm(layer, norm_epsilon, epsilon)
            notes.append(line)
            if layer.kind == "batch_norm":
                counted = layer.tensors.get("num_batches_tracked", torch.tensor(0)).to(torch.int64)
                values["num_batches_tracked"] = counted.reshape(())
        elif layer.kind == "standardize":
            where = layer.path or layer.names[0]
            std, line = std_of(layer.source, where, values["spread"], epsilon)
            notes.append(f"{line}{'; it comes first' if index == 0 else ''}")
            values = {"mean": _row(values["mean"], width), "std": _row(std, width)}
        elif layer.kind == "scale":
            notes.append(f"{', '.join(layer.names)}: taken as x·factor + offset per feature")
            values = {"factor": _row(values["factor"], width), "offset": _row(values.get("offset"), width)}
        blocks.append({layer.kind: options} if options else layer.kind)
        weights |= {f"{index}.{role}": value for role, value in values.items()}
        blocks += following
        width = layer.widths[1] or width
    return blocks, weights, notes


def _linear(layer: Layer, values: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    if "weight_v" not in values:
        return values, []
    weight = torch.ops.aten._weight_norm.default(values.pop("weight_v"), values.pop("weight_g"), 0)
    return {"weight": weight, **values}, [f"{layer.path}: weight norm is folded, g·v/‖v‖ as torch computes it"]


def _norm(layer: Layer, epsilon: float | None, given: float | None) -> tuple[dict[str, object], str]:
    options: dict[str, object] = {} if epsilon is None else {"eps": epsilon}
    affine = "weight" in layer.tensors
    if layer.kind == "batch_norm" and not affine:
        options["affine"] = False
    like = (
        "" if layer.kind == "batch_norm" else ", taken as LayerNorm over all features (GroupNorm has the same tensors)"
    )
    if epsilon is not None:
        return options, f"{layer.path}: {layer.kind} with eps {epsilon:g}{like}"
    why = (
        "--epsilon went to the normaliser"
        if given is not None
        else "a checkpoint does not say; --epsilon gives another"
    )
    return options, f"{layer.path}: {layer.kind} with torch's eps {_TORCH_EPS:g} ({why}){like}"


def _row(value: torch.Tensor | None, width: int) -> torch.Tensor:
    return (torch.zeros(()) if value is None else value).reshape(-1).expand(width).contiguous()
