"""The layers whose tensors a state dict holds, told by names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from .normalizers import scale_of, statistics_of

Kind = str
"""A block's name in a spec, or ``foreign`` for what is no layer of a dense network."""

_WEIGHT_NORM = {"weight_g": "weight_g", "weight_v": "weight_v", "original0": "weight_g", "original1": "weight_v"}
_FOREIGN = (
    (re.compile(r"weight_(ih|hh)(_l\d+)?(_reverse)?$"), "a recurrent cell (LSTM, GRU or RNN)"),
    (re.compile(r"in_proj_weight$|q_proj_weight$"), "attention"),
    (re.compile(r"_packed_params|^zero_point$"), "quantised; what to recover is the float model"),
    (
        re.compile(r"weight_(orig|mask)$"),
        "pruned or spectrally normed; what to do: prune.remove or remove_spectral_norm",
    ),
    (re.compile(r"original\d*$|_[uv]$"), "parametrized; what to do: remove_parametrizations before saving"),
)
_PER_FEATURE = re.compile(r"^(scale|gamma|beta|g|gain)$")
_CONVOLUTIONS = {3: "a 1-D convolution", 4: "a 2-D convolution", 5: "a 3-D convolution"}
_OPEN = "LayerNorm without a bias, RMSNorm or PReLU, which a checkpoint does not tell apart; the last two are no blocks"


@dataclass(frozen=True)
class Layer:
    """One module of a state dict: its dotted path, the block it is, and its tensors by role."""

    path: str
    kind: Kind
    tensors: dict[str, torch.Tensor]
    names: tuple[str, ...]
    """The names of all its tensors in the state dict."""
    words: str = ""
    """What a foreign module is."""
    source: str = field(default="", compare=False)
    """The convention that a normaliser's names follow."""

    @property
    def widths(self) -> tuple[int, int]:
        """The features that go in and those that come out; 0 where one number stands for all."""
        if self.kind == "linear":
            out, into = self.tensors["weight" if "weight" in self.tensors else "weight_v"].shape
            return into, out
        largest = max(tensor.numel() if tensor.dim() else 0 for tensor in self.tensors.values())
        return largest, largest

    @property
    def place(self) -> tuple[str, int | None]:
        """The container and the index in it, ``None`` for a named module: ``actor.2`` is ``("actor", 2)``."""
        container, _, last = self.path.rpartition(".")
        return (container, int(last)) if last.isdecimal() and len(last) < 7 else (self.path, None)

    @property
    def loose(self) -> bool:
        """Whether it is a normaliser or a scale whose place among the layers no index tells."""
        return self.kind in ("standardize", "scale") and self.place[1] is None


def layers_of(tensors: Mapping[str, torch.Tensor]) -> tuple[list[Layer], list[str]]:
    """The layers in the order of the names, and the names of small tensors that belong to none."""
    modules: dict[str, dict[str, str]] = {}
    for name in tensors:
        path, _, leaf = name.rpartition(".")
        if leaf in ("original0", "original1") and path.endswith("parametrizations.weight"):
            path = path.removesuffix("parametrizations.weight").removesuffix(".")
        modules.setdefault(path, {})[_WEIGHT_NORM.get(leaf, leaf)] = name
    layers: list[Layer] = []
    left: list[str] = []
    for path, leaves in modules.items():
        values = {leaf: tensors[name] for leaf, name in leaves.items()}
        for kind, roles, words in _split(values):
            used = {leaf: values[leaf] for leaf in roles.values()}
            names = tuple(leaves[leaf] for leaf in used)
            if kind == "":
                left.extend(names)
            else:
                source = words if kind == "standardize" else ""
                tensors_by_role = {role: values[leaf] for role, leaf in roles.items()}
                layers.append(Layer(path, kind, tensors_by_role, names, "" if source else words, source))
    return layers, left


_Part = tuple[Kind, dict[str, str], str]


def _split(values: dict[str, torch.Tensor]) -> list[_Part]:
    """A module's own tensors as one layer, or as a normaliser and a scale beside tensors of no layer."""
    odd = next((leaf for leaf, value in values.items() if _odd(value)), None)
    if odd is not None:
        return [_foreign(values, _odd(values[odd]))]
    whole = _whole(values)
    if whole is not None:
        return [whole]
    parts: list[_Part] = []
    rest = dict(values)
    for kind, find in (("standardize", statistics_of), ("scale", scale_of)):
        while (found := find(rest)) is not None:
            roles, words = found
            parts.append((kind, roles, words))
            rest = {leaf: value for leaf, value in rest.items() if leaf not in roles.values()}
    large = next((leaf for leaf, value in rest.items() if sum(size > 1 for size in value.shape) > 1), None)
    for leaf in rest:
        words = next((words for pattern, words in _FOREIGN if pattern.search(leaf)), None)
        if words is None and _PER_FEATURE.search(leaf) and rest[leaf].numel() > 1:
            words = "one number per feature that code uses in a way of its own (RMSNorm, LayerNorm, layer scale)"
        if words is not None:
            return [_foreign(values, words)]
    if large is not None:
        return [_foreign(rest, "no weight of a Linear: a matrix that code uses in some way of its own"), *parts]
    return [*parts, *([("", {leaf: leaf for leaf in rest}, "")] if rest else [])]


def _whole(values: dict[str, torch.Tensor]) -> _Part | None:
    leaves = values.keys()
    if {"weight_g", "weight_v"} <= leaves:
        if leaves - {"weight_g", "weight_v", "bias"} or values["weight_v"].dim() != 2:
            return _foreign(values, "weight-normed, and no plain Linear")
        if values["weight_g"].shape != (values["weight_v"].shape[0], 1):
            return _foreign(values, "weight-normed along another dimension than 0")
        return "linear", {leaf: leaf for leaf in values}, ""
    if {"running_mean", "running_var"} <= leaves and ("weight" in leaves or "num_batches_tracked" in leaves):
        known = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
        fits = len({tuple(values[leaf].shape) for leaf in leaves - {"num_batches_tracked"}}) == 1
        if (
            leaves <= known
            and fits
            and ("weight" in leaves) == ("bias" in leaves)
            and values["running_mean"].dim() == 1
        ):
            return "batch_norm", {leaf: leaf for leaf in values}, ""
        return _foreign(values, "like a BatchNorm1d, but its tensors do not fit one")
    if "weight" not in leaves:
        return None
    weight, surplus = values["weight"], sorted(leaves - {"weight", "bias"})
    if weight.dim() >= 3:
        return _foreign(values, _CONVOLUTIONS.get(weight.dim(), f"a tensor of {weight.dim()} dimensions"))
    recurrent = next((words for leaf in surplus for pattern, words in _FOREIGN if pattern.search(leaf)), None)
    if surplus and (recurrent or weight.dim()):
        return _foreign(values, recurrent or f"no plain layer: beside the weight it has {', '.join(surplus)}")
    bias = values.get("bias")
    if weight.dim() == 2 and (bias is None or bias.shape == weight.shape[:1]):
        return "linear", {leaf: leaf for leaf in values}, ""
    if weight.dim() == 1 and bias is not None and bias.shape == weight.shape:
        return "layer_norm", {leaf: leaf for leaf in values}, ""
    return _foreign(values, _OPEN if bias is None else f"no plain layer: its bias is {list(bias.shape)}")


def _foreign(values: dict[str, torch.Tensor], words: str) -> _Part:
    return "foreign", {leaf: leaf for leaf in values}, words


def _odd(value: torch.Tensor) -> str:
    if value.is_quantized:
        return "quantised; what to recover is the float model"
    if value.layout != torch.strided or value.is_meta or value.is_complex() or value.is_nested:
        return f"{value.dtype}, {value.layout}, on {value.device}; a dense tensor of real numbers is expected"
    return "empty" if value.numel() == 0 else ""
