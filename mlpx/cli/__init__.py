"""The command line: ``main`` runs a command, and turns errors into a message and an exit code."""

import sys
import traceback

from mlpx.exit_codes import DEFECT, MACHINE_LACKS

from .terminal import note, print_json


def main() -> None:
    """Run ``mlpx`` with the process's arguments and exit with its code (see ``mlpx.errors``)."""
    try:
        from mlpx.errors import EXIT_CODES
        from runtime import missing_package

        from .app import app
    except ImportError:
        # Other distributions are called builder, export or runtime too, and may have overwritten or hidden ours.
        from mlpx.installation import foreign_files

        if not (problems := list(foreign_files())):
            raise
        note(*(f"mlpx: {problem}" for problem in problems))
        sys.exit(MACHINE_LACKS)
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
        note("mlpx: this is a defect of mlpx; the traceback above says where")
        sys.exit(DEFECT)
