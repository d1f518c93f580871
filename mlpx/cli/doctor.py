"""``mlpx doctor``: what is installed, and what is missing."""

from dataclasses import asdict

import typer

from .options import Json, print_aligned, print_json


def command(as_json: Json = False) -> None:
    """Show versions, the execution providers that really load, and what is missing with the line that installs it."""
    from mlpx.errors import MACHINE_LACKS
    from mlpx.installation import examine

    report = examine()
    if as_json:
        print_json(asdict(report))
    else:
        print(f"python {report.python} on {report.system}")
        print("packages")
        print_aligned([(name, version or "not installed") for name, version in report.packages.items()])
        print("execution providers")
        print_aligned(list(report.providers.items()))
        for line in report.notes:
            print(f"note: {line}")
        for line in report.problems:
            print(f"problem: {line}")
        print("no problem found" if not report.problems else f"{len(report.problems)} problems")
    if report.problems:
        raise typer.Exit(MACHINE_LACKS)
