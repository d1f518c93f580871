"""How long do ``export()`` and ``import mlpx`` take, beside ``torch.onnx.export(dynamo=True)`` and ``import torch``?

Both exporters write the same module to a file, warm, in one process, in turn; the ratio is that of the medians. The
imports are whole processes of ``python -c``, in turn.
Run it with ``python -m benchmarks.export [--rounds 7] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import nn

from benchmarks.machine import print_machine, write_results
from benchmarks.networks import network
from builder import MLPSpec
from export import export
from tests.support.cases import WIDTHS, relu_network

TARGETS = {"digits": 0.25, "deep": 0.25, "large": 0.25, "import": 0.15}
ROOT = Path(__file__).resolve().parent.parent


def by_torch(spec: MLPSpec, module: nn.Module, path: Path) -> None:
    example = torch.zeros(2, *spec.input.row_shape)
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        dynamic = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(module, (example,), path, dynamo=True, dynamic_shapes=dynamic, verbose=False)


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def exporters(name: str, rounds: int) -> dict[str, float]:
    spec, module = network(name) if name == "digits" else relu_network(name)
    with tempfile.TemporaryDirectory() as folder:
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(rounds + 1):
            ours.append(seconds(lambda: export(module, Path(folder) / "ours.onnx", spec=spec)))
            theirs.append(seconds(lambda: by_torch(spec, module, Path(folder) / "theirs.onnx")))
    a, b = median(ours[1:]), median(theirs[1:])  # the first round warms both
    return {"mlpx_s": a, "torch_s": b, "ratio": a / b}


def imports(rounds: int) -> dict[str, float]:
    def process(package: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", f"import {package}"], cwd=ROOT, check=True))

    pairs = [(process("mlpx"), process("torch")) for _ in range(rounds + 1)][1:]
    a, b = median(a for a, _ in pairs), median(b for _, b in pairs)
    return {"mlpx_s": a, "torch_s": b, "ratio": a / b}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    names = ["digits", *WIDTHS]
    results = {name: exporters(name, options.rounds) for name in names}
    results["import"] = imports(options.rounds)
    print_machine()
    print(f"{'what':<8} {'mlpx':>10} {'torch':>10} {'ratio':>8}  target")
    for name, result in results.items():
        ours, theirs = (1e3 * result[key] for key in ("mlpx_s", "torch_s"))
        target = f"at most {TARGETS[name]}" if name in TARGETS else ""
        print(f"{name:<8} {ours:>7.1f} ms {theirs:>7.0f} ms {result['ratio']:>8.4f}  {target}".rstrip())
    write_results(options.json, rounds=options.rounds, results=results)


if __name__ == "__main__":
    main()
