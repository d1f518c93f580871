"""``mlpx verify FILE --certificate``: is it the file that was proved, and does this device compute it as it should?"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from typer import Exit

from mlpx.exit_codes import UNPROVED

from .terminal import note, print_field, print_json

if TYPE_CHECKING:
    from runtime import Certificate, DeviceReport


def check_unchanged(file: Path, known: "Certificate") -> None:
    """Compare hashes only. Raises ProofError: the file has changed, or its certificate's verdict is not "proved"."""
    from export import ProofError, read_report
    from runtime.device.unchanged import compare

    _, findings, causes = compare(file, known)
    if findings:
        hint = "verify it again with --spec or --module, or deploy the file that the certificate is of"
        message = f"{findings[0].words}. Cause: {causes[0]}. What to do: {hint}"
        raise ProofError(message, read_report(known.path))
    if not known.proved:
        message = f"{known.path.name} gives {file.name} the verdict '{known.verdict}': {known.why}"
        raise ProofError(message, read_report(known.path))
    proved = f"on {known.device}, on {known.made}, by mlpx {known.mlpx_version}"
    note(f"{file}: unchanged since it was proved {proved}")


def verify_device(file: Path, certificate: "Certificate", device: str, as_json: bool) -> None:
    """Check the file and this device by the certificate, and print the findings."""
    from runtime import check_device

    report = check_device(file, certificate, device)
    if as_json:
        print_json({"proved": report.proved, **asdict(report)})
    else:
        print_device(report)
    if not report.proved:
        raise Exit(UNPROVED)


def print_device(report: "DeviceReport") -> None:
    """Print the verdict and the findings."""
    from runtime.device.report import LIMITS

    on = f" on {report.device}, ONNX Runtime {report.runtime}" if report.device else ""
    batches = sum(batch.requests for batch in report.asked)
    layers = "1 linear layer" if report.linear_layers == 1 else f"{report.linear_layers:,} linear layers"
    work = [f"{report.rows:,} rows in {batches:,} batches"] if report.rows else []
    work += [f"{layers} alone"] if report.linear_layers else []
    verdict = "failed" if not report.proved else "proved" if report.rows else "unchanged"
    print_field(verdict, f"{report.path}{on}: {', '.join(work) or 'not run'}")
    if report.proved and report.rows:
        at_proof = "" if report.at_proof is None else f"; {report.at_proof:.2g} when the file was proved"
        print_field("", f"largest difference {report.largest:.2g}, {report.share:.2g} of the bound there{at_proof}")
    if report.proved and report.linear_layers:
        print_field("", f"{report.products:,} results of exact probes right, bit for bit")
    if precisions := dict.fromkeys(name.partition(",")[0] for name in report.told_apart) if report.proved else {}:
        print_field("", f"nearer to the exact answers than to those of {', '.join(precisions)}")
    print_field("finding", *(finding.words for finding in report.findings))
    print_field("cause", *report.causes)
    proved = f"SHA-256 {report.sha256[:16]}…, on {report.proved_on} on {report.made}"
    print_field("proved", f"{proved}, by {report.certificate}")
    print_field("warning", *report.warnings)
    if report.device:
        print_field("limits", LIMITS)
