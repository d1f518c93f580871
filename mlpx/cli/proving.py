"""``mlpx verify``: does a file, or a live server, compute what its module computes? And how a proof is printed."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Exit

from mlpx.exit_codes import UNPROVED

from .answers import verify_answers
from .bounding import print_bound
from .certificates import check_unchanged, verify_device
from .live import LiveOptions, live_report, verify_live
from .networks import load_network
from .options import Data, Describe, Device, Dtype, Json, Page, TrustedKeys, Weights, refuse
from .repeating import RepeatOptions, repeat
from .signing import read_trusted
from .terminal import print_field, print_json, print_line

if TYPE_CHECKING:
    from export import ParityReport


def verify(
    file: Annotated[Path | None, Argument(metavar="FILE", help="The ONNX file; with --url it may be left out.")] = None,
    spec: Annotated[Path | None, "The spec of its network."] = None,
    weights: Weights = None,
    module: Annotated[
        str | None, "MODULE", "package.module:factory or path/to/file.py:name instead. Its code is run."
    ] = None,
    method: Annotated[str, "NAME", "The method of the module that FILE was made of."] = "forward",
    describe: Describe = None,
    certificate: Annotated[
        Path | None, "NAME.parity.json: check FILE and this device by it; with --spec or --module only FILE's hash."
    ] = None,
    trusted_keys: TrustedKeys = None,
    answers: Annotated[
        Path | None, "Inputs and answers saved where the network was trained (.npz or .csv), to compare FILE with."
    ] = None,
    output: Annotated[
        Path | None, "FOLDER", "A folder to write NAME.parity.json to; by default it is not written."
    ] = None,
    data: Data = None,
    device: Device = "auto",
    dtype: Dtype = None,
    seed: Annotated[int | None, "Seed of the drawn inputs, and of random weights; default: 0.", 0, 2**63 - 1] = None,
    html: Page = None,
    *,
    live: LiveOptions,
    repeated: RepeatOptions,
    as_json: Json = False,
) -> None:
    """Prove that FILE, or a live server, computes what its network computes: exit code 0 proved, 1 not."""
    refuse((repeated.every is None and repeated.metrics is not None, "--metrics goes with --every"))
    if live.url is not None:
        offline = {"spec": spec, "module": module, "weights": weights, "output": output, "data": data, "html": html}
        offline |= {"dtype": dtype, "device": None if device == "auto" else device, "seed": seed}
        offline |= {"method": None if method == "forward" else method, "answers": answers, "describe": describe}
        if needless := [f"--{name}" for name, value in offline.items() if value is not None]:
            raise BadParameter(f"--url checks a server by a certificate, and does not go with {', '.join(needless)}")
        if repeated.every is not None:
            from runtime.live.connection import parse_url

            parse_url(live.url)  # raises the error that says what is wrong with it
            repeat(lambda: live_report(live, file, certificate, trusted_keys), live.url, repeated, as_json)
        else:
            verify_live(live, file, certificate, trusted_keys, as_json)
        return
    if answers is not None:
        mixed = (spec, module, weights, output, data, html, dtype, seed, repeated.every)
        refuse(
            (file is None, "name the ONNX FILE whose answers are compared"),
            (any(each is not None for each in mixed), "--answers goes with FILE, --certificate and --device alone"),
            (live != LiveOptions(), "--tensors, --ca-file, --timeout, --confidence and --rate go with --url"),
            (bool(trusted_keys) and certificate is None, "--require-signature needs the --certificate that is signed"),
        )
        assert file is not None
        known = None if certificate is None else read_trusted(certificate, trusted_keys)
        verify_answers(file, answers, known, device, as_json)
        return
    alone = spec is None and module is None
    hint = "give the network with --spec or --module, or a --certificate to compare with"
    writes = output is not None or data is not None
    refuse(
        (live != LiveOptions(), "--tensors, --ca-file, --timeout, --confidence and --rate go with --url"),
        (file is None, "name the ONNX FILE, or a live server with --url"),
        (spec is not None and module is not None, "give --spec or --module, not both"),
        (alone and certificate is None, f"a file alone proves nothing: {hint}"),
        (alone and weights is not None, "--weights goes with --spec or --module"),
        (module is None and describe is not None, "--describe goes with --module: a spec describes its own features"),
        (bool(html) and output is None, "--html needs -o, the folder to write the page to"),
        (bool(trusted_keys) and certificate is None, "--require-signature needs the --certificate that is signed"),
        (alone and writes, "a certificate alone has rows of its own: -o and --data need --spec or --module"),
        (not alone and repeated.every is not None, "--every repeats a check by a certificate: not --spec or --module"),
    )
    assert file is not None
    if alone and certificate is not None:
        if repeated.every is None:
            verify_device(file, read_trusted(certificate, trusted_keys), device, as_json)
        else:
            from runtime import check_device

            repeat(
                lambda: check_device(file, read_trusted(certificate, trusted_keys), device),
                *(str(file), repeated, as_json),
            )
        return
    if certificate is not None:
        check_unchanged(file, read_trusted(certificate, trusted_keys))
    from runtime.session.trial import trial

    with trial(file, device):  # in a process of its own, while these are imported
        from builder import load_port_specs
        from export import load_module, verify
        from export.proof import can_write_page, write_page
        from runtime import whole_files

    parsed, source = None, str(module)
    if spec is not None:
        parsed, network, origin = load_network(spec, weights, dtype=dtype, may_be_random=False)
        source = f"{spec} with {origin}"
    else:
        network = load_module(source, weights=weights, seed=seed)
    options: dict[str, Any] = {"spec": parsed, "device": device, "data": data, "dtype": dtype}
    options |= {"seed": seed or 0, "method": method}
    options |= {"features": load_port_specs(describe) if describe is not None else None}
    with whole_files(output) if output is not None else nullcontext() as folder:  # before the work, if it is unusable
        report = verify(network, file, **options).model_copy(update={"source": source})
        if folder is not None:
            report.write(folder / f"{file.stem}.parity.json")
            if can_write_page() if html is None else html:
                write_page(report, folder / f"{file.stem}.parity.html")
    if as_json:
        print_json(report)
    else:
        print_proof(report)
        print_field("module", source)
        for check in report.checks:
            print_line(f"  {check.outcome:<8} {check.name:<13} {check.words}", hang=25)
    if not report.proved:
        raise Exit(UNPROVED)


def print_proof(report: "ParityReport") -> None:
    """Print the verdict in a few lines."""
    if not report.proved:
        print_field(report.verdict, report.why)
        return
    rows = sum(part.rows for part in report.inputs)
    weights = "every weight, folded ones from the module's," if report.folded else "every weight"
    print_field("proved", f"on {report.device}: every layer within its bound on {rows:,} rows, {weights} bit for bit")
    if (end := report.end_to_end) is not None:
        differences = f"{end.from_float64:.2g} from float64, {end.from_eager:.2g} from eager PyTorch"
        print_field("", f"largest difference {differences}, where outputs reach {end.magnitude:.3g}")
    if report.bound is not None:
        print_bound(report.bound)
    print_field("warning", *report.warnings)
