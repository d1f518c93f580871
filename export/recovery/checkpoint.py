"""Recovers the spec and the weights of a PyTorch checkpoint. What a checkpoint does not say is never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from builder.assembly import converted
from builder.errors import RecoveryError

from .activation_slots import Hints, fill_slots
from .checkpoint_file import Contents, archive_records, is_torchscript, read_contents
from .checkpoint_layers import Layer, std_of
from .left_out import left_out
from .normaliser_file import normaliser_of
from .recovered import Recovered, Step, network_of, refusals_of
from .selection import select
from .torchscript import read_torchscript

_MAX_COPIES = 8
_TORCHSCRIPT = (
    "a TorchScript archive: a program with its weights; loading it can run code that it contains."
    " What to do: if you trust its source, add --trust; else ask for the state dict"
)
_ROLES = (
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
    normalizer: str | Path | None = None,
) -> Recovered:
    """The dense network in a ``torch.save``, safetensors or TorchScript file: its spec and its weights.

    ``key`` is the dotted name of a state dict in the file; ``prefix`` selects the network's names in it, or those of
    its parts in order. ``activation`` follows every hidden layer; ``activations`` gives one per place;
    ``output_activation`` comes last. ``epsilon`` is what a normaliser adds, or else what norm layers add.
    ``dtype="float32"`` allows rounding values of another dtype. ``trust`` allows loading a TorchScript file, which can
    run its code. ``normalizer`` is a file with the statistics of a normaliser that is not in the checkpoint.

    Raises RecoveryError: a file that cannot be read or is refused, no dense network in it, or more than one.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from export import read_checkpoint
        >>> trained = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> torch.save(trained.state_dict(), "trained.pt")
        >>> recovered = read_checkpoint("trained.pt", activation="relu")
        >>> [block.kind for block in recovered.spec.blocks]
        ['linear', 'relu', 'linear']
    """
    path = Path(path)
    prefix = (prefix,) if isinstance(prefix, str) else tuple(prefix)
    with refusals_of(path):
        check_options(epsilon, dropout, dtype)
        records = archive_records(path)
        if is_torchscript(records):
            surplus = {"--key": key, "--prefix": prefix or None, "--activation": activation, "--epsilon": epsilon}
            surplus |= {"--output-activation": output_activation, "--activations": activations, "--dropout": dropout}
            options = [option for option, value in surplus.items() if value is not None]
            if not trust:
                raise RecoveryError(_TORCHSCRIPT)
            if options:
                raise RecoveryError(f"a TorchScript archive defines its layers itself; leave out {', '.join(options)}")
            return read_torchscript(path, name, input_name, output_name)
        hints = Hints(activation, output_activation, activations, dropout)
        contents = read_contents(path, records)
        layers = read_layers(path, contents, key, prefix, hints, epsilon, dtype)
        source = {"name": input_name, "features": layers.features}
        steps, said = layers.steps, list[str]()
        if normalizer is not None:
            if any(step.kind == "standardize" for step in steps):
                raise RecoveryError(
                    f"--normalizer {normalizer}: the network has a normaliser. What to do: leave it out"
                )
            front, said = normaliser_of(Path(normalizer), layers.features)
            steps = [*front, *steps]
        return network_of(steps, path, name, source, {"name": output_name}, [*said, *layers.notes])


def check_options(epsilon: float | None, dropout: float | None, dtype: str | None) -> None:
    """Raise RecoveryError for an option of ``read_checkpoint`` that is outside its range."""
    if dtype not in (None, "float32"):
        raise RecoveryError(f"dtype is 'float32' or left out, not {dtype!r}")
    for option, number in (("--epsilon", epsilon), ("--dropout", dropout)):
        if number is not None and not 0 <= number <= 1:
            raise RecoveryError(f"{option} {number}: expected a number from 0 to 1")


@dataclass(frozen=True)
class Layers:
    """The network of a checkpoint: its blocks in order, and its numbers of features."""

    steps: list[Step]
    features: int
    notes: list[str]

    @property
    def widths(self) -> list[int]:
        """The numbers of outputs of the linear layers, in order."""
        return [len(step.tensors["weight"]) for step in self.steps if step.kind == "linear"]


def read_layers(
    path: Path,
    contents: Contents,
    key: str | None,
    prefix: Sequence[str],
    hints: Hints,
    epsilon: float | None,
    dtype: str | None,
) -> Layers:
    """The blocks of the network that a checkpoint holds; the arguments are those of ``read_checkpoint``.

    Raises RecoveryError, without the path.
    """
    notes: list[str] = []
    selection = select(contents, key, prefix, notes)
    notes += left_out(contents, selection, key, prefix)
    layers = selection.chosen
    needed, size = sum(t.numel() * 4 for layer in layers for t in layer.tensors.values()), path.stat().st_size
    if needed > _MAX_COPIES * size:  # many names of the same few bytes would make a network that exhausts memory
        shared = f"{len(contents.tensors)} tensors share {size:,} bytes"
        raise RecoveryError(f"refused: {shared}, and need {needed:,} as a network")
    after = fill_slots(layers, hints, notes)
    kinds = {layer.kind for layer in layers}
    if epsilon is not None and kinds <= {"linear", "scale"}:
        raise RecoveryError(f"--epsilon {epsilon:g}: no normaliser, BatchNorm or LayerNorm is in the network")
    steps: list[Step] = []
    for layer, following in zip(layers, after, strict=True):
        values = {
            role: converted(path, f"{layer.path}.{role}".lstrip("."), tensor, torch.float32, dtype)
            for role, tensor in layer.tensors.items()
            if role in _ROLES
        }
        step, note = _step(layer, values, epsilon, "standardize" in kinds)
        if note:
            notes.append(note if steps or layer.kind != "standardize" else f"{note}; it comes first")
        steps += [step, *following]
    first = next(step for step in steps if any(tensor.dim() for tensor in step.tensors.values()))
    sizes = [tensor.numel() for tensor in first.tensors.values()]
    features = first.tensors["weight"].shape[1] if first.kind == "linear" else max(sizes)
    return Layers(steps, features, notes)


def _step(
    layer: Layer, values: dict[str, torch.Tensor], epsilon: float | None, normalised: bool
) -> tuple[Step, str | None]:
    """A layer's block with its values, and a note. If there is a normaliser, the epsilon is the normaliser's alone."""
    if layer.kind == "linear":
        if "weight_v" not in values:
            return Step("linear", values), None
        weight = torch.ops.aten._weight_norm.default(values.pop("weight_v"), values.pop("weight_g"), 0)
        note = f"{layer.path}: weight norm is folded, g·v/‖v‖ as torch computes it"
        return Step("linear", {"weight": weight, **values}), note
    if layer.kind == "standardize":
        std, note = std_of(layer, values["spread"], epsilon)
        return Step("standardize", {"mean": values["mean"], "std": std}), note
    if layer.kind == "scale":
        return Step("scale", values), f"{', '.join(layer.names)}: taken as x·factor + offset per feature"
    note = f"{layer.path}: {layer.kind} with torch's eps 1e-05"
    if epsilon is None:
        note += " (a checkpoint does not say; --epsilon gives another)"
    elif normalised:
        note += " (--epsilon is the normaliser's)"
    else:
        note = f"{layer.path}: {layer.kind} with eps {epsilon:g}"
    if layer.kind == "layer_norm":
        note += ", taken as LayerNorm over all features (GroupNorm has the same tensors)"
    if "num_batches_tracked" in layer.tensors:
        values["num_batches_tracked"] = layer.tensors["num_batches_tracked"].to(torch.int64)
    return Step(layer.kind, values, {} if epsilon is None or normalised else {"eps": epsilon}), note
