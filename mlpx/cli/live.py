"""``mlpx verify --url``: does a live server answer as the proved file does?"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import BadParameter, Exit

from mlpx.exit_codes import UNPROVED

from .signing import read_trusted
from .terminal import long_run, print_field, print_json

if TYPE_CHECKING:
    from runtime import LiveReport
    from runtime.live.sight import Sight


@dataclass
class LiveOptions:
    """How a live server is asked, by the names in ``runtime.check_live``."""

    url: Annotated[
        str | None,
        "URL",
        "Check a live server's model instead, http(s):// or grpc(s)://host:port/v2/models/NAME, or MLflow's "
        "http://host:port/invocations: are its answers those of the proved file? A token is read from the environment "
        "variable MLPX_TOKEN.",
    ] = None
    tensors: Annotated[
        str, "auto|json|binary", "With --url: json, binary, or auto: JSON, and bytes too if the server takes them."
    ] = "auto"
    ca_file: Annotated[Path | None, "With --url: the PEM file of the server's certificate authority."] = None
    timeout: Annotated[float, "SECONDS", "With --url: seconds allowed per request."] = 30.0
    confidence: Annotated[
        float | None, "C", "With --rate: how certainly such faults are to be found, 0 to 1; default: 0.95."
    ] = None
    rate: Annotated[
        float | None, "F", "With --url: send so many requests that a fault in this share of them is found, 0 to 1."
    ] = None


def verify_live(
    live: LiveOptions, file: Path | None, certificate: Path | None, keys: Sequence[Path] | None, as_json: bool
) -> None:
    """Check a live server, and print the findings; raises what ``live_report`` does."""
    with long_run() as progress:
        report = live_report(live, file, certificate, keys, partial(progress.show, "asking"))
    if as_json:
        print_json({"proved": report.proved, **asdict(report)})
    else:
        _print_live(report)
    if not report.proved:
        raise Exit(UNPROVED)


def live_report(
    live: LiveOptions,
    file: Path | None,
    certificate: Path | None,
    keys: Sequence[Path] | None,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> "LiveReport":
    """Check a live server.

    Raises ProofError: FILE is not the certificate's; SignatureError: the certificate is not signed with a trusted key.
    """
    from export.errors import ProofError
    from runtime import check_live

    path = certificate or (file and file.with_suffix(".parity.json"))
    if path is None:
        raise BadParameter("--url needs --certificate NAME.parity.json, or FILE with that beside it")
    known = read_trusted(path, keys)
    if not known.proved:
        raise ProofError(f"{known.path.name} does not give {known.file} the verdict 'proved': {known.why}")
    if file is not None and not known.is_of(file):
        hint = "name the file that was proved, or verify this one again with --spec or --module"
        raise ProofError(f"{file} is not the file that {known.path} was made of. What to do: {hint}")
    token = os.environ.get("MLPX_TOKEN") or None
    return check_live(certificate=known, token=token, progress=progress, **vars(live))


def _print_live(report: "LiveReport") -> None:
    from runtime.live.judge import USUAL_RATIO

    requests = sum(batch.requests for batch in report.asked)
    encodings = " and ".join(dict.fromkeys(batch.tensors for batch in report.asked))
    work = (
        f"{report.rows:,} rows in {requests:,} requests, tensors as {encodings}" if report.asked else "no row was asked"
    )
    print_field("proved" if report.proved else "failed", f"{report.url}: {work}")
    if report.proved:
        at_proof = "" if report.at_proof is None else f"; {report.at_proof:.2g} when the file was proved"
        print_field("", f"largest difference {report.largest:.2g}, {report.share:.2g} of the bound there{at_proof}")
        if precisions := dict.fromkeys(name.partition(",")[0] for name in report.told_apart):
            print_field("", f"nearer to the exact answers than to those of {', '.join(precisions)}")
    if report.sight is not None:
        print_field("finds", *_format_sight(report.sight))
    print_field("finding", *(finding.words for finding in report.findings))
    print_field("cause", *report.causes)
    if not report.proved and len({batch.largest > USUAL_RATIO * (report.at_proof or 0) for batch in report.asked}) == 2:
        for batch in report.asked:
            requests = "1 request" if batch.requests == 1 else f"{batch.requests:,} requests"
            print_field("asked", f"{batch.how}, {batch.tensors}: {requests}, {batch.largest:.2g} off at most")
    version = f", version {report.version}" if report.version else ""
    version += f" (of {', '.join(report.versions)})" if len(report.versions) > 1 else ""
    model = f", model {report.model}" if report.model else ""
    print_field("server", f"{report.server or 'without a name'}, {report.protocol}{model}{version}")
    print_field("proved", f"{report.file}, SHA-256 {report.sha256[:16]}…, by {report.certificate}")
    print_field("warning", *report.warnings)


def _format_sight(sight: "Sight") -> list[str]:
    """What would have been found, in a line each."""
    often = f"a fault in 1 of {max(1, int(1 / sight.rate)):,} requests, at random, with a confidence of"
    lines = [f"{often} {sight.confidence:.4g}"]
    weights = sight.weights
    if weights is None:
        reason = "an older version of mlpx made it, or the network is large"
        return [*lines, f"which errors of weights, is not recorded in the certificate: {reason}"]
    if weights.together is not None:
        lines.append(f"all weights off by {weights.together:.2g} of themselves, in the same direction")
    if weights.median is not None and weights.worst is not None:
        unseen = f"all but {weights.unseen:,} of {weights.weights:,}, which show in no answer"
        half = f"one weight off by {weights.median:.2g} of itself, for half of those of each layer"
        lines.append(f"{half}; by {weights.worst:.2g}, for {unseen if weights.unseen else 'each'}")
    return lines
