"""How a command ends: errors become a message and an exit code."""

import sys
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from typer import BadParameter, Exit
from typer.main import get_command

from mlpx.errors import EXIT_CODES
from mlpx.exit_codes import DEFECT, INTERRUPTED, TERMINATED, UNREAD, WRONG_USE
from runtime import missing_package
from runtime.errors import OutputError

from .app import app
from .help import usage
from .streams import discard, write_output
from .terminal import note, print_json

_UsageError: Any = BadParameter.__base__  # of click, or of typer's copy of it: that depends on typer's version


def run(arguments: list[str]) -> int:
    """Run the command that ``arguments`` name, report what it ends with, and return the exit code."""
    try:
        try:
            code = _run(list(arguments) or ["--help"])
        except SystemExit as end:
            code = _code_of(end)
        write_output()
    except BrokenPipeError:
        discard(sys.stdout)
        return UNREAD
    except OutputError as error:
        return _report(error)
    return code if arguments else WRONG_USE


def _code_of(end: SystemExit) -> int:
    """The code of a long run that SIGTERM or Ctrl-C ended; where code of the user's calls ``sys.exit``, an error's."""
    if end.code in (INTERRUPTED, TERMINATED):
        return int(end.code)
    note(f"mlpx: code that this command runs has called sys.exit({end.code!r}) before the command was done")
    return WRONG_USE


def _run(arguments: list[str]) -> int:
    # Not app(), which makes of a closed pipe exit code 1, "not proved", and wraps nothing.
    try:
        with _warnings_as_notes(), get_command(app).make_context("mlpx", arguments) as context:
            context.command.invoke(context)
    except Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except _UsageError as error:
        if error.ctx is not None:
            hint = f"Try '{error.ctx.command_path} --help' for help."
            note(usage(error.ctx), hint, "")
        note(f"Error: {error.format_message()}")
        return WRONG_USE
    except BrokenPipeError:
        raise
    except tuple(EXIT_CODES) as error:
        if isinstance(error, OSError):
            write_output()  # raises the error that says so, if it is standard output that cannot be written
        return _report(error)
    except Exception:
        with suppress(OSError):
            traceback.print_exc()
        note("mlpx: this is a defect of mlpx; the traceback above says where")
        return DEFECT
    return 0


@contextmanager
def _warnings_as_notes() -> Generator[None]:
    """The warnings of mlpx are notes, without a line of its code."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_note(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
            if category.__module__.partition(".")[0] in ("builder", "runtime"):
                note(f"note: {message}")
            else:
                show(message, category, *where, **options)

        warnings.showwarning = show_note
        yield


def _report(raised: Exception) -> int:
    """Say why a command has failed, and return the exit code of such an error."""
    error = missing_package(raised, "this command") if isinstance(raised, ModuleNotFoundError) else raised
    report = getattr(error, "report", None)
    if report is not None and "--json" in sys.argv:
        print_json({"proved": False, "why": str(error), "parity": report})
    note(f"mlpx: {error}")
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
