"""Lowering: the network of a file in an older opset or IR version, for a server that cannot read the file."""

from __future__ import annotations

from pathlib import Path

from builder import MLPSpec, RecoveryError
from export.errors import ExportError, ProofError, TargetError
from export.proof.verify import verify
from export.publishing import publish
from export.recovery.recovered import Recovered
from export.recovery.recovering import read_network
from runtime import Summary


def lower_for(path: Path, summary: Summary, target: str, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Write the network of a file to ``folder`` in the opset and IR version of a server, such as "triton:21.12".

    The network is read from the file's operators and weights, and proved twice on the CPU: the old file computes it,
    and the new one does. Raises TargetError: the network cannot be read back, or written in these; ProofError.
    Returns: the new file, whose certificate lies beside it, and notes on the change, a line each.
    """
    versions = f"{path.name} has opset {summary.opset} and IR {summary.ir_version}"
    hint = f"export the module again with --for {target}, or package for a newer release (--target-version)"
    try:
        recovered = read_network(path, name=path.stem, keep_shape=True)
        module = recovered.module()
        report = verify(module, path, device="cpu")
        if not report.proved:
            raise ProofError(f"{versions}, and the network read from it is {report.verdict}: {report.why}", report)
        artifact, _ = publish(
            module, folder / path.name, spec=_spec(recovered, summary), target=target, device="cpu", page=False
        )
    except (RecoveryError, ExportError) as error:
        reason = str(error).partition(". What to do: ")[0]
        message = f"{versions}; {target} does not read that, and it cannot be lowered: {reason}"
        raise TargetError(f"{message}. What to do: {hint}") from None
    note = (
        f"{versions}, more than {target} reads: its network was rewritten in opset {artifact.summary.opset}, "
        f"IR {artifact.summary.ir_version} and proved again on cpu; the package holds that file and its certificate"
    )
    return artifact.path, (note, *(f"of the file: {line}" for line in recovered.notes if "spec" not in line))


def _spec(recovered: Recovered, summary: Summary) -> MLPSpec:
    """The recovered spec, with what the file's metadata says of its input and output, and its period."""
    if not recovered.spec.is_plain:  # it is the file's own
        return recovered.spec
    record, stored = recovered.spec.model_dump(exclude_none=True), summary.spec or {}
    try:
        ports = {key: stored.get(key, record[key]) | {"name": record[key]["name"]} for key in ("input", "output")}
        period = {key: stored[key] for key in ("period",) if key in stored}
        spec = MLPSpec.model_validate(record | ports | period)
    except (ValueError, TypeError, AttributeError):  # written by another tool
        return recovered.spec
    return spec if spec.input.row_shape == recovered.spec.input.row_shape else recovered.spec
