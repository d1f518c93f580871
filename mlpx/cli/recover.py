"""``mlpx recover``: a checkpoint or an old ONNX file back into a spec and weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter

from .options import Device, Dtype, Json, Page
from .proving import tell_written
from .terminal import note, print_json, tell


@dataclass
class Reading:
    """Options by their names in ``export.recover``."""

    name: Annotated[str | None, "The model's name; the file's if left out."] = None
    key: Annotated[str | None, "Where in the checkpoint the state dict is, as in model_state_dict."] = None
    prefix: Annotated[
        list[str] | None, "What the network's keys begin with, as in actor.; repeat for parts in their order."
    ] = None
    activation: Annotated[str | None, "Of the hidden layers: relu, elu, leaky_relu:0.2 …"] = None
    output_activation: Annotated[str | None, "Behind the last layer: tanh, softmax, none …"] = None
    activations: Annotated[str | None, "One for each place that has one, by commas: relu,relu,none."] = None
    dropout: Annotated[float | None, "The proportion of a Dropout behind every activation."] = None
    epsilon: Annotated[float | None, "What a normaliser adds to the variance or the deviation, as in 1e-5."] = None
    trust: Annotated[bool, "Load a TorchScript file, which can run code that lies in it."] = False
    keep_shape: Annotated[bool, "Keep the input's shape and the Flatten of an ONNX file."] = False
    replace: Annotated[bool, "Overwrite another spec, or other weights, in the folder."] = False
    dtype: Dtype = None
    device: Device = "auto"
    page: Page = None


def command(
    file: Annotated[Path, "A PyTorch checkpoint, a safetensors file or an ONNX file."],
    output: Annotated[Path, "The folder to write to."],
    options: Reading,
    as_json: Json = False,
) -> None:
    """Write spec.yaml and weights.safetensors of the network in FILE; of an ONNX file also a proved NAME.onnx."""
    from export import recover

    if options.activations == "":
        raise BadParameter("--activations takes one for each place: relu,relu,none")
    listed = [part.strip() for part in options.activations.split(",")] if options.activations is not None else None
    recovery = recover(file, output, **vars(options) | {"activations": listed, "prefix": tuple(options.prefix or ())})
    spec, artifact, report = recovery.spec, recovery.artifact, recovery.report
    if as_json:
        record: dict[str, Any] = {"spec_path": recovery.spec_path, "weights_path": recovery.weights_path}
        record |= {"spec": spec.model_dump(exclude_none=True), "notes": recovery.notes}
        record |= {"path": artifact.path, "proved": artifact.proved} if artifact else {"path": None, "proved": False}
        record |= {"apart": recovery.apart, "rows": recovery.rows}
        print_json(record | {"original": recovery.original, "parity": report})
        return
    note(*(f"note: {line}" for line in recovery.notes))
    tell("recovered", f"{recovery.spec_path}, {recovery.weights_path.name}")
    blocks = [f"linear {dict(block)['features']}" if block.kind == "linear" else block.kind for block in spec.blocks]
    tell("network", " → ".join([" x ".join(map(str, spec.input.row_shape)), *blocks]))
    if artifact is None or report is None:
        tell("next", f"mlpx build {recovery.spec_path}")
        return
    tell("original", f"{file} is proved to be this network, layer by layer")
    tell_written(artifact, report, False)
    tell("", f"old and new file differ by at most {recovery.apart:.2g} on {recovery.rows:,} rows")
