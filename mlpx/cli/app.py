"""The application: every command, and the options of ``mlpx`` itself."""

from collections.abc import Callable
from typing import Annotated

import typer

from .bounding import bound
from .completion import completion
from .help import Command, Group
from .hub import pull, push
from .inspecting import doctor, inspect, print_versions
from .lab import lab
from .making import build, export, recover, schema
from .measuring import bench, tune
from .options import declared
from .predicting import predict
from .proving import verify
from .serving import package, serve
from .shadowing import shadow
from .signing import sign

COMMANDS: dict[Callable[..., None], str] = {
    build: "Build the network of a spec, prove its ONNX file and write it.",
    export: "Write a PyTorch module to an ONNX file, and prove it.",
    recover: "Get spec and weights back from a checkpoint or an ONNX file.",
    verify: "Prove that a file, or a live server, computes what it should.",
    bound: "Bound the error of a file for every input of a box.",
    inspect: "Show what an ONNX file contains.",
    predict: "Score a file of rows, or a folder of files.",
    sign: "Sign the certificate of a proved file.",
    package: "Write the folder that a server, a page or a C program needs.",
    push: "Push a proved file to the Hugging Face Hub.",
    pull: "Pull a proved file from the Hub, and check it here.",
    serve: "Serve models over REST and gRPC.",
    shadow: "Answer from one server, and compare with another.",
    bench: "Measure how fast a file runs, beside other runtimes.",
    tune: "Find the fastest way to run a file on this machine.",
    lab: "Write a page that shows which checks notice planted faults.",
    schema: "Write the JSON Schema of a spec.",
    completion: "Print the script that has a shell complete commands.",
    doctor: "Show what is installed, and what is missing.",
}
"""Every command, and what it does in one line."""

app: typer.Typer = typer.Typer(
    cls=Group,
    help="From the building blocks of a PyTorch MLP to an ONNX file, and running it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command, _line in COMMANDS.items():
    app.command(cls=Command, short_help=_line)(declared(_command))


def _show_version(context: typer.Context, requested: bool) -> None:
    if requested:
        print_versions(as_json=bool(context.params.get("as_json")))
        raise typer.Exit


@app.callback()
def _root(
    # Eager options come first: so --json is known when --version is answered, in whichever order they stand.
    as_json: Annotated[
        bool, typer.Option("--json", is_eager=True, help="With --version: print one JSON object, for machines.")
    ] = False,
    _version: Annotated[  # its callback answers
        bool,
        typer.Option(
            "--version", callback=_show_version, help="Print the versions that a report of a defect needs, and exit."
        ),
    ] = False,
) -> None:
    if as_json:
        raise typer.BadParameter("--json stands after the command, or with --version")
