"""How fast are files of reduced precision, and how accurate, on trained weights?

A network of the shape of ``large``, 1024-4096-4096-1000, is trained on synthetic rows of 1,000 classes. Each kind of
reduced precision is made of it, and compared with it on rows that neither the training nor the calibration saw:
largest error, changed labels, accuracy. Latencies are those of one row through ``Session``, all files in turn in one
process, medians of paired rounds.
Run it with ``python -m benchmarks.variants [--seconds 20] [--steps 60] [--keep FOLDER] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

from benchmarks.machine import print_machine, write_results
from builder import MLPSpec, assemble
from export import ExportError, export, write_variant
from export.variants import KINDS
from runtime import Session
from runtime.session.settings import Settings
from runtime.timing.accuracy import difference
from runtime.timing.candidates import Candidate
from runtime.timing.measuring import measure
from tests.support.cases import WIDTHS

TARGET = 0.4
"""Of float32's latency, for int8 within its gate."""
GATE = 0.01
"""The largest share of changed labels."""
CLASSES, FEATURES = WIDTHS["large"][-1], WIDTHS["large"][0]
INT8 = ("int8-dynamic", "int8-static")


class Rows:
    """Rows of 1,000 classes: a class's centre, plus noise of 1.5 times its size in every feature."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.centres = generator.standard_normal((CLASSES, FEATURES), dtype=np.float32)

    def draw(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        classes = generator.integers(CLASSES, size=count)
        noise = generator.standard_normal((count, FEATURES), dtype=np.float32)
        return self.centres[classes] + np.float32(1.5) * noise, classes


def trained(steps: int, rows: Rows) -> tuple[MLPSpec, nn.Sequential]:
    """The network, and its spec with labels."""
    first, *hidden, last = WIDTHS["large"]
    blocks = [block for width in hidden for block in ({"linear": width}, "relu")]
    labels = [str(index) for index in range(last)]
    spec = MLPSpec(
        name="large", input={"features": first}, blocks=[*blocks, {"linear": last}], output={"labels": labels}
    )
    module = assemble(spec, seed=0).train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for step in range(steps):
        x, classes = rows.draw(256, 1000 + step)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(classes))
        loss.backward()
        optimiser.step()
    return spec, module.eval()


def accuracy(path: Path, x: np.ndarray, classes: np.ndarray) -> float:
    with Session(path, "cpu", tuning=None) as session:
        outputs = np.concatenate([session.predict(x[start : start + 1]) for start in range(len(x))])
    return float((outputs.argmax(axis=1) == classes).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--keep", type=Path, help="a folder for large.onnx, rows.npy and the files made of it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = Rows()
    start = perf_counter()
    spec, module = trained(options.steps, rows)
    seconds = perf_counter() - start
    calibration, _ = rows.draw(1024, 1)
    heldout, classes = rows.draw(1024, 2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        path = export(module, folder / "large.onnx", spec=spec).path
        np.save(folder / "rows.npy", heldout)
        name = spec.input.name
        files = {"float32": path}
        for kind in KINDS:
            try:
                files[kind] = write_variant(path, kind, rows={name: calibration}).path
            except ExportError as error:
                print(f"{kind}: {error}")
        results: dict[str, dict[str, float]] = {kind: {"bytes": file.stat().st_size} for kind, file in files.items()}
        for kind, file in files.items():
            distance = difference(path, file, {name: heldout}) if kind != "float32" else None
            results[kind]["accuracy"] = accuracy(file, heldout, classes)
            results[kind]["error"] = distance.error if distance is not None else 0.0
            results[kind]["changed_labels"] = (distance.changed_labels or 0.0) if distance is not None else 0.0
        tried = [Candidate(kind, file, Settings()) for kind, file in files.items()]
        measured, _ = measure(tried, {name: heldout[:1]}, seconds=options.seconds)
    exact = np.array(next(times for candidate, times in measured.items() if candidate.kind == "float32").rounds)
    for candidate, times in measured.items():
        ratio = float(np.median(np.array(times.rounds) / exact))
        figures = {"latency_s": times.latency, "p99_s": times.p99, "cpu_s": times.cpu, "ratio": ratio}
        results[candidate.kind] |= figures
    print_machine()
    print(f"1024-4096-4096-1000, {options.steps} steps in {seconds:.0f} s, {len(heldout):,} rows kept back")
    print(f"{'kind':<14} {'MB':>6} {'latency':>9} {'ratio':>6} {'cpu':>9} {'error':>8} {'labels':>8} {'accuracy':>9}")
    for kind, r in results.items():
        times = f"{1e3 * r['latency_s']:>6.2f} ms {r['ratio']:>6.3f} {1e3 * r['cpu_s']:>6.2f} ms"
        shares = f"{r['error']:>8.3g} {100 * r['changed_labels']:>6.2f} % {100 * r['accuracy']:>7.1f} %"
        print(f"{kind:<14} {r['bytes'] / 1e6:>6.1f} {times} {shares}")
    best = min((results[kind] for kind in INT8 if kind in results), key=lambda r: r["ratio"])
    met = best["ratio"] <= TARGET and best["changed_labels"] <= GATE
    verdict = "met" if met else "missed"
    print(
        f"int8 over float32: {best['ratio']:.3f} with {100 * best['changed_labels']:.2f} % of the labels changed; "
        f"target: at most {TARGET} within {100 * GATE:g} %: {verdict}"
    )
    write_results(options.json, results=results)


if __name__ == "__main__":
    main()
