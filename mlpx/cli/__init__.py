"""The command line. Each command is a file that parses and calls; ``main`` turns errors into a paragraph and a code."""

import json
import sys
import traceback


def main() -> None:
    """Run ``mlpx`` with the process's arguments and exit with its code (see ``mlpx.errors``)."""
    from mlpx.errors import DEFECT, EXIT_CODES, MACHINE_LACKS
    from runtime import missing_package

    from .app import app

    try:
        app(prog_name="mlpx")
    except tuple(EXIT_CODES) as error:
        _end(error)
    except ModuleNotFoundError as error:
        _end(missing_package(error, "this command"))
    except OSError as error:
        print(f"mlpx: {error}", file=sys.stderr)
        sys.exit(MACHINE_LACKS)
    except Exception:
        traceback.print_exc()
        print("mlpx: this is a defect of mlpx; the lines above say where", file=sys.stderr)
        sys.exit(DEFECT)


def _end(error: BaseException) -> None:
    from mlpx.errors import DEFECT, EXIT_CODES

    report = getattr(error, "report", None)
    if report is not None and "--json" in sys.argv:
        print(
            json.dumps({"proved": False, "why": str(error), "parity": json.loads(report.model_dump_json())}, indent=2)
        )
    print(f"mlpx: {error}", file=sys.stderr)
    sys.exit(next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), DEFECT))
