"""From somebody's file to a spec, weights and a file of our own: read, prove, publish."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import nn

from builder import MLPSpec, Recovered, assemble, read_network
from builder.recovery.network import is_onnx
from builder.writing import as_yaml
from runtime import Session, whole_files

from .artifact import Artifact
from .errors import ProofError
from .proof import ParityReport
from .proof.calling import apart
from .proof.rows import in_batches
from .proof.verification import examine
from .publishing import publish


@dataclass(frozen=True)
class Recovery:
    """What was written, and what was proved of it."""

    spec: MLPSpec
    spec_path: Path
    weights_path: Path
    notes: tuple[str, ...]
    """What was found, chosen by default or left out, a line each."""
    original: ParityReport | None = None
    """Of the old ONNX file against the recovered network."""
    artifact: Artifact | None = None
    report: ParityReport | None = None
    """Of the new file."""
    apart: float | None = None
    """The largest difference between the outputs of the old file and the new one, over ``rows`` rows."""
    rows: int = 0


def recover(
    path: str | Path,
    folder: str | Path,
    *,
    device: str = "auto",
    seed: int = 0,
    page: bool | None = None,
    **options: Any,
) -> Recovery:
    """Write ``spec.yaml`` and ``weights.safetensors`` of the dense network in a checkpoint or an ONNX file.

    An ONNX file is proved to be the recovered network, layer by layer, and the network is published anew beside them,
    proved too, with a free batch dimension. A checkpoint has no program to compare with: build its spec to go on.
    ``options`` are those of ``builder.read_network``.

    Raises RecoveryError; ProofError: the recovered network is not proved to be the file, and nothing is written.
    """
    path, folder = Path(path), Path(folder)
    found = read_network(path, **options)
    paths = (folder / "spec.yaml", folder / "weights.safetensors")
    recovery = Recovery(found.spec, *paths, found.notes)
    module = None
    if is_onnx(path):
        module = _network(found)
        given = _as_in_file(module, found)
        original = examine(given, path, device=device, seed=seed, inactive_dropout=True)
        if not original.proved:
            verdict = "not" if original.verdict == "failed" else "not proved to be"
            why = f"the recovered network is {verdict} what {path} computes: {original.why}"
            raise ProofError(f"{why}; nothing was written. What to do: recover it from the weights instead", original)
    with whole_files(folder) as stage:
        (stage / "spec.yaml").write_text(as_yaml(found.spec), encoding="utf-8")
        save_file({key: value.contiguous() for key, value in found.weights.items()}, stage / "weights.safetensors")
        if module is not None:
            target = folder / f"{found.spec.name}.onnx"
            artifact, report = publish(module, target, spec=found.spec, device=device, seed=seed, page=page)
            recovery = replace(recovery, artifact=artifact, report=report)
    return recovery if module is None else _compared(recovery, path, found, device, seed)


def _network(found: Recovered) -> nn.Sequential:
    module = assemble(found.spec)
    module.load_state_dict(found.weights, assign=True)
    return module.eval()


def _as_in_file(module: nn.Sequential, found: Recovered) -> nn.Module:
    """The network with the Flatten that was left out of it."""
    return module if found.flattened is None else nn.Sequential(nn.Flatten(), *module)


def _compared(recovery: Recovery, old: Path, found: Recovered, device: str, seed: int) -> Recovery:
    """End to end: the old file and the new one on the same rows."""
    assert recovery.artifact is not None
    shape = found.spec.input.row_shape
    rows = np.random.default_rng(seed).standard_normal((1000, *shape), dtype=np.float32)
    with Session(old, device) as before, Session(recovery.artifact.path, device) as after:
        (port,) = before.inputs
        given = rows if found.flattened is None else rows.reshape(-1, *found.flattened)
        feed = {port.name: given}
        run = before.run
        size = port.shape[0]
        values = in_batches(run, feed, size) if isinstance(size, int) else run(feed)
        (first,), second = values.values(), after.predict(rows)
    difference = float(apart(first.reshape(second.shape), second.astype(np.float64)).max())
    return replace(recovery, apart=difference, rows=len(rows))
