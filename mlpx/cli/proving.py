"""What ``build``, ``export``, ``recover`` and ``verify`` share: a network by its spec, and what is said of a proof."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import note, print_json, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from builder import MLPSpec
    from export import Artifact, ParityReport
    from runtime import Port


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


def tell_written(artifact: "Artifact", report: "ParityReport", as_json: bool, **more: Any) -> None:
    """The file that was published, what was folded, and what was proved."""
    summary = artifact.summary
    assert summary is not None
    if as_json:
        record = {"path": artifact.path, "bytes": artifact.size, "proved": artifact.proved, **more}
        print_json(record | {"summary": summary, "parity": report})
        return
    versions = f"opset {summary.opset}, IR {summary.ir_version}" + (f", for {summary.target}" if summary.target else "")
    tell("written", f"{artifact.path} ({artifact.size:,} bytes, {versions})")
    for key, value in more.items():
        tell(key, value)
    tell("signature", f"{_listed(summary.inputs)} -> {_listed(summary.outputs)}")
    tell("folded", *summary.folded)
    tell("remark", *summary.remarks)
    tell_proof(report)
    reports = [artifact.path.with_suffix(suffix) for suffix in (".parity.json", ".parity.html")]
    tell("report", ", ".join(str(path) for path in reports if path.exists()))


def _listed(ports: "Sequence[Port]") -> str:
    return ", ".join(f"{port.name} [{', '.join(map(str, port.shape))}]" for port in ports)


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
