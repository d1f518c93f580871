"""``mlpx build``: a spec and its weights into an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Data, Device, Dtype, ExternalData, FoldAffine, Html, IrVersion, Json, Opset, Target
from .sources import Weights, network
from .written import tell_written


def command(
    spec: Annotated[Path, typer.Argument(help="The spec: a .yaml, .json or .toml file.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to write to; out/NAME if left out.")
    ] = None,
    weights: Weights = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Use random weights from this seed instead of trained ones."),
    ] = None,
    data: Data = None,
    device: Device = "auto",
    dtype: Dtype = None,
    fold_affine: FoldAffine = False,
    external_data: ExternalData = False,
    opset: Opset = None,
    ir_version: IrVersion = None,
    target: Target = None,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Build the network of SPEC with its weights, prove the file, and write it to NAME.onnx, ready for a server."""
    from export import publish

    if seed is not None and weights is not None:
        raise typer.BadParameter("give --weights or --seed, not both")
    described, module, source = network(spec, weights, random=seed, dtype=dtype)
    folder = output or Path("out") / described.name
    artifact, report = publish(
        module,
        folder / f"{described.name}.onnx",
        data=data,
        device=device,
        dtype=dtype,
        page=html,
        spec=described,
        fold_affine=fold_affine,
        external_data=external_data or None,
        opset=opset,
        ir_version=ir_version,
        target=target,
    )
    assert report is not None
    tell_written(artifact, report, as_json, weights=source)
