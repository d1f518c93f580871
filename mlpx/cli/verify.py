"""``mlpx verify``: is a file, or a live server, proved to compute what its module computes?"""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .options import Data, Device, Dtype, Html, Json, note, print_json
from .sources import Weights, network
from .verify_url import CaFile, Tensors, Timeout, Url, verify_url
from .written import tell_proof


def command(
    file: Annotated[Path | None, typer.Argument(help="The ONNX file; with --url it may be left out.")] = None,
    spec: Annotated[Path | None, typer.Option(help="The spec of its network.")] = None,
    weights: Weights = None,
    module: Annotated[
        str | None, typer.Option(help="package.module:factory or path/to/file.py:name instead. Its code is run.")
    ] = None,
    method: Annotated[str, typer.Option(help="The method of the module that is called.")] = "forward",
    certificate: Annotated[
        Path | None, typer.Option(help="NAME.parity.json: first of all, has the file changed since that was made?")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder to write NAME.parity.json to; none if left out.")
    ] = None,
    data: Data = None,
    device: Device = "auto",
    dtype: Dtype = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Of the inputs that are drawn, and of random weights; 0 if left out."),
    ] = None,
    html: Html = None,
    url: Url = None,
    tensors: Tensors = "auto",
    ca_file: CaFile = None,
    timeout: Timeout = 30.0,
    as_json: Json = False,
) -> None:
    """Prove that FILE, or a live server, computes what its network computes: exit code 0 proved, 1 not."""
    if url is not None:
        offline = {"spec": spec, "module": module, "weights": weights, "output": output, "data": data, "html": html}
        offline |= {"dtype": dtype, "device": None if device == "auto" else device, "seed": seed}
        if given := [f"--{name}" for name, value in offline.items() if value is not None]:
            raise typer.BadParameter(f"--url asks a server by a certificate, and needs no {', '.join(given)}")
        verify_url(url, file, certificate, as_json, tensors=tensors, ca_file=ca_file, timeout=timeout)
        return
    if tensors != "auto" or ca_file is not None or timeout != 30.0:
        raise typer.BadParameter("--tensors, --ca-file and --timeout go with --url")
    if file is None:
        raise typer.BadParameter("name the ONNX FILE, or a live server with --url")
    if spec is not None and module is not None:
        raise typer.BadParameter("give --spec or --module, not both")
    if spec is None and module is None and certificate is None:
        hint = "give the network, with --spec or --module, or a --certificate to compare with"
        raise typer.BadParameter(f"a file alone proves nothing: {hint}")
    if weights is not None and spec is None and module is None:
        raise typer.BadParameter("--weights goes with --spec or --module")
    if html and output is None:
        raise typer.BadParameter("--html needs -o, the folder to write the page to")
    if spec is None and module is None and (output is not None or data is not None):
        raise typer.BadParameter("a certificate alone is only compared: -o and --data need --spec or --module")
    from export import load_module, verify
    from export.proof import can_write_page, write_page
    from mlpx.errors import UNPROVED
    from runtime import whole_files

    if certificate is not None:
        _unchanged(file, certificate, as_json and spec is None and module is None)
    if spec is None and module is None:
        return
    described, source = None, str(module)
    if spec is not None:
        described, network_module, origin = network(spec, weights, dtype=dtype, may_be_random=False)
        source = f"{spec} with {origin}"
    else:
        network_module = load_module(source, weights=weights, seed=seed)
    with (
        whole_files(output) if output is not None else nullcontext() as folder
    ):  # a folder that is no use is said first
        asked = {"spec": described, "device": device, "data": data, "dtype": dtype, "seed": seed or 0, "method": method}
        report = verify(network_module, file, **asked)
        report = report.model_copy(update={"source": source})
        if folder is not None:
            report.write(folder / f"{file.stem}.parity.json")
            if can_write_page() if html is None else html:
                write_page(report, folder / f"{file.stem}.parity.html")
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        tell_proof(report)
        print(f"module    {source}")
        for check in report.checks:
            print(f"  {check.outcome:<8} {check.name:<13} {check.words}")
    if not report.proved:
        raise typer.Exit(UNPROVED)


def _unchanged(file: Path, certificate: Path, as_json: bool) -> None:
    """Compare hashes. Raises ProofError: the file was changed, or the certificate does not say that it is proved."""
    from export import ProofError, read_report
    from export.proof import file_record
    from runtime import read_header, sha256

    known = read_report(certificate)
    if not file.is_file():
        read_header(file)  # says what is wrong
    found, hint = sha256(file), "verify it anew with --spec or --module, or deploy the file that the certificate is of"
    changed = f"{file} is not the file that {certificate.name} was made of"
    if found != known.file.sha256:
        what = f"its SHA-256 is {found[:16]}…, the certificate's {known.file.sha256[:16]}…"
        raise ProofError(f"{changed}: {what}. What to do: {hint}", known)
    record = file_record(file)
    if record.data != known.file.data:
        raise ProofError(f"{changed}: its external data is another. What to do: {hint}", known)
    if not known.proved:
        raise ProofError(f"{certificate.name} gives {file.name} the verdict '{known.verdict}': {known.why}", known)
    proved = (
        f"unchanged since it was proved on {known.device}, on {known.made}, by mlpx {known.versions.get('mlpx', '?')}"
    )
    if as_json:
        print_json({"unchanged": True, "path": file, "certificate": json.loads(known.model_dump_json())})
    else:
        note(f"{file} ({record.size:,} bytes): {proved}")
