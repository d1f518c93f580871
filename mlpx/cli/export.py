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
)
from .written import tell_written


def command(
    module: Annotated[str, typer.Argument(help="package.module:factory or path/to/file.py:name. Its code is run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write, ending in .onnx.")],
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="The shape of a row where no layer shows it: 12, or 1x28x28; obs=12 for one of several inputs."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; the file's if left out.")] = None,
    input_name: Annotated[
        list[str] | None, typer.Option(help="The input's name in the file; repeat for several, in the forward's order.")
    ] = None,
    output_name: Annotated[
        list[str] | None, typer.Option(help="The output's name in the file; repeat for several, as they are returned.")
    ] = None,
    method: Annotated[str, typer.Option(help="The method that is called.")] = "forward",
    weights: Annotated[
        Path | None, typer.Option(help="Trained weights to load into it, safetensors or torch.save.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the random weights, where MODULE is a class and no weights are given.")
    ] = None,
    integers: Annotated[
        list[str] | None,
        typer.Option(help="An input that takes whole numbers (int64), by its name; repeat for several."),
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
    """Write MODULE, as it computes in evaluation mode, to an ONNX file, and prove it."""
    from export import load_module, publish

    artifact, report = publish(
        load_module(module, weights=weights, seed=seed),
        output,
        data=data,
        device=device,
        page=html,
        name=name,
        input_shape=_shapes(features or []),
        input_name=input_name or (),
        output_name=output_name or (),
        input_dtype=dict.fromkeys(integers, "int64") if integers else None,
        method=method,
        fold_affine=fold_affine,
        dtype=dtype,
        external_data=external_data or None,
        opset=opset,
        ir_version=ir_version,
        target=target,
    )
    tell_written(artifact, report, as_json, module=module)


def _shapes(given: list[str]) -> dict[str, tuple[int, ...]] | tuple[int, ...] | None:
    """``12`` or ``1x28x28``, or the same after an input's name; plain numbers are dimensions."""
    named: dict[str, tuple[int, ...]] = {}
    plain: tuple[int, ...] = ()
    for text in given:
        name, equals, shape = text.rpartition("=")
        try:
            sizes = tuple(int(size) for size in shape.split("x"))
        except ValueError:
            message = f"'{text}' is no shape; expected 12, 1x28x28 or NAME=12"
            raise typer.BadParameter(message, param_hint="--features") from None
        if equals:
            named[name] = sizes
        else:
            plain += sizes
    if named and plain:
        raise typer.BadParameter("give every input's shape by its name", param_hint="--features")
    return named or plain or None
