"""The command line. Each command is a file that parses and calls; ``main`` turns errors into a paragraph and a code."""

import sys
import traceback
from typing import Annotated

import typer

from runtime.version import VERSION

from . import bench, build, doctor, export, inspect, package, predict, recover, serve, tune, verify
from .options import declared
from .terminal import note, print_json

app = typer.Typer(
    help="From the building blocks of a PyTorch MLP to an ONNX file, and running it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for each in (build, export, recover, verify, inspect, predict, package, serve, bench, tune):
    app.command(each.__name__.rpartition(".")[2])(declared(each.command))
app.command("schema")(declared(build.schema))
app.command("doctor")(declared(doctor.command))


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
