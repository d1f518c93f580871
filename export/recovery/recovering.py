"""From somebody's file to a spec, weights and a file of our own: read, prove, publish."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from builder import MLPSpec, RecoveryError, assemble
from builder.writing import as_yaml
from export.artifact import Artifact
from export.errors import ProofError
from export.onnxfile.reading import external_data
from export.proof import ParityReport
from export.proof.calling import apart
from export.proof.recording import Recording
from export.proof.rows import in_batches
from export.proof.verification import examine
from export.publishing import publish
from runtime import Session, choose, sha256, this_machine, whole_files

from .network import is_onnx, read_network
from .recovered import Recovered

_ROWS = 1000
_KEEP = "choose another folder with -o, or replace it with --replace (replace=True)"


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
    replace: bool = False,
    **options: Any,
) -> Recovery:
    """Write ``spec.yaml`` and ``weights.safetensors`` of the dense network in a checkpoint or an ONNX file.

    An ONNX file is proved to be the recovered network, layer by layer (``NAME.original.parity.json``), and the network
    is published anew beside them, proved too, with a free batch dimension. A checkpoint has no program to compare with:
    build its spec to go on.
    ``replace`` lets another spec and other weights in the folder be overwritten. ``options`` are those of
    ``export.read_network``.

    Raises RecoveryError; ProofError: the recovered network is not proved to be the file, and nothing is written.
    """
    path, folder = Path(path), Path(folder)
    found = read_network(path, **options)
    name = found.spec.name
    recovery = Recovery(found.spec, folder / "spec.yaml", folder / "weights.safetensors", found.notes)
    choose(device, this_machine(cuda=device != "cpu"))  # before any work
    onnx = is_onnx(path)
    _refuse_overwriting(path, recovery, onnx, replace)
    if not onnx:
        with whole_files(folder) as stage:
            _write(found, stage, folder, replace)
        return recovery
    module = _network(found)
    rows, before, notes = _outputs(path, found, device, seed)
    recovery = dataclasses.replace(recovery, notes=(*recovery.notes, *notes))
    recording = Recording()
    original = _proved(module, found, path, device, seed, recording)
    with whole_files(folder) as stage:
        _write(found, stage, folder, replace)
        original.write(stage / f"{name}.original.parity.json")
        target = folder / f"{name}.onnx"
        asked = {"device": device, "seed": seed, "page": page, "recording": recording}
        artifact, report = publish(module, target, spec=found.spec, **asked)
    with Session(artifact.path, device) as session:
        after = session.predict(rows)
    difference = float(apart(before.reshape(after.shape), after.astype(np.float64)).max())
    proofs = {"original": original, "artifact": artifact, "report": report}
    return dataclasses.replace(recovery, **proofs, apart=difference, rows=len(rows))


def _write(found: Recovered, stage: Path, folder: Path, replace: bool) -> None:
    """Write spec and weights. Raises RecoveryError: other weights are there already, which would be lost."""
    (stage / "spec.yaml").write_text(as_yaml(found.spec), encoding="utf-8")
    held: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for key, value in found.weights.items():  # safetensors takes no tensors that share their memory
        memory = value.untyped_storage().data_ptr()
        held[key] = value.clone() if memory in seen else value.contiguous()
        seen.add(memory)
    written, there = stage / "weights.safetensors", folder / "weights.safetensors"
    save_file(held, written)
    if there.is_file() and not replace and sha256(there) != sha256(written):
        raise RecoveryError(f"{there} is there, and holds other weights. What to do: {_KEEP}")


def _refuse_overwriting(path: Path, recovery: Recovery, onnx: bool, replace_old: bool) -> None:
    """Raise RecoveryError where the file itself, or another spec than the one to be written, would be lost."""
    folder, name = recovery.spec_path.parent, recovery.spec.name
    targets = [recovery.spec_path, recovery.weights_path, *([folder / f"{name}.onnx"] if onnx else [])]
    own = {path.resolve(), *(part.resolve() for part in (external_data(path).values() if onnx else ()))}
    lost = next((target for target in targets if target.resolve() in own), None)
    if lost is not None:
        raise RecoveryError(f"{lost} would be overwritten by what is recovered from it. What to do: another folder, -o")
    old = recovery.spec_path.read_text(encoding="utf-8") if recovery.spec_path.is_file() else None
    if old is not None and old != as_yaml(recovery.spec) and not replace_old:
        raise RecoveryError(f"{recovery.spec_path} is there, and is another spec. What to do: {_KEEP}")


def _proved(
    module: nn.Sequential, found: Recovered, path: Path, device: str, seed: int, recording: Recording
) -> ParityReport:
    """The old file, layer by layer, against the recovered network. Raises ProofError."""
    given = module if found.flattened is None else nn.Sequential(nn.Flatten(), *module)
    report = examine(given, path, device=device, seed=seed, recovering=True, recording=recording)
    if not report.proved:
        verdict = "not" if report.verdict == "failed" else "not proved to be"
        why = f"the recovered network is {verdict} what {path} computes: {report.why}"
        raise ProofError(f"{why}; nothing was written. What to do: recover it from the weights instead", report)
    return report


def _network(found: Recovered) -> nn.Sequential:
    module = assemble(found.spec)
    module.load_state_dict(found.weights, assign=True)
    return module.eval()


def _outputs(path: Path, found: Recovered, device: str, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows for the network, what the old file gives for them, and a note on its shape. Raises RecoveryError."""
    rows = np.random.default_rng(seed).standard_normal((_ROWS, *found.spec.input.row_shape), dtype=np.float32)
    with Session(path, device) as session:
        (port,) = session.inputs
        if len(port.shape) < 2:
            message = f"{path}: its input '{port.name}' has shape {list(port.shape)}, without a batch dimension"
            raise RecoveryError(f"{message}. What to do: export it from PyTorch again, with one")
        feed = {port.name: rows if found.flattened is None else rows.reshape(-1, *found.flattened)}
        size = port.shape[0]
        values = in_batches(session.run, feed, size) if isinstance(size, int) else session.run(feed)
    (before,) = values.values()
    given, wanted = list(before.shape[1:]), list(found.spec.output_shape)
    notes = [f"the file gives rows of shape {given}, and the network of shape {wanted}"] if given != wanted else []
    return rows, before, notes
