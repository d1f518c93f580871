"""The two exporters, and whether the files that they write compute what the network computes."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from inspect import Parameter
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from benchmarks.zoo.entries import Entry, Example, called, tensors
from export import ExportError, ProofError, export, publish

BATCHES = (1, 7)
LARGEST = 1e-3
"""Of the outputs' size: a file that is further from eager PyTorch is wrong."""
GOOD = {"mlpx": "proved", "torch": "agrees"}
OUTCOMES = {
    "mlpx": ("proved", "refused", "not proved", "wrong", "error", "crashed", "time limit"),
    "torch": ("agrees", "wrong", "does not run", "not written", "crashed", "time limit"),
}


@dataclass(frozen=True)
class Outcome:
    """What came of one network by one exporter."""

    outcome: str
    seconds: float = 0.0
    message: str = ""
    difference: float | None = None

    def plain(self) -> dict[str, object]:
        return asdict(self)


def publish_by_mlpx(entry: Entry, module: nn.Module, path: Path) -> None:
    """The one place that calls mlpx."""
    example = entry.example(4)
    if "example" in inspect.signature(export).parameters:
        publish(module, path, example=example, device="cpu", page=False)
        return
    parameters = inspect.signature(module.forward).parameters
    named = example if isinstance(example, dict) else dict(zip(parameters, example, strict=False))
    if any(not tensor.is_floating_point() for tensor in named.values()):
        raise ExportError("inputs are float32, not int64")
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in named.items()}
    shape = next(iter(shapes.values())) if len(shapes) == 1 else shapes
    publish(module, path, input_shape=shape, device="cpu", page=False)


def write_by_torch(entry: Entry, module: nn.Module, path: Path) -> None:
    example = entry.example(4)
    args, kwargs = ((), example) if isinstance(example, dict) else (example, None)
    shapes = _free_batches(module, example)
    torch.onnx.export(
        module, args, path, kwargs=kwargs, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
    )


def _free_batches(module: nn.Module, example: Example) -> Any:
    """The first dimension of every input as a free one; what a forward takes as ``*inputs`` is a tuple of its own."""
    batch = {0: torch.export.Dim.DYNAMIC}
    if isinstance(example, dict):
        return dict.fromkeys(example, batch)
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    gathered = kinds.index(Parameter.VAR_POSITIONAL) if Parameter.VAR_POSITIONAL in kinds else len(example)
    named, rest = example[:gathered], example[gathered:]
    return (*(batch for _ in named), tuple(batch for _ in rest)) if rest else tuple(batch for _ in named)


def by_mlpx(entry: Entry) -> Outcome:
    """Published or not, and then run by ONNX Runtime."""
    failed = {ProofError: "not proved", ExportError: "refused", Exception: "error"}
    return _tried(entry, publish_by_mlpx, failed, GOOD["mlpx"], "wrong")


def by_torch(entry: Entry) -> Outcome:
    return _tried(entry, write_by_torch, {Exception: "not written"}, GOOD["torch"], "does not run")


STEPS: dict[str, Callable[[Entry], Outcome]] = {"mlpx": by_mlpx, "torch": by_torch}


def _tried(
    entry: Entry,
    write: Callable[[Entry, nn.Module, Path], None],
    failed: dict[type[Exception], str],
    good: str,
    broken: str,
) -> Outcome:
    """``failed`` names what an error of each kind is, the first that fits; ``broken`` is a file that does not run."""
    logging.disable(logging.ERROR)
    module = entry.module()
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, start = Path(folder) / "network.onnx", perf_counter()
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                write(entry, module, path)
        except Exception as error:
            outcome = next(name for kind, name in failed.items() if isinstance(error, kind))
            return Outcome(outcome, perf_counter() - start, _message(error))
        taken = perf_counter() - start
        try:
            found = difference(entry, module, path)
        except Exception as error:
            return Outcome(broken, taken, _message(error))
    if not found <= LARGEST:
        return Outcome("wrong", taken, f"{found:.2g} of the outputs' size from eager PyTorch", found)
    return Outcome(good, taken, "", found)


def difference(entry: Entry, module: nn.Module, path: Path) -> float:
    """The largest from eager PyTorch, relative to the largest output, over all outputs and ``BATCHES``.

    Infinite where a shape or the place of a NaN differs. Raises what ONNX Runtime raises.
    """
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    names, worst = [port.name for port in session.get_inputs()], 0.0
    for rows in BATCHES:
        example = entry.example(rows, seed=rows)
        given = example if isinstance(example, dict) and set(names) <= set(example) else _in_order(names, example)
        with torch.inference_mode():
            expected = [tensor.numpy().copy() for tensor in tensors(called(module, example))]
        ran = session.run(None, {name: given[name].numpy() for name in names})
        if len(ran) != len(expected):
            raise ValueError(f"{len(ran)} outputs instead of {len(expected)}")
        worst = max([worst, *(_apart(np.asarray(a), b) for a, b in zip(ran, expected, strict=True))])
    return worst


def _in_order(names: list[str], example: Example) -> dict[str, torch.Tensor]:
    values = list(example.values()) if isinstance(example, dict) else list(example)
    if len(names) != len(values):
        raise ValueError(f"{len(names)} inputs instead of {len(values)}")
    return dict(zip(names, values, strict=True))


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    size = np.abs(b[finite]).max()
    return float(np.abs(a[finite] - b[finite]).max() / (size or 1.0))


def _message(error: BaseException) -> str:
    """What an error says, without the pages that follow; of an error of torch.onnx, what began it."""
    while error.__cause__ is not None and not isinstance(error, ExportError):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = (
        " ".join(" ".join(lines).split()) if isinstance(error, ExportError) else f"{type(error).__name__}: {lines[0]}"
    )
    return text if len(text) <= 600 else text[:600] + "…"
