"""The command line. Each command is a file that parses and calls; ``main`` turns errors into a paragraph and a code."""

import sys


def main() -> None:
    """Run ``mlpx`` with the process's arguments and exit with its code (see ``mlpx.errors``)."""
    from mlpx.errors import EXIT_CODES
    from runtime import missing_package

    from .app import app

    try:
        app(prog_name="mlpx")
    except tuple(EXIT_CODES) as error:
        _end(error)
    except ModuleNotFoundError as error:
        told = missing_package(error, "this command")
        if told is error:
            raise
        _end(told)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        sys.exit(0)


def _end(error: BaseException) -> None:
    from mlpx.errors import EXIT_CODES

    print(f"mlpx: {error}", file=sys.stderr)
    sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
