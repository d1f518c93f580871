"""``mlpx verify``: is a file, or a live server, proved to compute what its module computes? And how that is said."""

import os
import warnings
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit

from .options import Data, Device, Dtype, Json, Page, Weights, refuse
from .terminal import note, print_json, tell

if TYPE_CHECKING:
    from torch import nn

    from builder import MLPSpec
    from export import ParityReport
    from runtime import LiveReport


@dataclass
class Live:
    """How a live server is asked."""

    url: Annotated[
        str | None,
        "A live server's model instead, http(s):// or grpc(s)://host:port/v2/models/NAME: are its answers those of the "
        "certified file? A token is read from the variable MLPX_TOKEN.",
    ] = None
    tensors: Annotated[str, "With --url: json, binary, or auto: as JSON, and as bytes too where the server can."] = (
        "auto"
    )
    ca_file: Annotated[Path | None, "With --url: the PEM file of the server's certificate authority."] = None
    timeout: Annotated[float, "With --url: seconds that a request may take."] = 30.0


def verify(
    file: Annotated[Path | None, Argument(help="The ONNX file; with --url it may be left out.")] = None,
    spec: Annotated[Path | None, "The spec of its network."] = None,
    weights: Weights = None,
    module: Annotated[str | None, "package.module:factory or path/to/file.py:name instead. Its code is run."] = None,
    method: Annotated[str, "The method of the module that is called."] = "forward",
    certificate: Annotated[
        Path | None, "NAME.parity.json: first of all, has the file changed since that was made?"
    ] = None,
    output: Annotated[Path | None, "A folder to write NAME.parity.json to; none if left out."] = None,
    data: Data = None,
    device: Device = "auto",
    dtype: Dtype = None,
    seed: Annotated[
        int | None, "Of the inputs that are drawn, and of random weights; 0 if left out.", 0, 2**63 - 1
    ] = None,
    html: Page = None,
    *,
    live: Live,
    as_json: Json = False,
) -> None:
    """Prove that FILE, or a live server, computes what its network computes: exit code 0 proved, 1 not."""
    if live.url is not None:
        offline = {"spec": spec, "module": module, "weights": weights, "output": output, "data": data, "html": html}
        offline |= {"dtype": dtype, "device": None if device == "auto" else device, "seed": seed}
        if given := [f"--{name}" for name, value in offline.items() if value is not None]:
            raise BadParameter(f"--url asks a server by a certificate, and needs no {', '.join(given)}")
        _verify_live(live, file, certificate, as_json)
        return
    alone = spec is None and module is None
    hint = "give the network, with --spec or --module, or a --certificate to compare with"
    needless = output is not None or data is not None
    refuse(
        (live != Live(), "--tensors, --ca-file and --timeout go with --url"),
        (file is None, "name the ONNX FILE, or a live server with --url"),
        (spec is not None and module is not None, "give --spec or --module, not both"),
        (alone and certificate is None, f"a file alone proves nothing: {hint}"),
        (alone and weights is not None, "--weights goes with --spec or --module"),
        (bool(html) and output is None, "--html needs -o, the folder to write the page to"),
        (alone and needless, "a certificate alone is only compared: -o and --data need --spec or --module"),
    )
    assert file is not None
    if certificate is not None:
        _tell_unchanged(file, certificate, as_json and alone)
    if alone:
        return
    from export import load_module, verify
    from export.proof import can_write_page, write_page
    from mlpx.errors import UNPROVED
    from runtime import whole_files

    described, source = None, str(module)
    if spec is not None:
        described, network_module, origin = network(spec, weights, dtype=dtype, may_be_random=False)
        source = f"{spec} with {origin}"
    else:
        network_module = load_module(source, weights=weights, seed=seed)
    asked = {"spec": described, "device": device, "data": data, "dtype": dtype, "seed": seed or 0, "method": method}
    with whole_files(output) if output is not None else nullcontext() as folder:  # one that is no use is said first
        report = verify(network_module, file, **asked).model_copy(update={"source": source})
        if folder is not None:
            report.write(folder / f"{file.stem}.parity.json")
            if can_write_page() if html is None else html:
                write_page(report, folder / f"{file.stem}.parity.html")
    if as_json:
        print_json(report)
    else:
        tell_proof(report)
        tell("module", source)
        for check in report.checks:
            print(f"  {check.outcome:<8} {check.name:<13} {check.words}")
    if not report.proved:
        raise Exit(UNPROVED)


def network(
    spec: Path, weights: Path | None, *, random: int | None = None, dtype: str | None = None, may_be_random: bool = True
) -> tuple["MLPSpec", "nn.Module", str]:
    """The spec, its network with weights, and where these came from; ``random`` is the seed of random ones."""
    from builder import WeightsError, assemble, load_spec, load_weights

    described = load_spec(spec)
    source = weights if weights is not None else spec.parent / "weights.safetensors"
    if random is None and not source.is_file():
        hint = "give trained weights with --weights"
        hint += ", or ask for random ones with --seed" if may_be_random else ""
        raise WeightsError(f"{source}: no such file. What to do: {hint}")
    module = assemble(described, seed=random or 0)
    if random is not None:
        return described, module, f"random from seed {random}"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load_weights(module, source, dtype=dtype)
    note(*(f"note: {warning.message}" for warning in said))
    return described, module, str(source)


def tell_proof(report: "ParityReport") -> None:
    """The verdict in a few lines."""
    if not report.proved:
        tell(report.verdict, report.why)
        return
    rows = sum(part.rows for part in report.inputs)
    weights = "every weight, folded ones from the module's," if report.folded else "every weight"
    tell("proved", f"on {report.device}: every layer within its bound on {rows:,} rows, {weights} bit for bit")
    if (end := report.end_to_end) is not None:
        apart = f"{end.from_float64:.2g} from float64, {end.from_eager:.2g} from eager PyTorch"
        tell("", f"largest difference {apart}, where outputs reach {end.magnitude:.3g}")
    tell("warning", *report.warnings)


def _tell_unchanged(file: Path, certificate: Path, as_json: bool) -> None:
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
    if as_json:
        print_json({"unchanged": True, "path": file, "certificate": known})
    else:
        proved = f"on {known.device}, on {known.made}, by mlpx {known.versions.get('mlpx', '?')}"
        note(f"{file} ({record.size:,} bytes): unchanged since it was proved {proved}")


def _verify_live(live: Live, file: Path | None, certificate: Path | None, as_json: bool) -> None:
    """Ask a server, and tell what was found. Raises ProofError: FILE is not the certificate's."""
    from export.errors import ProofError
    from mlpx.errors import UNPROVED
    from runtime import check_live, read_certificate

    place = certificate or (file and file.with_suffix(".parity.json"))
    if place is None:
        raise BadParameter("--url needs --certificate NAME.parity.json, or FILE with that beside it")
    known = read_certificate(place)
    if not known.proved:
        raise ProofError(f"{known.path.name} does not give {known.file} the verdict 'proved': {known.why}")
    if file is not None and not known.is_of(file):
        hint = "name the file that was proved, or verify this one anew with --spec or --module"
        raise ProofError(f"{file} is not the file that {known.path} was made of. What to do: {hint}")
    report = check_live(certificate=known, token=os.environ.get("MLPX_TOKEN") or None, **vars(live))
    if as_json:
        print_json({"proved": report.proved, **asdict(report)})
    else:
        _tell_live(report)
    if not report.proved:
        raise Exit(UNPROVED)


def _tell_live(report: "LiveReport") -> None:
    from runtime.live.judging import USUAL

    requests = sum(one.requests for one in report.asked)
    travels = " and ".join(dict.fromkeys(one.tensors for one in report.asked))
    work = f"{report.rows:,} rows in {requests:,} requests, tensors as {travels}"
    tell("proved" if report.proved else "failed", f"{report.url}: {work if report.asked else 'no row was asked'}")
    if report.proved:
        was = "" if report.at_proof is None else f"; {report.at_proof:.2g} when the file was proved"
        tell("", f"largest difference {report.largest:.2g}, {report.share:.2g} of the bound there{was}")
        if told_apart := dict.fromkeys(name.partition(",")[0] for name in report.told_apart):
            tell("", f"nearer to the exact answers than to those of {', '.join(told_apart)}")
    tell("finding", *(finding.words for finding in report.findings))
    tell("cause", *report.causes)
    if not report.proved and len({one.largest > USUAL * (report.at_proof or 0) for one in report.asked}) == 2:
        for one in report.asked:
            requests = "a request" if one.requests == 1 else f"{one.requests:,} requests"
            tell("asked", f"{one.how}, {one.tensors}: {requests}, {one.largest:.2g} off at most")
    version = f", version {report.version}" if report.version else ""
    versions = f" (of {', '.join(report.versions)})" if len(report.versions) > 1 else ""
    tell("server", f"{report.server or 'without a name'}, {report.protocol}, model {report.model}{version}{versions}")
    tell("certified", f"{report.file}, SHA-256 {report.sha256[:16]}…, by {report.certificate}")
    tell("warning", *report.warnings)
