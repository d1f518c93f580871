"""``mlpx doctor``: what is installed, and what is missing."""

from typer import Exit

from .options import Json
from .terminal import print_aligned, print_json


def command(as_json: Json = False) -> None:
    """Show versions, the execution providers that really load, and what is missing with the line that installs it."""
    from mlpx.errors import MACHINE_LACKS
    from mlpx.installation import examine

    report = examine()
    if as_json:
        print_json(report)
    else:
        print(f"python {report.python} on {report.system}")
        print("packages")
        print_aligned([(name, version or "not installed") for name, version in report.packages.items()])
        print("execution providers")
        print_aligned(list(report.providers.items()))
        for kind, lines in (("note", report.notes), ("problem", report.problems)):
            for line in lines:
                print(f"{kind}: {line}")
        print("no problem found" if not report.problems else f"{len(report.problems)} problems")
    if report.problems:
        raise Exit(MACHINE_LACKS)
