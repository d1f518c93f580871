"""From somebody's file to a spec, weights and a file of our own: read, prove, publish."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
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

_ROWS = 1000


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

    An ONNX file is proved to be the recovered network, layer by layer (``NAME.original.parity.json``), and the network
    is published anew beside them, proved too, with a free batch dimension. A checkpoint has no program to compare with:
    build its spec to go on.
    ``options`` are those of ``builder.read_network``.

    Raises RecoveryError; ProofError: the recovered network is not proved to be the file, and nothing is written.
    """
    path, folder = Path(path), Path(folder)
    found = read_network(path, **options)
    name = found.spec.name
    recovery = Recovery(found.spec, folder / "spec.yaml", folder / "weights.safetensors", found.notes)
    if not is_onnx(path):
        with whole_files(folder) as stage:
            _write(found, stage)
        return recovery
    module = _network(found)
    original = _proved(module, found, path, device, seed)
    with whole_files(folder) as stage:
        _write(found, stage)
        original.write(stage / f"{name}.original.parity.json")
        artifact, report = publish(
            module, folder / f"{name}.onnx", spec=found.spec, device=device, seed=seed, page=page
        )
    apart, rows = _apart(path, artifact.path, found, device, seed)
    return replace(recovery, original=original, artifact=artifact, report=report, apart=apart, rows=rows)


def _write(found: Recovered, folder: Path) -> None:
    (folder / "spec.yaml").write_text(as_yaml(found.spec), encoding="utf-8")
    held: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for key, value in found.weights.items():  # safetensors takes no tensors that share their memory
        held[key] = value.clone() if value.data_ptr() in seen else value.contiguous()
        seen.add(value.data_ptr())
    save_file(held, folder / "weights.safetensors")


def _proved(module: nn.Sequential, found: Recovered, path: Path, device: str, seed: int) -> ParityReport:
    """The old file, layer by layer, against the recovered network. Raises ProofError."""
    given = module if found.flattened is None else nn.Sequential(nn.Flatten(), *module)
    report = examine(given, path, device=device, seed=seed, inactive_dropout=True)
    if not report.proved:
        verdict = "not" if report.verdict == "failed" else "not proved to be"
        why = f"the recovered network is {verdict} what {path} computes: {report.why}"
        raise ProofError(f"{why}; nothing was written. What to do: recover it from the weights instead", report)
    return report


def _network(found: Recovered) -> nn.Sequential:
    module = assemble(found.spec)
    module.load_state_dict(found.weights, assign=True)
    return module.eval()


def _apart(old: Path, new: Path, found: Recovered, device: str, seed: int) -> tuple[float, int]:
    """The largest difference of the outputs of both files on the same rows, and how many rows."""
    rows = np.random.default_rng(seed).standard_normal((_ROWS, *found.spec.input.row_shape), dtype=np.float32)
    with Session(old, device) as before, Session(new, device) as after:
        (port,) = before.inputs
        feed = {port.name: rows if found.flattened is None else rows.reshape(-1, *found.flattened)}
        size = port.shape[0]
        values = in_batches(before.run, feed, size) if isinstance(size, int) else before.run(feed)
        (first,), second = values.values(), after.predict(rows)
    return float(apart(first.reshape(second.shape), second.astype(np.float64)).max()), len(rows)
