"""Is any float32 evaluation further from the exact network than its bound over a box, and how near do they come?

1,000 networks, half of the building blocks and half with operators beyond them, each over a box of its own: its centre
and its half-width are drawn between 0.1 and 8, and some features are narrower. Beside each bound stand the largest
errors that a search finds (``bound_search``) in three float32 evaluations (ONNX Runtime, PyTorch, and numpy with all
sums in random orders), and in one whose roundings are all as large as they may be, against one output
(``bound_evaluations``). An error above its bound is printed with what is needed to repeat it, and the exit code is 1.
With ``--narrow`` each feature's box is 1e-8 to 0.1 of its centre wide, where a bound that is too small would be seen
first. ``--grid`` does the same for networks of one depth, width and activation over [-1, 1], ``--models`` for the
models of ``models/`` over their declared ranges, or where they declare none over those of their held-out rows.

Every network's results are appended to a file as one line, and networks that stand there are skipped, so a run can be
interrupted and resumed. ``--table`` only prints the tables of what was found; ``--name`` repeats one network.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, log, prod
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import nn

from benchmarks.bound_search import Largest, Search
from benchmarks.bound_tables import tables
from benchmarks.faults import read
from benchmarks.machine import print_machine
from benchmarks.networks import MODELS, ROOT, Network, named
from export import export
from export.bounds.bounding import Bounding
from export.bounds.boxes import Box, Range, Ranges, box_of
from export.bounds.enclosing import Network as Layers
from export.bounds.searching import Evaluation, eager
from export.exporting import evaluated_copy
from export.graph import Input
from export.onnxfile.reading import read_model
from export.proof.interface import ports_of
from export.proof.layer_bounds import SLACK
from export.proof.rows import row_shapes
from export.proof.running import FileRunner, on_device
from export.proof.structure import Structure, match
from export.trace import signature_of, trace
from runtime import Port, read_rows
from runtime.model.port import limits

FIRST = 20_000
"""The number of the first network."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh}
DEPTHS, WIDTHS = (1, 2, 4, 8), (16, 64, 256, 1024)
_OUTPUTS = 8


@dataclass(frozen=True)
class Subject:
    """A network's file over a box."""

    structure: Structure
    box: Box
    run: Evaluation
    """ONNX Runtime."""
    sha256: str


@contextmanager
def subject(name: str, device: str = "cpu") -> Iterator[Subject]:
    """The network of a name, exported to a temporary folder, over its box."""
    network = _grid(name) if name.startswith("grid ") else named(name.removeprefix("narrow "))
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        path = Path(folder) / "network.onnx"
        with torch.inference_mode():
            export(network.module, path, spec=network.spec, example=network.example)
        shape = None if network.spec is None else network.spec.input.row_shape
        names = () if network.spec is None else network.spec.input.name
        signature = signature_of(network.module, example=network.example, input_shape=shape, input_name=names)
        model = read_model(path)
        structure = match(trace(evaluated_copy(network.module), signature), model)
        assert structure.problem is None, f"{name}: {structure.problem}"
        assert model.source is not None
        inputs, ports = structure.wiring.inputs, ports_of(model)
        ranges = _ranges(name, inputs, ports[0])
        runner = FileRunner(model, structure.wiring, on_device(device))
        with runner.open() as run:
            box = box_of(inputs, ports, ranges)
            yield Subject(structure, box, lambda rows: runner.output(run, rows), model.source.sha256)


def _grid(name: str) -> Network:
    """``grid relu 4 64``: four hidden layers of 64 units with He's weights, and 8 outputs."""
    _, activation, depth, width = name.split()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for index in range(int(depth)):
            layers += [nn.Linear(min(int(width), 64) if index == 0 else int(width), int(width))]
            layers += [ACTIVATIONS[activation]()]
        module = nn.Sequential(*layers, nn.Linear(int(width), _OUTPUTS))
        for layer in module:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
    return Network(module.eval(), example=(torch.zeros(2, min(int(width), 64)),))


def _ranges(name: str, inputs: Mapping[str, Input], port: Port) -> Ranges | None:
    """The box of a network; None for the ranges that it declares."""
    if name.startswith("grid "):
        return -1.0, 1.0
    if name not in MODELS:
        return _drawn_ranges(inputs, np.random.default_rng(crc32(name.encode())), name.startswith("narrow "))
    if limits(port) is not None:
        return None
    rows, _ = read_rows(ROOT / "models" / name / "heldout.parquet", port)
    return {port.name: np.stack([rows.min(axis=0), rows.max(axis=0)], axis=1).astype(np.float64).tolist()}


def _drawn_ranges(inputs: Mapping[str, Input], rng: np.random.Generator, narrow: bool) -> Ranges:
    """A box: its centre and its half-width are drawn once, and some features are narrower, or have one value."""
    centre, half = (exp(rng.uniform(log(0.1), log(8))) for _ in range(2))
    part = 10 ** rng.uniform(-8, -1) if narrow else 0.0

    def one(known: tuple[int, int] | None, whole: bool) -> Range:
        if whole or known is not None:
            low, high = known or (0, 1)
            first = int(rng.integers(low, high + 1))
            if narrow:
                return first, first
            return (low, high) if rng.random() < 0.5 else (first, min(high, first + int(rng.integers(3))))
        if narrow:
            middle = float(np.float32(centre * rng.standard_normal()))
            return middle - part * abs(middle), middle + part * abs(middle)
        share = rng.choice([1.0, exp(rng.uniform(log(0.01), 0)), 0.0], p=[0.7, 0.27, 0.03])
        middle = centre * rng.choice([-1.0, 1.0])
        return middle - half * share, middle + half * share

    found = dict[str, Range | Sequence[Range]]()
    for name, given in inputs.items():
        indices = given.indices or (None,) * prod(row_shapes(inputs)[name])
        found[name] = [one(pair, given.dtype == "int64") for pair in indices]
    return found


def tried(name: str, seconds: float, factor: float = 1.0, device: str = "cpu") -> dict[str, Any]:
    """One network's bound, the largest errors, and those above their bounds; ``factor`` spoils bounds, for a test."""
    start = perf_counter()
    with subject(name, device) as given:
        structure = given.structure
        report = Bounding(
            structure, given.box, "network.onnx", given.sha256, seconds=seconds, evaluations=[given.run]
        ).report()
        shapes = [layer.expected.tensors["weight"].values.shape for layer in structure.layers if _is_matrix(layer)]
        record: dict[str, Any] = {
            "network": name,
            "depth": len(shapes),
            "width": max((max(shape) for shape in shapes), default=0),
            "parameters": sum(layer.parameters for layer in structure.layers),
            "features": sum(prod(shape) for shape in given.box.shapes.values()),
            "why": report.why,
            "boxes": report.boxes,
            "seconds": report.seconds,
        }
        if report.why is None:
            bound = np.concatenate([np.array(output.bound) for output in report.outputs.values()]) * factor
            network = Layers.of(structure)
            evaluations = {"ONNX Runtime": given.run, "PyTorch": eager(network)}
            rng = np.random.default_rng(crc32(name.encode()))
            found = Search(network, given.box, bound, evaluations, rng).run()
            report_seen = np.concatenate([np.array(output.seen) for output in report.outputs.values()])
            found.errors["report"], found.rows["report"] = report_seen, np.zeros((len(bound), 0))
            record |= {
                "steps": {step.name: step.bound for step in report.steps},
                "bound": float(bound.max()),
                "seen": {key: float(errors.max()) for key, errors in found.errors.items()},
                "share": {key: _share(errors, bound) for key, errors in found.errors.items()},
                "rows": found.tried,
                "violations": violations(name, seconds, bound, found),
            }
    return record | {"whole": round(perf_counter() - start, 3)}


def _is_matrix(layer: Any) -> bool:
    return layer.expected.op == "linear" and "weight" in layer.expected.tensors


def _share(errors: np.ndarray, bound: np.ndarray) -> float:
    """The largest error / bound of an output value."""
    with np.errstate(all="ignore"):
        shares = np.where(errors == 0, 0.0, errors / bound)
    return float(shares.max())


def violations(name: str, seconds: float, bound: np.ndarray, found: Largest) -> list[dict[str, Any]]:
    """What is above its bound, by more than float64 loses: the value of the outputs, and the row."""
    wrong = list[dict[str, Any]]()
    for key, errors in found.errors.items():
        for value in np.flatnonzero(~(errors <= bound * SLACK)).tolist():
            again = {"network": name, "seconds": seconds, "evaluation": key, "value": value}
            row = found.rows[key][value].tolist()
            wrong.append({**again, "error": float(errors[value]), "bound": float(bound[value]), "row": row})
    return wrong


def _names(options: argparse.Namespace) -> list[str]:
    if options.name:
        return [options.name]
    names: list[str] = [*MODELS] if options.models else []
    if options.grid:
        names += [f"grid {name} {depth} {width}" for name in ACTIVATIONS for depth in DEPTHS for width in WIDTHS]
    if options.models or options.grid:
        return names
    kind = "narrow " if options.narrow else ""
    return [f"{kind}{('generated', 'written')[i % 2]} {FIRST + i // 2}" for i in range(options.networks)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if an error is above its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out") / "bounds.jsonl")
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each bound")
    parser.add_argument("--minutes", type=float, help="stop after this long")
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--device", default="cpu", help="where ONNX Runtime runs: cpu or cuda")
    parser.add_argument("--name", help="only this network")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--factor", type=float, default=1.0, help="multiply bounds by it, to see that it is noticed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # most networks are small, and waking another thread takes longer than their products
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = read(options.out)
    known = {record["network"] for record in done}
    work = [] if options.table else [name for name in _names(options) if name not in known or options.name]
    start = perf_counter()
    with open(options.out, "a", encoding="utf-8") as file:
        for index, name in enumerate(work):
            if options.minutes and perf_counter() - start > 60 * options.minutes:
                break
            record = tried(name, options.seconds, options.factor, options.device)
            done.append(record)
            file.write(json.dumps(record) + "\n")
            file.flush()
            print(f"{index + 1} of {len(work)}: {name}", flush=True)
            for wrong in record.get("violations", []):
                print(f"above its bound: {json.dumps(wrong)}", flush=True)
    print_machine()
    print(tables(done))
    return int(any(record.get("violations") for record in done))


if __name__ == "__main__":
    sys.exit(main())
