"""``mlpx verify FILE --answers``: does a file give the answers that were saved where its network was trained?"""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Exit

from mlpx.exit_codes import UNPROVED

from .terminal import note, print_field, print_json

if TYPE_CHECKING:
    from runtime import Certificate
    from runtime.answers import AnswersReport


def verify_answers(file: Path, answers: Path, certificate: "Certificate | None", device: str, as_json: bool) -> None:
    """Compare the file's answers with the saved ones, and print what was found: exit code 0 they agree, 1 not."""
    from runtime import check_answers
    from runtime.session.trial import trial

    with trial(file, device):
        bounder = _bounder() if find_spec("torch") is not None else None
    report = check_answers(file, answers, certificate=certificate, device=device, bounder=bounder)
    if as_json:
        print_json({"agree": report.agree, **asdict(report)})
    else:
        _print_report(report)
    if not report.agree:
        raise Exit(UNPROVED)


def _bounder() -> Any:
    """Gives each row a bound of its own; torch is imported where that is needed."""

    def bound(path: Path, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        from export.bounds.rows import row_bounds

        return row_bounds(path, inputs)

    return bound


def _print_report(report: "AnswersReport") -> None:
    worst = report.worst
    where = f"row {worst.row}, '{worst.feature}' of '{worst.output}'"
    verdict = "agree" if report.agree else "differ"
    rows = f"{report.judged:,} rows of {report.answers}"
    print_field(verdict, f"{report.path} on {report.device}, {rows}")
    if not report.agree:
        counts = f"{report.beyond:,} of {report.values:,} values, in {report.rows_beyond:,} rows"
        print_field("", f"{counts}, are off by more than two correct runtimes can be")
    print_field("most off", f"{where}: {worst.saved:.9g} saved, {worst.file:.9g} by the file")
    print_field("", f"off by {worst.difference:.3g}, and {worst.allowed:.3g} is allowed there")
    print_field("bound", *report.rests_on)
    print_field("cause", *report.causes)
    note(*(f"note: {line}" for line in report.notes))
