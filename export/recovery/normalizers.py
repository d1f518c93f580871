"""A normaliser's statistics and an action's scale, told by names: what each means, and the std that it divides by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from builder.errors import RecoveryError

COUNTS = ("count", "current_count", "num_batches_tracked", "until", "n", "num_updates")
"""Names of the counters that lie beside statistics and say nothing about the network."""

Roles = dict[str, str]


@dataclass(frozen=True)
class _Convention:
    mean: str
    spread: str
    std: Callable[[torch.Tensor, float], torch.Tensor]
    formula: str
    asks: str = ""
    """What an epsilon is asked with; empty where the std is taken as it is."""
    drops: tuple[str, ...] = ()


def _of_variance(spread: torch.Tensor, epsilon: float) -> torch.Tensor:
    return torch.sqrt(spread + epsilon)


def _of_skrl(spread: torch.Tensor, epsilon: float) -> torch.Tensor:
    return torch.sqrt(spread) + epsilon


def _of_std(spread: torch.Tensor, epsilon: float) -> torch.Tensor:
    return spread + epsilon if epsilon else spread


_VARIANCE = "rl_games adds 1e-5 and gymnasium 1e-8"
_CONVENTIONS = (
    _Convention("_mean", "_std", _of_std, "std + epsilon", "rsl_rl adds 1e-2 unless told otherwise", ("_var",)),
    _Convention("_mean", "_var", _of_variance, "sqrt(var + epsilon)", _VARIANCE),
    _Convention("running_mean", "running_variance", _of_skrl, "sqrt(var) + epsilon", "skrl adds 1e-8"),
    _Convention("running_mean", "running_var", _of_variance, "sqrt(var + epsilon)", _VARIANCE),
    _Convention("running_mean", "running_std", _of_std, "std + epsilon"),
    _Convention("mean", "std", _of_std, "std + epsilon", "", ("var",)),
    _Convention("mean", "var", _of_variance, "sqrt(var + epsilon)", _VARIANCE),
    _Convention("mean", "variance", _of_variance, "sqrt(var + epsilon)", _VARIANCE),
)
_STEMS = ("", "obs_", "observation_", "state_", "input_", "x_")
_SCALES = (
    *((f"{stem}scale", f"{stem}{offset}") for stem in ("action_", "output_") for offset in ("offset", "bias", "shift")),
    *(("scale", "offset"), ("scale", "shift"), ("factor", "offset")),  # scale and bias alone may be a LayerNorm's
)
_FACTORS = ("action_scale", "output_scale", "factor")


def statistics_of(values: Mapping[str, torch.Tensor]) -> tuple[Roles, str] | None:
    """The roles (mean, spread) of a module's tensors that are a normaliser's, and the convention's name."""
    for stem in _STEMS:
        for convention in _CONVENTIONS:
            mean, spread = stem + convention.mean, stem + convention.spread
            if mean in values and spread in values and _per_feature(values[mean], values[spread]):
                roles = {"mean": mean, "spread": spread}
                roles |= {
                    leaf: leaf for leaf in (*COUNTS, *(stem + drop for drop in convention.drops)) if leaf in values
                }
                return roles, f"{convention.mean}/{convention.spread}"
    return None


def scale_of(values: Mapping[str, torch.Tensor]) -> tuple[Roles, str] | None:
    """The roles (factor, offset) of a module's tensors that are a learned scale's."""
    for factor, offset in _SCALES:
        if factor in values and offset in values and _per_feature(values[factor], values[offset]):
            return {"factor": factor, "offset": offset}, ""
    for factor in _FACTORS:
        if factor in values and _per_feature(values[factor]):
            return {"factor": factor}, ""
    return None


def std_of(source: str, path: str, spread: torch.Tensor, epsilon: float | None) -> tuple[torch.Tensor, str]:
    """The std that a normaliser divides by, in float32 as its own code computes it, and a note.

    Raises RecoveryError where an epsilon is needed and not given, or where no positive std comes out.
    """
    convention = next(c for c in _CONVENTIONS if f"{c.mean}/{c.spread}" == source)
    where = path or "the normaliser"
    if epsilon is None and convention.asks:
        raise RecoveryError(
            f"{where} divides by {convention.formula}, and a checkpoint does not say which epsilon ({convention.asks})."
            " What to do: add --epsilon with the value of the code, 0 for none"
        )
    std = convention.std(spread, epsilon or 0.0)
    wrong = (~(std > 0) | std.isinf()).nonzero()
    if len(wrong):
        feature, name = int(wrong[0, -1]) if std.dim() else 0, convention.spread
        hint = " What to do: add --epsilon with the value that the code adds" if not epsilon else ""
        raise RecoveryError(
            f"{where}: {name} of feature {feature} is {spread.flatten()[feature].item()!r}, no std.{hint}"
        )
    if epsilon is None:
        return std, f"{where}: its std is taken as it is; --epsilon adds what the code adds to it"
    return std, f"{where}: it divides by {convention.formula}, with epsilon {epsilon:g}"


def _per_feature(*values: torch.Tensor) -> bool:
    """Whether the tensors are numbers or one number per feature, (n) or (1, n), of one width."""
    rows = all(value.dim() == 0 or value.numel() == value.shape[-1] for value in values)
    return rows and len({value.numel() for value in values if value.dim()}) <= 1
