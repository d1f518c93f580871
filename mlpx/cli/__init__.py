"""The command line. A command is a function that parses and calls; ``main`` turns errors into a text and a code."""

import sys
import traceback
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
from .terminal import note, print_json

app = typer.Typer(
    help="From the building blocks of a PyTorch MLP to an ONNX file, and running it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (build, export, recover, verify, inspect, predict, package, serve, bench, tune, schema, doctor):
    app.command()(declared(command))


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


def main() -> None:
    """Run ``mlpx`` with the process's arguments and exit with its code (see ``mlpx.errors``)."""
    from mlpx.errors import DEFECT, EXIT_CODES
    from runtime import missing_package

    try:
        app(prog_name="mlpx")
    except tuple(EXIT_CODES) as raised:
        error = missing_package(raised, "this command") if isinstance(raised, ModuleNotFoundError) else raised
        report = getattr(error, "report", None)
        if report is not None and "--json" in sys.argv:
            print_json({"proved": False, "why": str(error), "parity": report})
        note(f"mlpx: {error}")
        sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
    except Exception:
        traceback.print_exc()
        note("mlpx: this is a defect of mlpx; the lines above say where")
        sys.exit(DEFECT)
