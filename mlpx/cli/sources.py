"""The network that a command names by a spec and its weights."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import note

if TYPE_CHECKING:
    from torch import nn

    from builder import MLPSpec

Weights = Annotated[
    Path | None,
    typer.Option(help="Trained weights, safetensors or torch.save; weights.safetensors beside the spec if left out."),
]


def network(
    spec: Path, weights: Path | None, *, random: int | None = None, dtype: str | None = None, may_be_random: bool = True
) -> tuple["MLPSpec", "nn.Module", str]:
    """The spec, its network with weights, and where these came from; ``random`` is the seed of random ones."""
    from builder import WeightsError, assemble, load_spec, load_weights

    described = load_spec(spec)
    source = weights if weights is not None else spec.parent / "weights.safetensors"
    if random is None and not source.is_file():
        hint = "give trained weights with --weights"
        hint += ", or ask for random ones with --seed" if may_be_random else ""
        raise WeightsError(f"{source}: no such file. What to do: {hint}")
    module = assemble(described, seed=random or 0)
    if random is not None:
        return described, module, f"random from seed {random}"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load_weights(module, source, dtype=dtype)
    for warning in said:
        note(f"note: {warning.message}")
    return described, module, str(source)
