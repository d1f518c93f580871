"""The command line: ``main`` runs a command and exits with its code."""

import os
import sys

from mlpx.exit_codes import MACHINE_LACKS

from .streams import prepare_streams
from .supervising import is_supervised, reporter, supervise


def main() -> None:
    """Run ``mlpx`` with the process's arguments and exit with its code (see ``mlpx.errors``)."""
    prepare_streams()
    if "_MLPX_COMPLETE" in os.environ:  # a shell asks what to complete
        from .completing import answer

        sys.exit(answer())
    if is_supervised():
        sys.exit(supervise())
    report = reporter()
    code = _run()
    report(code)
    sys.exit(code)


def _run() -> int:
    try:
        from .ending import run
    except ImportError:
        # Other distributions are called builder, export or runtime too, and may have overwritten or hidden ours.
        from mlpx.installation import foreign_files

        from .terminal import note

        if not (problems := list(foreign_files())):
            raise
        note(*(f"mlpx: {problem}" for problem in problems))
        return MACHINE_LACKS
    return run(sys.argv[1:])
