"""The layers of a state dict, recognised by names and shapes, and the std that a normaliser's statistics mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import torch

from builder.errors import RecoveryError

_WEIGHT_NORM = {"weight_g": "weight_g", "weight_v": "weight_v", "original0": "weight_g", "original1": "weight_v"}
_QUANTISED = "quantised; what to recover is the float model"
_FOREIGN = (
    (r"weight_(ih|hh)(_l\d+)?(_reverse)?$", "a recurrent cell (LSTM, GRU or RNN)"),
    (r"in_proj_weight$|q_proj_weight$", "attention"),
    (r"_packed_params|^zero_point$", _QUANTISED),
    (r"weight_(orig|mask)$", "pruned or spectrally normed; what to do: prune.remove or remove_spectral_norm"),
    (r"original\d*$|_[uv]$", "parametrized; what to do: remove_parametrizations before saving"),
)
_PER_FEATURE_NAMES = ("scale", "gamma", "beta", "g", "gain")
_CONVOLUTIONS = {3: "a 1-D convolution", 4: "a 2-D convolution", 5: "a 3-D convolution"}
_UNCLEAR = "LayerNorm without a bias, RMSNorm or PReLU, which look alike in a checkpoint; the last two are not blocks"
_BATCH_NORM = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
_COUNTERS = ("count", "current_count", "num_batches_tracked", "until", "n", "num_updates")
"""Names of counters that are stored with statistics and say nothing about the network."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One module of a state dict: its dotted path, the block it is, and its tensors by role."""

    path: str
    kind: str
    """A block's name in a spec, or ``foreign`` for a module that a dense network does not have."""
    tensors: dict[str, torch.Tensor]
    names: tuple[str, ...]
    """The names of all its tensors in the state dict."""
    description: str = ""
    """What a foreign module is."""
    convention: str = ""
    """The names of a normaliser's mean and spread, which say how its std is computed."""

    @property
    def widths(self) -> tuple[int, int]:
        """The numbers of input and output features; 0 if one number stands for all features."""
        if self.kind == "linear":
            outputs, inputs = self.tensors["weight" if "weight" in self.tensors else "weight_v"].shape
            return inputs, outputs
        largest = max(tensor.numel() if tensor.dim() else 0 for tensor in self.tensors.values())
        return largest, largest

    @property
    def position(self) -> tuple[str, int | None]:
        """The container and the index in it, ``None`` for a named module: ``actor.2`` is ``("actor", 2)``."""
        container, _, last = self.path.rpartition(".")
        return (container, int(last)) if last.isdecimal() and len(last) < 7 else (self.path, None)

    @property
    def unindexed(self) -> bool:
        """Whether it is a normaliser or a scale whose position among the layers no index says."""
        return self.kind in ("standardize", "scale") and self.position[1] is None

    @property
    def title(self) -> str:
        """Its path, or the name of its first tensor if it is at the root."""
        return self.path or self.names[0]

    @property
    def prefix(self) -> str:
        """The ``--prefix`` that selects it."""
        return f"{self.path}." if self.path else self.names[0]


_FORMULAS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "std + epsilon": lambda std, epsilon: std + epsilon if epsilon else std,
    "sqrt(var) + epsilon": lambda var, epsilon: torch.sqrt(var) + epsilon,
    "sqrt(var + epsilon)": lambda var, epsilon: torch.sqrt(var + epsilon),
}
_VARIANCE = ("sqrt(var + epsilon)", "rl_games adds 1e-5 and gymnasium 1e-8", ())
_CONVENTIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "_mean/_std": ("std + epsilon", "rsl_rl adds 1e-2 by default", ("_var",)),
    "_mean/_var": _VARIANCE,
    "running_mean/running_variance": ("sqrt(var) + epsilon", "skrl adds 1e-8", ()),
    "running_mean/running_var": _VARIANCE,
    "running_mean/running_std": ("std + epsilon", "", ()),
    "mean/std": ("std + epsilon", "", ("var",)),
    "mean/var": _VARIANCE,
    "mean/variance": _VARIANCE,
}
"""By the names of mean and spread; the first match counts. How the std is computed, examples of the epsilon that it
requires (empty: none), and further tensors, which are left out."""
_STEMS = ("", "obs_", "observation_", "state_", "input_", "x_")
_SCALES = (
    *((f"{stem}scale", f"{stem}{offset}") for stem in ("action_", "output_") for offset in ("offset", "bias", "shift")),
    *(("scale", "offset"), ("scale", "shift"), ("factor", "offset")),  # scale and bias may be a LayerNorm's
    *(("action_scale",), ("output_scale",), ("factor",)),
)


def layers_of(tensors: Mapping[str, torch.Tensor]) -> tuple[list[Layer], list[str]]:
    """The layers in the order of the names, and the names of small tensors that belong to no layer."""
    modules: dict[str, dict[str, str]] = {}
    for name in tensors:
        path, _, leaf = name.rpartition(".")
        if leaf in ("original0", "original1") and path.endswith("parametrizations.weight"):
            path = path.removesuffix("parametrizations.weight").removesuffix(".")
        modules.setdefault(path, {})[_WEIGHT_NORM.get(leaf, leaf)] = name
    layers = [layer for path, names in modules.items() for layer in _split(path, names, tensors)]
    used = {name for layer in layers for name in layer.names}
    return layers, [name for names in modules.values() for name in names.values() if name not in used]


def _split(path: str, names: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> list[Layer]:
    """A module's own tensors as one layer, or as normalisers and scales; further tensors belong to no layer.

    ``names`` are those in the state dict, by the names in the module.
    """

    def layer(kind: str, roles: Mapping[str, str], description: str = "", convention: str = "") -> Layer:
        by_role = {role: tensors[names[leaf]] for role, leaf in roles.items()}
        return Layer(path, kind, by_role, tuple(names[leaf] for leaf in roles.values()), description, convention)

    rest = {leaf: tensors[name] for leaf, name in names.items()}
    own_names = {leaf: leaf for leaf in names}
    if (single := _single_layer(rest)) is not None:
        return [layer(single[0], own_names, single[1])]
    parts: list[Layer] = []
    for kind, roles, further, convention in _layers_by_name():
        if _are_per_feature(rest, *roles.values()):
            roles |= {leaf: leaf for leaf in further if leaf in rest}
            parts.append(layer(kind, roles, convention=convention))
            rest = {leaf: value for leaf, value in rest.items() if leaf not in roles.values()}
    for leaf, value in rest.items():
        description = _foreign_by_name([leaf])
        if description is None and leaf in _PER_FEATURE_NAMES and value.numel() > 1:
            description = "one number per feature with a meaning only the code knows (RMSNorm, LayerNorm, layer scale)"
        if description is not None:
            return [layer("foreign", own_names, description)]
    if any(sum(size > 1 for size in value.shape) > 1 for value in rest.values()):
        description = "not the weight of a Linear: a matrix with a meaning only the code knows"
        parts.insert(0, layer("foreign", {leaf: leaf for leaf in rest}, description))
    return parts


def _unsupported_tensor(value: torch.Tensor) -> str:
    """Why a tensor is not a dense one of real numbers, or an empty string."""
    if value.is_quantized:
        return _QUANTISED
    if value.layout != torch.strided or value.is_meta or value.is_complex() or value.is_nested:
        return f"{value.dtype}, {value.layout}, on {value.device}; a dense tensor of real numbers is expected"
    return "empty" if value.numel() == 0 else ""


def _foreign_by_name(leaves: Iterable[str]) -> str | None:
    """The module that the first name indicates which a dense network does not have."""
    return next((description for leaf in leaves for pattern, description in _FOREIGN if re.search(pattern, leaf)), None)


def _single_layer(values: dict[str, torch.Tensor]) -> tuple[str, str] | None:
    """The kind and the description of the one layer that the tensors are; ``None`` if they are not one layer."""
    leaves = values.keys()
    if problem := next((why for value in values.values() if (why := _unsupported_tensor(value))), ""):
        return "foreign", problem
    if {"weight_g", "weight_v"} <= leaves:
        if leaves - {"weight_g", "weight_v", "bias"} or values["weight_v"].dim() != 2:
            return "foreign", "weight-normed, and not a plain Linear"
        if values["weight_g"].shape != (values["weight_v"].shape[0], 1):
            return "foreign", "weight-normed along another dimension than 0"
        return "linear", ""
    if {"running_mean", "running_var"} <= leaves and ("weight" in leaves or "num_batches_tracked" in leaves):
        shapes = {tuple(values[leaf].shape) for leaf in leaves - {"num_batches_tracked"}}
        per_feature = len(shapes) == 1 and values["running_mean"].dim() == 1
        if leaves <= _BATCH_NORM and per_feature and ("weight" in leaves) == ("bias" in leaves):
            return "batch_norm", ""
        return "foreign", "like a BatchNorm1d, but its tensors do not fit one"
    if "weight" not in leaves:
        return None
    weight, bias, surplus = values["weight"], values.get("bias"), sorted(leaves - {"weight", "bias"})
    if weight.dim() >= 3:
        return "foreign", _CONVOLUTIONS.get(weight.dim(), f"a tensor of {weight.dim()} dimensions")
    foreign = _foreign_by_name(surplus)
    if surplus and (foreign or weight.dim()):
        return "foreign", foreign or f"not a plain layer: besides the weight it has {', '.join(surplus)}"
    if weight.dim() == 2 and (bias is None or bias.shape == weight.shape[:1]):
        return "linear", ""
    if weight.dim() == 1 and bias is not None and bias.shape == weight.shape:
        return "layer_norm", ""
    return "foreign", _UNCLEAR if bias is None else f"not a plain layer: its bias is {list(bias.shape)}"


def _layers_by_name() -> Iterator[tuple[str, dict[str, str], tuple[str, ...], str]]:
    """Normalisers and learned scales: kind, names of the tensors by role, names of further tensors, convention."""
    for stem, (convention, (_, _, unused)) in product(_STEMS, _CONVENTIONS.items()):
        mean, spread = (stem + leaf for leaf in convention.split("/"))
        further = (*_COUNTERS, *(stem + leaf for leaf in unused))
        yield "standardize", {"mean": mean, "spread": spread}, further, convention
    for leaves in _SCALES:
        yield "scale", dict(zip(("factor", "offset"), leaves, strict=False)), (), ""


def _are_per_feature(values: Mapping[str, torch.Tensor], *leaves: str) -> bool:
    """Whether these tensors exist, as numbers or one number per feature, (n) or (1, n), of one width."""
    tensors = [values[leaf] for leaf in leaves if leaf in values]
    rows = all(tensor.dim() == 0 or tensor.numel() == tensor.shape[-1] for tensor in tensors)
    return len(tensors) == len(leaves) and rows and len({t.numel() for t in tensors if t.dim()}) <= 1


def std_of(layer: Layer, spread: torch.Tensor, epsilon: float | None) -> tuple[torch.Tensor, str]:
    """The std that a normaliser divides by, in float32 as its own code computes it, and a note.

    Raises RecoveryError: an epsilon is required and missing, or the std is not positive.
    """
    formula, examples, _ = _CONVENTIONS[layer.convention]
    if epsilon is None and examples:
        message = f"divides by {formula}, and a checkpoint does not say which epsilon ({examples})"
        hint = "What to do: add --epsilon with the value in the code, 0 for none"
        raise RecoveryError(f"{layer.title} {message}. {hint}")
    std = _FORMULAS[formula](spread, epsilon or 0.0)
    invalid = (~(std > 0) | std.isinf()).nonzero()
    if len(invalid):
        feature, name = int(invalid[0, -1]) if std.dim() else 0, layer.convention.partition("/")[2]
        message = f"{name} of feature {feature} is {spread.flatten()[feature].item()!r}, which gives no positive std."
        hint = " What to do: add --epsilon with the value that the code adds" if not epsilon else ""
        raise RecoveryError(f"{layer.title}: {message}{hint}")
    if epsilon is None:
        return std, f"{layer.title}: its std is taken as it is; --epsilon adds what the code adds to it"
    return std, f"{layer.title}: it divides by {formula}, with epsilon {epsilon:g}"
