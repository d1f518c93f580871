"""``mlpx export``: a hand-written module into an ONNX file."""

from pathlib import Path
from typing import Annotated

from typer import BadParameter, Option

from .options import Json, Publishing
from .proving import tell_written


def command(
    module: Annotated[str, "package.module:factory or path/to/file.py:name. Its code is run."],
    output: Annotated[Path, "The file to write, ending in .onnx."],
    features: Annotated[
        list[str] | None,
        "The shape of a row where no layer shows it: 12, or 1x28x28; obs=12 for one of several inputs.",
    ] = None,
    name: Annotated[str | None, "The model's name; the file's if left out."] = None,
    input_name: Annotated[
        list[str] | None, "The input's name in the file; repeat for several, in the forward's order."
    ] = None,
    output_name: Annotated[
        list[str] | None, "The output's name in the file; repeat for several, as they are returned."
    ] = None,
    method: Annotated[str, "The method that is called."] = "forward",
    weights: Annotated[Path | None, "Trained weights to load into it, safetensors or torch.save."] = None,
    seed: Annotated[
        int | None, Option(min=0, help="Of the random weights, where MODULE is a class and no weights are given.")
    ] = None,
    integers: Annotated[
        list[str] | None, "An input that takes whole numbers (int64), by its name; repeat for several."
    ] = None,
    *,
    options: Publishing,
    as_json: Json = False,
) -> None:
    """Write MODULE, as it computes in evaluation mode, to an ONNX file, and prove it."""
    from export import load_module, publish

    network = load_module(module, weights=weights, seed=seed)
    ports = {"input_shape": _shapes(features or []), "input_name": input_name or (), "output_name": output_name or ()}
    ports |= {"input_dtype": dict.fromkeys(integers, "int64") if integers else None}
    artifact, report = publish(network, output, name=name, method=method, **ports, **vars(options))
    tell_written(artifact, report, as_json, module=module)


def _shapes(texts: list[str]) -> dict[str, tuple[int, ...]] | tuple[int, ...] | None:
    """``12`` or ``1x28x28``, or the same after an input's name; plain numbers are dimensions."""
    named: dict[str, tuple[int, ...]] = {}
    plain: tuple[int, ...] = ()
    for text in texts:
        name, equals, shape = text.rpartition("=")
        try:
            sizes = tuple(int(size) for size in shape.split("x"))
        except ValueError:
            message = f"'{text}' is no shape; expected 12, 1x28x28 or NAME=12"
            raise BadParameter(message, param_hint="--features") from None
        if equals:
            named[name] = sizes
        else:
            plain += sizes
    if named and plain:
        raise BadParameter("give every input's shape by its name", param_hint="--features")
    return named or plain or None
