"""The bounds of an ONNX file: its network read back from it or given as a module, its box, its certificate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from builder import RecoveryError
from export.evaluation import threads_for
from export.exporting import evaluated_copy
from export.onnxfile.model import Model
from export.onnxfile.reading import read_model
from export.proof.interface import output_ports, ports_of
from export.proof.running import FileRunner, on_device
from export.proof.structure import Structure, match
from export.proof.verify import Data, given_rows, traced_for
from export.recovery.onnx_network import read_onnx
from export.trace.signature import Example
from runtime import InputError, read_certificate

from .bounding import SECONDS, Bounding
from .boxes import Ranges, box_of
from .report import BoundReport


def bound(
    path: str | Path,
    module: nn.Module | None = None,
    *,
    ranges: Ranges | None = None,
    seconds: float = SECONDS,
    certificate: str | Path | None = None,
    data: Data | None = None,
    device: str = "auto",
    dtype: str | None = None,
    example: Example | None = None,
    method: str = "forward",
) -> BoundReport:
    """How far a correct float32 runtime may be from the network of a proved ONNX file, for every input of a box.

    Args:
        path: the file. It rests on its certificate: what the runtime computes is within the rules of the proof.
        module: the network, where it cannot be read back from the file (as ``recover`` does).
        ranges: the box: (low, high) for every feature of every input, or for each input by its name such a pair or one
            for each feature; by default the ranges that the file declares.
        seconds: how long to make the bound smaller, about.
        certificate: by default NAME.parity.json beside the file.
        data: rows for a classifier: how many have a margin that no correct runtime can turn; see ``verify``.
        device: "cpu", "cuda" or "auto", where the largest error is searched.
        dtype: "float32" for a module or data of another dtype.
        example: tensors to call the module with, as for ``export``.
        method: the module's method that the file was made of.

    Raises InputError: no range, or no certificate of this file; ModelError: a file that cannot be read or run;
    ExportError: a module that is not the file's network.

    Examples:
        >>> from mlpx import bound
        >>> report = bound("comfort.onnx", ranges={"air": (0, 30)}, seconds=0.2, device="cpu")
        >>> 0 < report.largest < 1e-3
        True
    """
    path = Path(path)
    _require_proof(path, certificate)
    model = read_model(path, recovering=module is None)
    assert model.source is not None
    ports, labelled = ports_of(model), output_ports(model)
    structure = structure_of(model, module, dtype, example, method)
    box = box_of(structure.wiring.inputs, ports, ranges)
    rows = None
    if data is not None:
        rows, _ = given_rows(data, ports, tuple(structure.wiring.inputs), dtype)
    runner = FileRunner(model, structure.wiring, on_device(device))
    with runner.open() as run:

        def evaluation(rows: np.ndarray) -> np.ndarray:
            return runner.output(run, rows)

        return Bounding(
            structure,
            box,
            file=path.name,
            sha256=model.source.sha256,
            seconds=seconds,
            scored=labelled[0] if len(labelled) == 1 else None,
            evaluations=[evaluation],
            data=rows,
        ).report()


def _require_proof(path: Path, certificate: str | Path | None) -> None:
    """Raise InputError unless a certificate says that the file, as it is now, is proved."""
    where = Path(certificate) if certificate is not None else path.with_name(f"{path.stem}.parity.json")
    hint = "What to do: mlpx verify FILE --spec SPEC -o FOLDER writes it; give another with --certificate"
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if certificate is None and not where.is_file():
        raise InputError(f"{path}: no certificate {where.name} beside it; a bound rests on a proved file. {hint}")
    known = read_certificate(where)
    if not known.proved:
        raise InputError(f"{where}: says that {known.file} is {known.verdict}; a bound rests on a proved file. {hint}")
    if not known.is_of(path):
        raise InputError(f"{where}: is of another file than {path}, or of an earlier one of that name. {hint}")


def structure_of(
    model: Model, module: nn.Module | None, dtype: str | None, example: Example | None, method: str
) -> Structure:
    """The layers of the file, matched with the module's or with the network that is read back."""
    path = model.path
    if module is None:
        try:
            keep = any(len(port.shape) > 2 for port in ports_of(model))
            module = read_onnx(path, keep_shape=keep).module()
        except RecoveryError as error:
            hint = "What to do: give the network with --spec or --module (module=)"
            reason = str(error).removeprefix(f"{path}: ").partition(". What to do")[0]
            raise InputError(f"{path}: its network cannot be read back from it: {reason}. {hint}") from None
    evaluated = evaluated_copy(module, dtype)
    with torch.inference_mode(False), torch.enable_grad(), threads_for(0):
        _, graph = traced_for(evaluated, model, example, method)
    structure = match(graph, model)
    different = next((d for layer in structure.layers for d in layer.differences), None)
    problem = structure.problem or (None if different is None else str(different))
    if problem is not None:
        raise InputError(f"{path}: is not this network: {problem}. What to do: give the network that it was made of")
    return structure
