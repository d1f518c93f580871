"""``mlpx recover``: a checkpoint or an old ONNX file back into a spec and weights."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Device, Dtype, Html, Json, note, print_json
from .written import tell_written

if TYPE_CHECKING:
    from export import Recovery


def command(
    file: Annotated[Path, typer.Argument(help="A PyTorch checkpoint, a safetensors file or an ONNX file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.")],
    name: Annotated[str | None, typer.Option(help="The model's name; the file's if left out.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Where in the checkpoint the state dict is, as in model_state_dict.")
    ] = None,
    prefix: Annotated[
        list[str] | None,
        typer.Option(help="What the network's keys begin with, as in actor.; repeat for parts in their order."),
    ] = None,
    activation: Annotated[str | None, typer.Option(help="Of the hidden layers: relu, elu, leaky_relu:0.2 …")] = None,
    output_activation: Annotated[str | None, typer.Option(help="Behind the last layer: tanh, softmax, none …")] = None,
    activations: Annotated[
        str | None, typer.Option(help="One for each place that has one, by commas: relu,relu,none.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="The proportion of a Dropout behind every activation.")] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="What a normaliser adds to the variance or the deviation, as in 1e-5.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a TorchScript file, which can run code that lies in it.")
    ] = False,
    keep_shape: Annotated[
        bool, typer.Option("--keep-shape", help="Keep the input's shape and the Flatten of an ONNX file.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite another spec, or other weights, in the folder.")
    ] = False,
    dtype: Dtype = None,
    device: Device = "auto",
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Write spec.yaml and weights.safetensors of the network in FILE; of an ONNX file also a proved NAME.onnx."""
    from export import recover

    if activations == "":
        raise typer.BadParameter("--activations takes one for each place: relu,relu,none")
    recovery = recover(
        file,
        output,
        device=device,
        page=html,
        replace=replace,
        name=name,
        key=key,
        prefix=tuple(prefix or ()),
        activation=activation,
        output_activation=output_activation,
        activations=[part.strip() for part in activations.split(",")] if activations is not None else None,
        dropout=dropout,
        epsilon=epsilon,
        dtype=dtype,
        trust=trust,
        keep_shape=keep_shape,
    )
    if as_json:
        print_json(_record(recovery))
        return
    for line in recovery.notes:
        note(f"note: {line}")
    print(f"recovered {recovery.spec_path}, {recovery.weights_path.name}")
    print(f"network   {_chain(recovery)}")
    if recovery.artifact is None or recovery.report is None:
        print(f"next      mlpx build {recovery.spec_path}")
        return
    print(f"original  {file} is proved to be this network, layer by layer")
    tell_written(recovery.artifact, recovery.report, False)
    print(f"          old and new file differ by at most {recovery.apart:.2g} on {recovery.rows:,} rows")


def _chain(recovery: "Recovery") -> str:
    """The network in one line: its widths and blocks."""
    spec = recovery.spec
    blocks = [f"linear {dict(block)['features']}" if block.kind == "linear" else block.kind for block in spec.blocks]
    return " → ".join([" x ".join(map(str, spec.input.row_shape)), *blocks])


def _record(recovery: "Recovery") -> dict[str, object]:
    reports = {
        name: json.loads(report.model_dump_json()) if report is not None else None
        for name, report in (("original", recovery.original), ("parity", recovery.report))
    }
    artifact = recovery.artifact
    return {
        "spec_path": recovery.spec_path,
        "weights_path": recovery.weights_path,
        "spec": recovery.spec.model_dump(exclude_none=True),
        "notes": recovery.notes,
        "path": artifact.path if artifact is not None else None,
        "proved": artifact is not None and artifact.proved,
        "apart": recovery.apart,
        "rows": recovery.rows,
        **reports,
    }
