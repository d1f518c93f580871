"""The commands that make a file: ``mlpx build``, ``export`` and ``recover``; and ``mlpx schema``, of a spec."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import BadParameter

from .contracts import show_comparison
from .networks import load_network
from .options import Describe, Device, Dtype, Json, Name, Page, PublishOptions, Weights, refuse
from .proving import print_proof
from .terminal import note, note_left_out_last, print_command, print_field, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from export import Artifact, ParityReport
    from runtime import Port


def build(
    spec: Annotated[Path, "The spec: a .yaml, .json or .toml file."],
    output: Annotated[Path | None, "FOLDER", "The folder to write to; default: out/NAME."] = None,
    weights: Weights = None,
    seed: Annotated[int | None, "Seed of random weights, used instead of trained ones.", 0, 2**63 - 1] = None,
    *,
    options: PublishOptions,
    as_json: Json = False,
) -> None:
    """Build the network of SPEC with its weights, prove the file, and write it to NAME.onnx, ready for a server."""
    from export import publish

    if seed is not None and weights is not None:
        raise BadParameter("give --weights or --seed, not both")
    parsed, module, source = load_network(spec, weights, seed=seed, dtype=options.dtype)
    file = (output or Path("out") / parsed.name) / f"{parsed.name}.onnx"
    artifact, report = publish(module, file, spec=parsed, **vars(options))
    _print_artifact(artifact, report, as_json, weights=source)


def schema(
    output: Annotated[Path | None, "The file to write; default: standard output."] = None,
    as_json: Json = False,
) -> None:
    """Write the JSON Schema of a spec, for editors that complete and check it."""
    from builder import json_schema
    from runtime import write_whole

    record = json_schema()
    if output is None:
        print_json(record)
        return
    write_whole(output, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    if as_json:
        print_json({"path": output})
    else:
        note(f"written to {output}")


def export(
    module: Annotated[str, "package.module:factory or path/to/file.py:name. Its code is run."],
    output: Annotated[Path, "The file to write, ending in .onnx."],
    features: Annotated[
        list[str] | None,
        "SHAPE",
        "The shape of a row, where no layer gives it: 12 or 1x28x28; obs=12 for one of several inputs.",
    ] = None,
    name: Name = None,
    input_name: Annotated[
        list[str] | None,
        "NAME",
        "The input's name in the file; repeat for several, in the order of the method's arguments.",
    ] = None,
    output_name: Annotated[
        list[str] | None, "NAME", "The output's name in the file; repeat for several, in the order they are returned."
    ] = None,
    method: Annotated[str, "NAME", "The method to export."] = "forward",
    weights: Annotated[Path | None, "Trained weights to load into MODULE, safetensors or torch.save."] = None,
    seed: Annotated[int | None, "Seed of random weights, where MODULE is a class and no weights are given.", 0] = None,
    integers: Annotated[
        list[str] | None, "NAME", "The name of an input of whole numbers (int64); repeat for several."
    ] = None,
    describe: Describe = None,
    *,
    options: PublishOptions,
    as_json: Json = False,
) -> None:
    """Write MODULE, in evaluation mode, to an ONNX file, and prove it."""
    from builder import load_port_specs
    from export import load_module, publish

    loaded = load_module(module, weights=weights, seed=seed)
    ports = {"input_shape": _shapes(features or []), "input_name": input_name or (), "output_name": output_name or ()}
    ports |= {"input_dtype": dict.fromkeys(integers, "int64") if integers else None}
    ports |= {"features": load_port_specs(describe) if describe is not None else None}
    artifact, report = publish(loaded, output, name=name, method=method, **ports, **vars(options))
    _print_artifact(artifact, report, as_json, module=module)


def _shapes(texts: list[str]) -> dict[str, tuple[int, ...]] | tuple[int, ...] | None:
    """The shapes of ``12``, ``1x28x28`` or ``NAME=12``; several plain numbers are the dimensions of one shape."""
    shapes: dict[Any, tuple[int, ...]] = {}  # by the input's name; None for plain numbers
    for text in texts:
        name, equals, shape = text.rpartition("=")
        try:
            sizes = tuple(int(size) for size in shape.split("x"))
        except ValueError:
            message = f"'{text}' is not a shape; expected 12, 1x28x28 or NAME=12"
            raise BadParameter(message, param_hint="--features") from None
        shapes |= {name: sizes} if equals else {None: shapes.get(None, ()) + sizes}
    if None in shapes and len(shapes) > 1:
        raise BadParameter("give every input's shape by its name", param_hint="--features")
    return shapes.get(None, shapes) or None


@dataclass
class RecoverOptions:
    """Options by their names in ``export.recover``."""

    name: Name = None
    key: Annotated[str | None, "KEY", "The key of the state dict in the checkpoint, such as model_state_dict."] = None
    prefix: Annotated[
        list[str] | None, "PREFIX", "The prefix of the network's keys, such as actor.; repeat for consecutive parts."
    ] = None
    activation: Annotated[str | None, "NAME", "The activation of the hidden layers: relu, elu, leaky_relu:0.2 …"] = None
    output_activation: Annotated[str | None, "NAME", "The activation after the last layer: tanh, softmax, none …"] = (
        None
    )
    activations: Annotated[str | None, "NAMES", "The activation of each slot, separated by commas: relu,relu,none."] = (
        None
    )
    dropout: Annotated[float | None, "SHARE", "The proportion of a Dropout after every activation."] = None
    epsilon: Annotated[float | None, "What a normaliser adds to the variance or the deviation, such as 1e-5."] = None
    trust: Annotated[bool, "Load a TorchScript file, which may run code stored in it."] = False
    keep_shape: Annotated[bool, "Keep the input's shape and the Flatten of an ONNX file."] = False
    replace: Annotated[bool, "Overwrite a different spec or different weights in the folder."] = False
    normalizer: Annotated[
        Path | None, "FILE", "An .npz file with the mean and var of a normaliser that the checkpoint does not hold."
    ] = None
    joints: Annotated[
        str | None, "NAMES", "The robot's joints in the order of the simulation: hip,knee or a file with a name a line."
    ] = None
    dtype: Dtype = None
    device: Device = "auto"
    page: Page = None


def recover(
    file: Annotated[Path, "A PyTorch checkpoint, a safetensors file, an ONNX file, or the folder of a training run."],
    output: Annotated[Path | None, "FOLDER", "The folder to write to."] = None,
    compare: Annotated[
        Path | None, "OTHER", "Write nothing, and name what differs from OTHER: a FILE, a contract or a spec."
    ] = None,
    *,
    options: RecoverOptions,
    as_json: Json = False,
) -> None:
    """Write spec.yaml and weights.safetensors of the network in FILE; for an ONNX file also a proved NAME.onnx."""
    refuse(
        (output is None and compare is None, "name the folder to write to with -o, or a policy to --compare with"),
        (output is not None and compare is not None, "--compare writes nothing: leave out -o"),
    )
    if options.activations == "":
        raise BadParameter("--activations takes one for each slot: relu,relu,none")
    names = [part.strip() for part in options.activations.split(",")] if options.activations is not None else None
    how: dict[str, Any] = vars(options) | {"activations": names, "prefix": tuple(options.prefix or ())}
    if compare is not None:
        written = ("name", "replace", "device", "page")
        show_comparison(file, compare, {key: each for key, each in how.items() if key not in written}, as_json)
        return
    assert output is not None
    from export import recover
    from export.recovery.recovering import is_onnx
    from runtime.session.trial import trial

    with trial(file, options.device, trusted=None if is_onnx(file) else True):
        pass
    recovery = recover(file, output, **how)
    spec, artifact, report = recovery.spec, recovery.artifact, recovery.report
    if as_json:
        record: dict[str, Any] = {"spec_path": recovery.spec_path, "weights_path": recovery.weights_path}
        record |= {"spec": spec.model_dump(exclude_none=True), "notes": recovery.notes}
        record |= {"path": artifact.path, "proved": artifact.proved} if artifact else {"path": None, "proved": False}
        record |= {"apart": recovery.apart, "rows": recovery.rows}
        print_json(record | {"original": recovery.original, "parity": report})
        return
    note_left_out_last(recovery.notes)
    print_field("recovered", f"{recovery.spec_path}, {recovery.weights_path.name}")
    blocks = [f"linear {dict(block)['features']}" if block.kind == "linear" else block.kind for block in spec.blocks]
    inputs = [" x ".join(map(str, port.row_shape)) for port in spec.inputs]
    print_field("network", " → ".join([", ".join(inputs), *blocks]))
    if artifact is None or report is None:
        print_command("next", f"mlpx build {recovery.spec_path}")
        return
    proved = "is proved to be this network, layer by layer"
    print_field("original", f"{file} {proved if recovery.original else 'was compared, not proved'}")
    _print_artifact(artifact, report, False)
    print_field("", f"old and new file differ by at most {recovery.apart:.2g} on {recovery.rows:,} rows")


def _print_artifact(artifact: "Artifact", report: "ParityReport", as_json: bool, **more: Any) -> None:
    """Print the file that was published, what was folded, and what was proved."""
    summary = artifact.summary
    assert summary is not None
    if as_json:
        record = {"path": artifact.path, "bytes": artifact.size, "proved": artifact.proved, **more}
        print_json(record | {"summary": summary, "parity": report})
        return
    versions = f"opset {summary.opset}, IR {summary.ir_version}" + (f", for {summary.target}" if summary.target else "")
    print_field("written", f"{artifact.path} ({artifact.size:,} bytes, {versions})")
    for key, value in more.items():
        print_field(key, value)
    print_field("signature", f"{_format_ports(summary.inputs)} -> {_format_ports(summary.outputs)}")
    print_field("folded", *summary.folded)
    print_field("remark", *summary.remarks)
    print_proof(report)
    reports = [artifact.path.with_suffix(suffix) for suffix in (".parity.json", ".parity.html")]
    print_field("report", ", ".join(str(path) for path in reports if path.exists()))


def _format_ports(ports: "Sequence[Port]") -> str:
    return ", ".join(f"{port.name} [{', '.join(map(str, port.shape))}]" for port in ports)
