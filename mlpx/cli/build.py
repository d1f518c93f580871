"""``mlpx build``: a spec and its weights into an ONNX file."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Dtype, ExternalData, FoldAffine, Json, note
from .written import tell_written


def command(
    spec: Annotated[Path, typer.Argument(help="The spec: a .yaml, .json or .toml file.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to write to; out/NAME if left out.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Trained weights, safetensors or torch.save; weights.safetensors beside the spec if left out."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Use random weights from this seed instead of trained ones."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Rows to compare on (.npy, .npz, .csv, .parquet).")] = None,
    device: Device = "auto",
    dtype: Dtype = None,
    fold_affine: FoldAffine = False,
    external_data: ExternalData = False,
    as_json: Json = False,
) -> None:
    """Build the network of SPEC with its weights, and write it to NAME.onnx, ready for an inference server."""
    from builder import WeightsError, assemble, load_spec, load_weights
    from export import publish

    described = load_spec(spec)
    beside = spec.parent / "weights.safetensors"
    source = weights if weights is not None else beside
    if seed is not None and weights is not None:
        raise typer.BadParameter("give --weights or --seed, not both")
    if seed is None and not source.is_file():
        hint = "give trained weights with --weights, or ask for random ones with --seed"
        raise WeightsError(f"{source}: no such file. What to do: {hint}")
    module = assemble(described, seed=seed or 0)
    if seed is None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            load_weights(module, source, dtype=dtype)
        for warning in said:
            note(f"note: {warning.message}")
    folder = output or Path("out") / described.name
    artifact, comparison = publish(
        module,
        folder / f"{described.name}.onnx",
        data=data,
        device=device,
        dtype=dtype,
        spec=described,
        fold_affine=fold_affine,
        external_data=external_data or None,
    )
    tell_written(artifact, comparison, as_json, weights=str(source) if seed is None else f"random from seed {seed}")
