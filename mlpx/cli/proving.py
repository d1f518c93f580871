"""What ``build``, ``export`` and ``verify`` say of a file and its proof."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .options import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from export import Artifact, ParityReport
    from runtime import Port


def tell_written(artifact: "Artifact", report: "ParityReport", as_json: bool, **more: Any) -> None:
    """The file that was published, what was folded, and what was proved."""
    summary = artifact.summary
    assert summary is not None
    if as_json:
        record = {"path": artifact.path, "bytes": artifact.size, "proved": artifact.proved, **more}
        print_json(record | {"summary": asdict(summary), "parity": json.loads(report.model_dump_json())})
        return
    versions = f"opset {summary.opset}, IR {summary.ir_version}" + (f", for {summary.target}" if summary.target else "")
    print(f"written   {artifact.path} ({artifact.size:,} bytes, {versions})")
    for key, value in more.items():
        print(f"{key:<9} {value}")
    print(f"signature {_listed(summary.inputs)} -> {_listed(summary.outputs)}")
    for kind, lines in (("folded", summary.folded), ("remark", summary.remarks)):
        for line in lines:
            print(f"{kind:<9} {line}")
    tell_proof(report)
    written = [artifact.path.with_suffix(suffix) for suffix in (".parity.json", ".parity.html")]
    print(f"report    {', '.join(str(path) for path in written if path.exists())}")


def _listed(ports: "Sequence[Port]") -> str:
    return ", ".join(f"{port.name} [{', '.join(map(str, port.shape))}]" for port in ports)


def tell_proof(report: "ParityReport") -> None:
    """The verdict in a few lines."""
    if not report.proved:
        print(f"{report.verdict:<9} {report.why}")
        return
    rows = sum(given.rows for given in report.inputs)
    weights = "every weight, folded ones from the module's," if report.folded else "every weight"
    print(f"proved    on {report.device}: every layer within its bound on {rows:,} rows, {weights} bit for bit")
    if (end := report.end_to_end) is not None:
        apart = f"{end.from_float64:.2g} from float64, {end.from_eager:.2g} from eager PyTorch"
        print(f"          largest difference {apart}, where outputs reach {end.magnitude:.3g}")
    for warning in report.warnings:
        print(f"warning   {warning}")
