"""``mlpx export``: a hand-written module into an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Data,
    Device,
    Dtype,
    ExternalData,
    FoldAffine,
    Html,
    IrVersion,
    Json,
    Opset,
    Target,
    note,
    print_json,
)
from .written import tell_written


def command(
    module: Annotated[str, typer.Argument(help="package.module:factory or path/to/file.py:name. Its code is run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write, ending in .onnx.")],
    features: Annotated[
        list[int] | None,
        typer.Option(help="Input features, where no first layer shows them; repeat for more dimensions."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; the file's if left out.")] = None,
    input_name: Annotated[str, typer.Option(help="The input's name in the file.")] = "input",
    output_name: Annotated[str, typer.Option(help="The output's name in the file.")] = "output",
    data: Data = None,
    device: Device = "auto",
    dtype: Dtype = None,
    fold_affine: FoldAffine = False,
    external_data: ExternalData = False,
    opset: Opset = None,
    ir_version: IrVersion = None,
    target: Target = None,
    fallback: Annotated[
        bool,
        typer.Option("--fallback", help="Let torch.onnx write NAME.unproved.onnx where no block fits; exit code 1."),
    ] = False,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Write MODULE, as it computes in evaluation mode, to an ONNX file, and prove it."""
    from export import load_module, publish
    from mlpx.errors import UNPROVED

    artifact, report = publish(
        load_module(module),
        output,
        data=data,
        device=device,
        page=html,
        name=name,
        input_shape=tuple(features) if features else None,
        input_name=input_name,
        output_name=output_name,
        fold_affine=fold_affine,
        dtype=dtype,
        external_data=external_data or None,
        opset=opset,
        ir_version=ir_version,
        target=target,
        fallback=fallback,
    )
    if report is None:
        if as_json:
            print_json({"path": artifact.path, "bytes": artifact.size, "proved": False, "exporter": "torch.onnx"})
        note(f"torch.onnx wrote {artifact.path} ({artifact.size:,} bytes), not proved, since: {artifact.reason}")
        raise typer.Exit(UNPROVED)
    tell_written(artifact, report, as_json, module=module)
