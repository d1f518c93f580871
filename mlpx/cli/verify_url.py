"""``mlpx verify --url``: is a live server still computing what was proved?"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import print_json

if TYPE_CHECKING:
    from runtime import LiveReport

Url = Annotated[
    str | None,
    typer.Option(
        help="A live server's model instead, http(s):// or grpc(s)://host:port/v2/models/NAME: are its answers those "
        "of the certified file? A token is read from the variable MLPX_TOKEN."
    ),
]
Tensors = Annotated[
    str,
    typer.Option(help="With --url: json, binary, or auto: as JSON, and as bytes too where the server can."),
]
CaFile = Annotated[Path | None, typer.Option(help="With --url: the PEM file of the server's certificate authority.")]
Timeout = Annotated[float, typer.Option(help="With --url: seconds that a request may take.")]


def verify_url(
    url: str,
    file: Path | None,
    certificate: Path | None,
    as_json: bool,
    *,
    tensors: str,
    ca_file: Path | None,
    timeout: float,
) -> None:
    """Ask, and tell what was found. Raises ProofError: FILE is not the certificate's."""
    from mlpx.errors import UNPROVED
    from runtime import check_live, read_certificate

    if certificate is None and file is None:
        raise typer.BadParameter("--url needs --certificate NAME.parity.json, or FILE with that beside it")
    known = read_certificate(certificate or file.with_suffix(".parity.json"))  # type: ignore[union-attr]
    if not known.proved:
        from export.errors import ProofError

        raise ProofError(f"{known.path.name} does not give {known.file} the verdict 'proved': {known.why}")
    if file is not None and not known.is_of(file):
        from export.errors import ProofError

        hint = "name the file that was proved, or verify this one anew with --spec or --module"
        raise ProofError(f"{file} is not the file that {known.path} was made of. What to do: {hint}")
    token = os.environ.get("MLPX_TOKEN") or None
    report = check_live(url, known, tensors=tensors, timeout=timeout, token=token, ca_file=ca_file)
    if as_json:
        print_json({"proved": report.proved, **asdict(report)})
    else:
        _tell(report)
    if not report.proved:
        raise typer.Exit(UNPROVED)


def _tell(report: "LiveReport") -> None:
    from runtime.live.judging import USUAL

    requests = sum(one.requests for one in report.asked)
    travels = " and ".join(dict.fromkeys(one.tensors for one in report.asked))
    told = (
        f"{report.rows:,} rows in {requests:,} requests, tensors as {travels}" if report.asked else "no row was asked"
    )
    if report.proved:
        print(f"proved    {report.url}: {told}")
        was = "" if report.at_proof is None else f"; {report.at_proof:.2g} when the file was proved"
        print(f"          largest difference {report.largest:.2g}, {report.share:.2g} of the bound there{was}")
        if told_apart := dict.fromkeys(name.partition(",")[0] for name in report.told_apart):
            print(f"          nearer to the exact answers than to those of {', '.join(told_apart)}")
    else:
        print(f"failed    {report.url}: {told}")
    for kind, lines in (("finding", [f.words for f in report.findings]), ("cause", report.causes)):
        for line in lines:
            print(f"{kind:<9} {line}")
    if not report.proved and len({one.largest > USUAL * (report.at_proof or 0) for one in report.asked}) == 2:
        for one in report.asked:
            requests = "a request" if one.requests == 1 else f"{one.requests:,} requests"
            print(f"asked     {one.how}, {one.tensors}: {requests}, {one.largest:.2g} off at most")
    version = f", version {report.version}" if report.version else ""
    versions = f" (of {', '.join(report.versions)})" if len(report.versions) > 1 else ""
    print(f"server    {report.server or 'without a name'}, {report.protocol}, model {report.model}{version}{versions}")
    print(f"certified {report.file}, SHA-256 {report.sha256[:16]}…, by {report.certificate}")
    for warning in report.warnings:
        print(f"warning   {warning}")
