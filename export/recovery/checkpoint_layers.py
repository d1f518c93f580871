"""The layers whose tensors a state dict holds, told by names and shapes, and what a normaliser's statistics mean."""

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
_PER_FEATURE = ("scale", "gamma", "beta", "g", "gain")
_CONVOLUTIONS = {3: "a 1-D convolution", 4: "a 2-D convolution", 5: "a 3-D convolution"}
_OPEN = "LayerNorm without a bias, RMSNorm or PReLU, which a checkpoint does not tell apart; the last two are no blocks"
_BATCH_NORM = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
_COUNTERS = ("count", "current_count", "num_batches_tracked", "until", "n", "num_updates")
"""Names of the counters that lie beside statistics and say nothing about the network."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One module of a state dict: its dotted path, the block it is, and its tensors by role."""

    path: str
    kind: str
    """A block's name in a spec, or ``foreign`` for what is no layer of a dense network."""
    tensors: dict[str, torch.Tensor]
    names: tuple[str, ...]
    """The names of all its tensors in the state dict."""
    words: str = ""
    """What a foreign module is; of a normaliser, the names by which its convention is known."""

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

    @property
    def title(self) -> str:
        """Its path, or the name of its first tensor where it lies at the root."""
        return self.path or self.names[0]

    @property
    def prefix(self) -> str:
        """What ``--prefix`` selects it with."""
        return f"{self.path}." if self.path else self.names[0]


_FORMULAS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "std + epsilon": lambda std, epsilon: std + epsilon if epsilon else std,
    "sqrt(var) + epsilon": lambda var, epsilon: torch.sqrt(var) + epsilon,
    "sqrt(var + epsilon)": lambda var, epsilon: torch.sqrt(var + epsilon),
}
_VARIANCE = ("sqrt(var + epsilon)", "rl_games adds 1e-5 and gymnasium 1e-8", ())
_CONVENTIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "_mean/_std": ("std + epsilon", "rsl_rl adds 1e-2 unless told otherwise", ("_var",)),
    "_mean/_var": _VARIANCE,
    "running_mean/running_variance": ("sqrt(var) + epsilon", "skrl adds 1e-8", ()),
    "running_mean/running_var": _VARIANCE,
    "running_mean/running_std": ("std + epsilon", "", ()),
    "mean/std": ("std + epsilon", "", ("var",)),
    "mean/var": _VARIANCE,
    "mean/variance": _VARIANCE,
}
"""By the names of mean and spread, the first that fits first: how the std is computed, what an epsilon is asked with
(empty where the std is taken as it is), and what lies beside them and is left out."""
_STEMS = ("", "obs_", "observation_", "state_", "input_", "x_")
_SCALES = (
    *((f"{stem}scale", f"{stem}{offset}") for stem in ("action_", "output_") for offset in ("offset", "bias", "shift")),
    *(("scale", "offset"), ("scale", "shift"), ("factor", "offset")),  # scale and bias alone may be a LayerNorm's
    *(("action_scale",), ("output_scale",), ("factor",)),
)


def layers_of(tensors: Mapping[str, torch.Tensor]) -> tuple[list[Layer], list[str]]:
    """The layers in the order of the names, and the names of small tensors that belong to none."""
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
    """A module's own tensors as one layer, or as normalisers and scales beside tensors of no layer.

    ``names`` are those in the state dict, by the names in the module.
    """

    def layer(kind: str, roles: Mapping[str, str], words: str) -> Layer:
        by_role = {role: tensors[names[leaf]] for role, leaf in roles.items()}
        return Layer(path, kind, by_role, tuple(names[leaf] for leaf in roles.values()), words)

    rest = {leaf: tensors[name] for leaf, name in names.items()}
    itself = {leaf: leaf for leaf in names}
    if (whole := _whole(rest)) is not None:
        kind, words = whole
        return [layer(kind, itself, words)]
    parts: list[Layer] = []
    for kind, roles, beside, words in _told_by_name():
        if _per_feature(rest, *roles.values()):
            roles |= {leaf: leaf for leaf in beside if leaf in rest}
            parts.append(layer(kind, roles, words))
            rest = {leaf: value for leaf, value in rest.items() if leaf not in roles.values()}
    for leaf, value in rest.items():
        words = _named_foreign([leaf])
        if words is None and leaf in _PER_FEATURE and value.numel() > 1:
            words = "one number per feature that code uses in a way of its own (RMSNorm, LayerNorm, layer scale)"
        if words is not None:
            return [layer("foreign", itself, words)]
    if any(sum(size > 1 for size in value.shape) > 1 for value in rest.values()):
        words = "no weight of a Linear: a matrix that code uses in some way of its own"
        parts.insert(0, layer("foreign", {leaf: leaf for leaf in rest}, words))
    return parts


def _odd(value: torch.Tensor) -> str:
    """What makes a tensor no dense one of real numbers."""
    if value.is_quantized:
        return _QUANTISED
    if value.layout != torch.strided or value.is_meta or value.is_complex() or value.is_nested:
        return f"{value.dtype}, {value.layout}, on {value.device}; a dense tensor of real numbers is expected"
    return "empty" if value.numel() == 0 else ""


def _named_foreign(leaves: Iterable[str]) -> str | None:
    """What the first of the names that no dense network has speaks of."""
    return next((words for leaf in leaves for pattern, words in _FOREIGN if re.search(pattern, leaf)), None)


def _whole(values: dict[str, torch.Tensor]) -> tuple[str, str] | None:
    """The kind of the one layer that the tensors are, and its words; ``None`` where they are not one."""
    leaves = values.keys()
    if odd := next(filter(None, map(_odd, values.values())), ""):
        return "foreign", odd
    if {"weight_g", "weight_v"} <= leaves:
        if leaves - {"weight_g", "weight_v", "bias"} or values["weight_v"].dim() != 2:
            return "foreign", "weight-normed, and no plain Linear"
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
    recurrent = _named_foreign(surplus)
    if surplus and (recurrent or weight.dim()):
        return "foreign", recurrent or f"no plain layer: beside the weight it has {', '.join(surplus)}"
    if weight.dim() == 2 and (bias is None or bias.shape == weight.shape[:1]):
        return "linear", ""
    if weight.dim() == 1 and bias is not None and bias.shape == weight.shape:
        return "layer_norm", ""
    return "foreign", _OPEN if bias is None else f"no plain layer: its bias is {list(bias.shape)}"


def _told_by_name() -> Iterator[tuple[str, dict[str, str], tuple[str, ...], str]]:
    """Normalisers and learned scales: kind, names of the tensors by role, names that may lie beside them, words."""
    for stem, (convention, (_, _, dropped)) in product(_STEMS, _CONVENTIONS.items()):
        mean, spread = (stem + leaf for leaf in convention.split("/"))
        beside = (*_COUNTERS, *(stem + leaf for leaf in dropped))
        yield "standardize", {"mean": mean, "spread": spread}, beside, convention
    for leaves in _SCALES:
        yield "scale", dict(zip(("factor", "offset"), leaves, strict=False)), (), ""


def _per_feature(values: Mapping[str, torch.Tensor], *leaves: str) -> bool:
    """Whether these tensors are there, as numbers or one number per feature, (n) or (1, n), of one width."""
    tensors = [values[leaf] for leaf in leaves if leaf in values]
    rows = all(tensor.dim() == 0 or tensor.numel() == tensor.shape[-1] for tensor in tensors)
    return len(tensors) == len(leaves) and rows and len({t.numel() for t in tensors if t.dim()}) <= 1


def std_of(layer: Layer, spread: torch.Tensor, epsilon: float | None) -> tuple[torch.Tensor, str]:
    """The std that a normaliser divides by, in float32 as its own code computes it, and a note.

    Raises RecoveryError where an epsilon is needed and not given, or where no positive std comes out.
    """
    formula, asks, _ = _CONVENTIONS[layer.words]
    if epsilon is None and asks:
        message = f"divides by {formula}, and a checkpoint does not say which epsilon ({asks})"
        hint = "What to do: add --epsilon with the value of the code, 0 for none"
        raise RecoveryError(f"{layer.title} {message}. {hint}")
    std = _FORMULAS[formula](spread, epsilon or 0.0)
    wrong = (~(std > 0) | std.isinf()).nonzero()
    if len(wrong):
        feature, name = int(wrong[0, -1]) if std.dim() else 0, layer.words.partition("/")[2]
        message = f"{name} of feature {feature} is {spread.flatten()[feature].item()!r}, no std."
        hint = " What to do: add --epsilon with the value that the code adds" if not epsilon else ""
        raise RecoveryError(f"{layer.title}: {message}{hint}")
    if epsilon is None:
        return std, f"{layer.title}: its std is taken as it is; --epsilon adds what the code adds to it"
    return std, f"{layer.title}: it divides by {formula}, with epsilon {epsilon:g}"
