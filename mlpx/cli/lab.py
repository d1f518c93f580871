"""``mlpx lab``: a page on which faults are planted into a small network."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument

from .options import Json
from .terminal import print_json, print_line


def lab(
    file: Annotated[
        Path | None, Argument(metavar="FILE", help="An ONNX file of a small dense network to begin with.")
    ] = None,
    output: Annotated[Path, "The page to write."] = Path("lab.html"),
    as_json: Json = False,
) -> None:
    """Write a page, for any browser and without a network, that plants faults and shows which checks notice them."""
    from export.lab.page import write_lab

    written = write_lab(output, file)
    if as_json:
        print_json(asdict(written))
        return
    if written.file is not None:
        print_line(f"network of {written.file}: {written.operators} operators, {written.parameters:,} weights")
    print_line(f"written to {written.path}: open it in a browser")
