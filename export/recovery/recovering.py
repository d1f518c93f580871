"""Recovers a network from a file: reads it, proves an ONNX file, and publishes the network in a new file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import nn

from builder import MLPSpec, RecoveryError
from builder.documents import as_yaml
from export.artifact import Artifact
from export.errors import ProofError
from export.onnxfile.reading import read_model
from export.onnxfile.source import external_data
from export.proof import ParityReport
from export.proof.instrumented import Recording
from export.proof.rows import absolute_difference, in_batches
from export.proof.verify import prove
from export.publishing import publish
from runtime import Session, choose, sha256, this_machine, whole_files
from runtime.timing.rows import described_inputs, seeded_rows

from .checkpoint import read_checkpoint
from .checkpoint_file import first_bytes
from .onnx_network import OnnxNetwork, read_onnx_network
from .options_given import flags, used_options
from .recovered import Recovered
from .rounding import reference_outputs
from .row_form import in_row_form
from .runs.reading import read_run, run_of

_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".tar", ".zip")
_ROWS = 1000
_KEEP = "choose another folder with -o, or replace it with --replace (replace=True)"


def is_onnx(path: str | Path) -> bool:
    """Whether a file is read as ONNX: by its name, or by its first byte if the name does not say."""
    path = Path(path)
    if path.is_dir():
        return False
    if path.suffix.lower() == ".onnx":
        return True
    head = first_bytes(path)
    # An ONNX file starts with the field of its IR version; a safetensors header has a brace after its length.
    return head.startswith(b"\x08") and head[8:] != b"{" and path.suffix.lower() not in _CHECKPOINTS


def read_network(path: str | Path, *, keep_shape: bool = False, name: str | None = None, **options: Any) -> Recovered:
    """The dense network in an ONNX file (see ``read_onnx``), a checkpoint (see ``read_checkpoint``) or a run's folder.

    Where the folder of a training run says what an option would, the option may be left out; the same holds for a
    checkpoint in such a folder. ``joints`` are the names of the robot's joints in the order of the simulation.

    Raises RecoveryError: as those, for options of another kind of file, and for options that contradict the folder.

    Examples:
        >>> from export import read_network
        >>> read_network("comfort.onnx", name="other").spec.name
        'other'
    """
    used = used_options(options)
    if not is_onnx(path):
        if keep_shape:
            raise RecoveryError(f"{path}: --keep-shape is for ONNX files; a checkpoint holds no shape of its input")
        found = run_of(Path(path), used)
        if found is not None:
            return read_run(*found, name=name, **used)
        if "joints" in used:
            raise RecoveryError(f"{path}: --joints is for the folder of a training run, and none is around this file")
        return read_checkpoint(path, name=name, **used)
    return _read_onnx(path, keep_shape, name, used).recovered


def _read_onnx(path: str | Path, keep_shape: bool, name: str | None, options: Mapping[str, Any]) -> OnnxNetwork:
    """The network in an ONNX file. Raises RecoveryError: as ``read_onnx``, and for options of other kinds of file."""
    if surplus := [key for key in options if key != "dtype"]:
        raise RecoveryError(f"{path}: an ONNX file defines its layers itself. What to do: leave out {flags(surplus)}")
    return read_onnx_network(path, keep_shape=keep_shape, name=name, dtype=options.get("dtype"))


_MOST_PROVED = 1024
"""Blocks; far more than any dense network has. Each takes about 30 ms to prove, in the file and in the new one."""


@dataclass(frozen=True)
class Recovery:
    """What was written, and what was proved of it.

    Examples:
        Continues the example of ``mlpx.recover``:

        >>> recovery.weights_path.name, recovery.artifact.proved
        ('weights.safetensors', True)
    """

    spec: MLPSpec
    spec_path: Path
    weights_path: Path
    notes: tuple[str, ...]
    """What was detected, chosen by default or left out, a line each."""
    original: ParityReport | None = None
    """Of the old ONNX file against the recovered network; None for a checkpoint, and a file that is only compared."""
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
    """Write ``spec.yaml`` and ``weights.safetensors`` of the network in a checkpoint, a run's folder or an ONNX file.

    An ONNX file is proved to be the recovered network, layer by layer (``NAME.original.parity.json``); then the network
    is published as a new file in the folder, also proved, with a free batch dimension. A file of float64
    (``dtype="float32"``) or with the operator Softsign is compared with the network instead. A checkpoint has no
    program to compare with: build its spec to go on.
    ``replace`` allows overwriting another spec and other weights in the folder. ``options`` are those of
    ``export.read_network``.

    Raises RecoveryError; ProofError: the file is not proved to be the recovered network, and nothing is written.

    Examples:
        >>> from mlpx import recover
        >>> recovery = recover("comfort.onnx", "recovered", device="cpu", replace=True)
        >>> recovery.spec_path.name, recovery.original.verdict
        ('spec.yaml', 'proved')
    """
    path, folder = Path(path), Path(folder)
    onnx = is_onnx(path)
    old = (
        _read_onnx(path, options.pop("keep_shape", False), options.pop("name", None), used_options(options))
        if onnx
        else None
    )
    network = old.recovered if old is not None else read_network(path, **options)
    name = network.spec.name
    recovery = Recovery(network.spec, folder / "spec.yaml", folder / "weights.safetensors", network.notes)
    choose(device, this_machine(cuda=device != "cpu"))  # an unknown device is refused before any work
    _refuse_overwriting(path, recovery, onnx, replace)
    if onnx and len(network.spec.blocks) > _MOST_PROVED:
        most = f"at most {_MOST_PROVED:,} are proved, which takes half a minute"
        hint = "What to do: read it with export.read_onnx in Python, which proves nothing"
        raise RecoveryError(f"{path} has {len(network.spec.blocks):,} blocks; {most}. {hint}")
    if old is None:
        with whole_files(folder) as stage:
            _write(network, stage, folder, replace)
        return recovery
    module = network.module()
    rows, before, notes = _outputs(path, old, device, seed)
    notes += [f"{old.unproved}: compared, not proved"] if old.unproved else []
    recording = Recording()
    original = None if old.unproved else _proved(module, old, path, device, seed, recording)
    with whole_files(folder) as stage:
        _write(network, stage, folder, replace)
        if original is not None:
            original.write(stage / f"{name}.original.parity.json")
        artifact, report = publish(
            *(module, folder / f"{name}.onnx"),
            spec=network.spec,
            device=device,
            seed=seed,
            page=page,
            recording=recording,
        )
    with Session(artifact.path, device) as session:
        after = session.predict(rows)
    difference = float(absolute_difference(before.reshape(after.shape), after.astype(np.float64)).max())
    notes = (*network.notes, *notes)
    return dataclasses.replace(
        recovery, notes=notes, original=original, artifact=artifact, report=report, apart=difference, rows=len(before)
    )


def _write(network: Recovered, stage: Path, folder: Path, replace: bool) -> None:
    """Write spec and weights. Raises RecoveryError: the folder holds other weights, which would be lost."""
    (stage / "spec.yaml").write_text(as_yaml(network.spec), encoding="utf-8")
    new, old = stage / "weights.safetensors", folder / "weights.safetensors"
    save_file(network.weights, new)
    if old.is_file() and not replace and sha256(old) != sha256(new):
        raise RecoveryError(f"{old} exists and holds other weights. What to do: {_KEEP}")


def _refuse_overwriting(path: Path, recovery: Recovery, onnx: bool, replace: bool) -> None:
    """Raise RecoveryError if the file itself, or another spec in the folder, would be lost."""
    folder, name = recovery.spec_path.parent, recovery.spec.name
    targets = [recovery.spec_path, recovery.weights_path, *([folder / f"{name}.onnx"] if onnx else [])]
    sources = {path.resolve(), *(part.resolve() for part in (external_data(path).values() if onnx else ()))}
    lost = next((target for target in targets if target.resolve() in sources), None)
    if lost is not None:
        hint = "What to do: choose another folder, with -o"
        raise RecoveryError(f"{lost} would be overwritten by the network that is recovered from it. {hint}")
    old = recovery.spec_path.read_text(encoding="utf-8") if recovery.spec_path.is_file() else None
    if old is not None and old != as_yaml(recovery.spec) and not replace:
        raise RecoveryError(f"{recovery.spec_path} exists and is another spec. What to do: {_KEEP}")


def _proved(
    module: nn.Sequential, old: OnnxNetwork, path: Path, device: str, seed: int, recording: Recording
) -> ParityReport:
    """The report on the old file, layer by layer against the recovered network, before a cut. Raises ProofError."""
    computes = old.uncut or module
    computes = computes if old.recovered.flattened is None else nn.Sequential(nn.Flatten(), *computes)
    how: dict[str, Any] = {"recording": recording}
    if old.form is not None:  # another module than the new file's may be proved, so nothing is recorded for that
        form = in_row_form(read_model(path, recovering=True)) or old.form  # of the file as it is now
        how = {"model": form.model, "opener": form.opener(device)}
    report = prove(computes, path, device=device, seed=seed, recovering=True, **how)
    if not report.proved:
        verdict = "not" if report.verdict == "failed" else "not proved to be"
        message = f"the recovered network is {verdict} what {path} computes: {report.why}"
        hint = "What to do: recover it from the weights instead"
        raise ProofError(f"{message}; nothing was written. {hint}", report)
    return report


def _outputs(
    path: Path, old: OnnxNetwork, device: str, seed: int
) -> tuple[np.ndarray | dict[str, np.ndarray], np.ndarray, list[str]]:
    """Random rows, the old file's outputs for them, and a note if their shape differs."""
    network = old.recovered
    if not network.spec.is_plain:
        with Session(path, device) as session:
            drawn = seeded_rows(described_inputs(session), _ROWS)
            (before,) = session.run(drawn).values()
        return drawn, before, []
    rows = np.random.default_rng(seed).standard_normal((_ROWS, *network.spec.input.row_shape), dtype=np.float32)
    if old.rounded:
        return rows, reference_outputs(path, rows), []
    if old.form is not None and old.form.one_row:
        with closing(old.form.opener(device)(path)) as running:
            (before,) = running.run({old.form.model.inputs[0].name: rows}).values()
        return rows, before, []
    with Session(path, device) as session:
        (port,) = session.inputs
        feed = {port.name: rows if network.flattened is None else rows.reshape(-1, *network.flattened)}
        size = port.shape[0]
        outputs = in_batches(session.run, feed, size) if isinstance(size, int) else session.run(feed)
    (before,) = outputs.values()
    shape, expected = list(before.shape[1:]), list(network.spec.output_shape)
    notes = [f"the file gives rows of shape {shape}, and the network of shape {expected}"] if shape != expected else []
    return rows, before, notes
