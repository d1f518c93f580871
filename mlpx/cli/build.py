"""``mlpx build``: a spec and its weights into an ONNX file; ``mlpx schema``: the JSON Schema of a spec."""

import json
from pathlib import Path
from typing import Annotated

from typer import BadParameter, Option

from .options import Json, Publishing, Weights
from .proving import network, tell_written
from .terminal import note, print_json


def command(
    spec: Annotated[Path, "The spec: a .yaml, .json or .toml file."],
    output: Annotated[Path | None, "The folder to write to; out/NAME if left out."] = None,
    weights: Weights = None,
    seed: Annotated[
        int | None, Option(min=0, max=2**63 - 1, help="Use random weights from this seed instead of trained ones.")
    ] = None,
    *,
    options: Publishing,
    as_json: Json = False,
) -> None:
    """Build the network of SPEC with its weights, prove the file, and write it to NAME.onnx, ready for a server."""
    from export import publish

    if seed is not None and weights is not None:
        raise BadParameter("give --weights or --seed, not both")
    described, module, source = network(spec, weights, random=seed, dtype=options.dtype)
    file = (output or Path("out") / described.name) / f"{described.name}.onnx"
    artifact, report = publish(module, file, spec=described, **vars(options))
    tell_written(artifact, report, as_json, weights=source)


def schema(
    output: Annotated[Path | None, "The file to write; standard output if left out."] = None,
    as_json: Json = False,
) -> None:
    """Write the JSON Schema of a spec, for editors that complete and check as one types."""
    from builder import json_schema
    from runtime import write_whole

    described = json_schema()
    if output is None:
        print_json(described)
        return
    write_whole(output, (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode())
    if as_json:
        print_json({"path": output})
    else:
        note(f"written to {output}")
