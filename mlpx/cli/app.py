"""The commands together."""

from typing import Annotated

import typer

from runtime.version import VERSION

from . import bench, build, doctor, export, inspect, package, predict, recover, schema, serve, tune, verify

app = typer.Typer(
    help="From the building blocks of a PyTorch MLP to an ONNX file, and running it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"mlpx {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


for command in (build, export, recover, verify, inspect, predict, package, serve, bench, tune, schema, doctor):
    app.command(command.__name__.rpartition(".")[2])(command.command)
