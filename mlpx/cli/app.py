"""The application: every command, and the options of ``mlpx`` itself."""

from typing import Annotated

import typer

from runtime.version import VERSION

from .inspecting import doctor, inspect
from .making import build, export, recover, schema
from .measuring import bench, tune
from .options import declared
from .predicting import predict
from .proving import verify
from .serving import package, serve

app = typer.Typer(
    help="From the building blocks of a PyTorch MLP to an ONNX file, and running it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (build, export, recover, verify, inspect, predict, package, serve, bench, tune, schema, doctor):
    app.command()(declared(command))


def _print_version(requested: bool) -> None:
    if requested:
        print(f"mlpx {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
