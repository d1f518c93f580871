"""``mlpx inspect``: what a file holds."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Dtype, Json, print_aligned, print_json

_MOST_NAMES = 12

if TYPE_CHECKING:
    from export import Inspection
    from runtime import Port


def command(
    file: Annotated[Path, typer.Argument(help="An ONNX file, of mlpx or of any other tool.")],
    data: Annotated[
        Path | None, typer.Option(help="Rows to count dead ReLU units on (.npy, .npz, .csv, .parquet).")
    ] = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Show the name, inputs, outputs, blocks, figures, metadata and remarks of FILE."""
    from export.inspection import inspect

    found = inspect(file, data=data, dtype=dtype)
    if as_json:
        summary = found.summary
        totals = {"parameters": summary.parameters, "multiply_adds": summary.multiply_adds}
        print_json(asdict(found) | totals)
    else:
        _tell(found)


def _tell(found: "Inspection") -> None:
    summary = found.summary
    writer = f"mlpx {summary.mlpx_version}" if found.own else "another tool"
    print(f"{summary.name}, written by {writer}")
    print_aligned(
        [("file", f"{found.path} ({found.size:,} bytes)")]
        + [("input", _port(port)) for port in summary.inputs]
        + [("output", _port(port)) for port in summary.outputs]
        + [
            (
                "opset",
                f"{summary.opset}, IR {summary.ir_version}" + (f", for {summary.target}" if summary.target else ""),
            )
        ]
        + [("size", f"{summary.parameters:,} parameters, {summary.multiply_adds:,} multiply-adds a row")]
        + ([("weights", f"sha256 {summary.weights_sha256}")] if summary.weights_sha256 else [])
        + [("metadata", f"{key} = {value}") for key, value in summary.metadata.items()]
    )
    print("blocks")
    heads = [("path", "block", "shape of a row", "parameters", "multiply-adds")]
    print_aligned(
        heads + [(b.path, b.op, _shape(b.output_shape), b.parameters, b.multiply_adds) for b in summary.blocks]
    )
    for title, lines in (("folded", summary.folded), ("remarks", summary.remarks)):
        if lines:
            print(title)
        for line in lines:
            print(f"  {line}")
    if found.dead is not None:
        print(f"dead ReLU units, over {found.rows:,} rows")
        if not found.dead:
            print("  the file has no ReLU")
        for layer in found.dead:
            listed = f": {', '.join(map(str, layer.units))}" if layer.units else ""
            print(f"  {layer.path}: {len(layer.units)} of {layer.width}{listed}")


def _shape(shape: tuple[int | str, ...] | None) -> str:
    return "?" if shape is None else " x ".join(map(str, shape)) or "scalar"


def _port(port: "Port") -> str:
    text = f"{port.name} ({', '.join(map(str, port.shape))}) {port.dtype}"
    if port.range is not None:
        text += f", range {port.range[0]:g} to {port.range[1]:g}"
    if port.features is not None:
        names = port.features
        listed = f"{names[0]} to {names[-1]}" if len(names) > _MOST_NAMES else ", ".join(names)
        text += f", named {listed}"
    if port.labels is not None:
        text += f", {port.scores} of {', '.join(port.labels)}"
    return text
