"""The network of a spec with its weights, as several commands load it."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import note

if TYPE_CHECKING:
    from torch import nn

    from builder import MLPSpec


def load_network(
    spec: Path, weights: Path | None, *, seed: int | None = None, dtype: str | None = None, may_be_random: bool = True
) -> tuple["MLPSpec", "nn.Module", str]:
    """The spec, its network with weights, and where these came from; with a ``seed`` they are random."""
    from builder import WeightsError, assemble, load_spec, load_weights
    from builder.assembly import refuse_too_large

    parsed = load_spec(spec)
    source = weights if weights is not None else spec.parent / "weights.safetensors"
    if seed is None and not source.is_file():
        hint = "give trained weights with --weights"
        hint += ", or ask for random ones with --seed" if may_be_random else ""
        raise WeightsError(f"{source}: no such file. What to do: {hint}")
    if seed is None:
        refuse_too_large(parsed, source)
    module = assemble(parsed, seed=seed or 0)
    if seed is not None:
        return parsed, module, f"random from seed {seed}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_weights(module, source, dtype=dtype)
    note(*(f"note: {warning.message}" for warning in caught))
    return parsed, module, str(source)
