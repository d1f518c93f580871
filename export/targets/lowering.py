"""The network of a file in an older opset or IR version, for a server that cannot read the file."""

from __future__ import annotations

from pathlib import Path

from builder import MLPSpec, RecoveryError
from export.errors import ExportError, ProofError, TargetError
from export.proof.verification import verify
from export.publishing import publish
from export.recovery.recovered import Recovered
from export.recovery.recovering import read_network
from runtime import Summary


def lower_for(path: Path, summary: Summary, target: str, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Write the network of a file to ``folder`` in the opset and IR version of a server, such as "triton:21.12".

    The network is read from the file's operators and weights, and proved twice on the CPU: the old file computes it,
    and the new one does. Raises TargetError: the network cannot be read or written so; ProofError.
    Returns: the new file, whose certificate lies beside it, and what there is to say of it, a line each.
    """
    versions = f"{path.name} has opset {summary.opset} and IR {summary.ir_version}"
    hint = f"export the module anew with --for {target}, or package for a newer release (--target-version)"
    try:
        found = read_network(path, name=path.stem, keep_shape=True)
        module = found.module()
        before = verify(module, path, device="cpu")
        if not before.proved:
            raise ProofError(f"{versions}, and the network read from it is {before.verdict}: {before.why}", before)
        artifact, _ = publish(
            module, folder / path.name, spec=_described(found, summary), target=target, device="cpu", page=False
        )
    except (RecoveryError, ExportError) as error:
        reason = str(error).partition(". What to do: ")[0]
        message = f"{versions}; {target} does not read that, and it cannot be lowered: {reason}"
        raise TargetError(f"{message}. What to do: {hint}") from None
    note = (
        f"{versions}, more than {target} reads: its network was written anew in opset {artifact.summary.opset}, "
        f"IR {artifact.summary.ir_version} and proved anew on cpu, and the package holds that file and its certificate"
    )
    return artifact.path, (note, *(f"of the file: {line}" for line in found.notes if "spec" not in line))


def _described(found: Recovered, summary: Summary) -> MLPSpec:
    """The spec that was read, with what the file's own one says of input and output: ranges, features, labels."""
    read, own = found.spec.model_dump(exclude_none=True), summary.spec or {}
    try:
        ports = {key: own.get(key, read[key]) | {"name": read[key]["name"]} for key in ("input", "output")}
        spec = MLPSpec.model_validate(read | ports)
    except (ValueError, TypeError, AttributeError):  # written by another tool
        return found.spec
    return spec if spec.input.row_shape == found.spec.input.row_shape else found.spec
