"""How many planted faults does each gate catch, and how often is it wrong about a file without any?

Every fault of ``benchmarks.planted`` is planted into every model of ``models/``, into 100 networks generated of the
building blocks, into 100 written with operators beyond them, and into five large ones: once into the file, and once
into the runtime, which then runs the right file wrongly. Beside ``mlpx.verify`` stand plain comparisons, each with its
own default tolerance and its own kind of inputs. Then 1,000 networks without a fault. Every network's results are
appended to a file as one line, and networks that stand there are skipped, so the run can be interrupted and resumed.

Run it with ``python -m benchmarks.faults [--out FILE] [--networks 200] [--clean 1000] [--minutes M]``; with
``--table`` it only prints the table of what was found.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

import numpy as np
import torch

from benchmarks.machine import described
from benchmarks.networks import LARGE, MODELS, Network, named
from benchmarks.planted import FAULTS, RUNTIME_ONLY, faulty, plan, planted
from export import export
from export.exporting import evaluated_copy
from export.graph import Input
from export.onnxfile.reading import read_model
from export.proof.running import on_device
from export.proof.structure import match
from export.proof.verify import prove
from export.trace import Signature, signature_of, trace
from runtime import Session

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Gate:
    """A comparison of outputs as a tool makes it: its inputs, and whether it finds the file at fault."""

    rows: Callable[[Mapping[str, Input], np.random.Generator], Feed]
    catches: Callable[[np.ndarray, np.ndarray], bool]


def normal(rows: int) -> Callable[[Mapping[str, Input], np.random.Generator], Feed]:
    return _drawn(rows, lambda rng, shape: rng.standard_normal(shape, dtype=np.float32))


def uniform(rows: int) -> Callable[[Mapping[str, Input], np.random.Generator], Feed]:
    return _drawn(rows, lambda rng, shape: rng.random(shape, dtype=np.float32))


def _drawn(
    rows: int, draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
) -> Callable[[Mapping[str, Input], np.random.Generator], Feed]:
    """Rows of every input by its name; whole numbers are drawn over all that may come, 0 and 1 where that is open."""

    def one(given: Input, rng: np.random.Generator) -> np.ndarray:
        shape = (rows, *given.row)
        if given.dtype == "float32":
            return draw(rng, shape)
        limits = [each or (0, 1) for each in given.indices or (None,) * int(np.prod(given.row))]
        low, high = (np.array([each[end] for each in limits]).reshape(given.row) for end in (0, 1))
        return rng.integers(low, high + 1, shape)

    return lambda inputs, rng: {name: one(given, rng) for name, given in inputs.items()}


def not_close(rtol: float, atol: float) -> Callable[[np.ndarray, np.ndarray], bool]:
    return lambda found, eager: not np.allclose(found, eager, rtol=rtol, atol=atol)


def not_assert_close(found: np.ndarray, eager: np.ndarray) -> bool:
    try:
        torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(eager))
    except AssertionError:
        return True
    return False


def not_either(tolerance: float) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Polygraphy's elementwise rule: absolutely or relatively within the tolerance."""

    def catches(found: np.ndarray, eager: np.ndarray) -> bool:
        apart = np.abs(found - eager)
        return not bool(((apart <= tolerance) | (apart / np.abs(eager) <= tolerance)).all())

    return catches


def logged(found: np.ndarray, eager: np.ndarray) -> bool:
    """torch.onnx's own check: a largest difference above 5e-3, or a largest relative one above 1e-1; NaN is neither."""
    apart = np.abs(found - eager)
    return bool(apart.max(initial=0) > 5e-3 or (apart / (np.abs(eager) + 1e-7)).max(initial=0) > 1e-1)


GATES: dict[str, Gate] = {
    "allclose 1e-3, 1e-5": Gate(normal(1000), not_close(1e-3, 1e-5)),
    "torch.testing.assert_close": Gate(normal(1000), not_assert_close),
    "Polygraphy 1e-5": Gate(uniform(1), not_either(1e-5)),
    "optimum-onnx 1e-5": Gate(uniform(2), not_close(1e-5, 1e-5)),
    "torch.onnx 5e-3, 1e-1": Gate(normal(2), logged),
    "downshift 1e-4, 1e-3": Gate(normal(8), not_close(1e-3, 1e-4)),
}


@dataclass(frozen=True)
class Subject:
    """A network and its file, with every gate's rows, and what eager PyTorch gives for them."""

    network: Network
    signature: Signature
    path: Path
    inputs: Mapping[str, Feed]
    eager: Mapping[str, np.ndarray]
    asked: Mapping[str, Any]
    """What export and verify are told of the network."""

    def outputs(self, path: Path) -> dict[str, np.ndarray]:
        """What a file gives for every gate's rows."""
        with Session(path, "cpu") as session:
            return {gate: next(iter(session.run(rows).values())) for gate, rows in self.inputs.items()}


@contextmanager
def _subject(name: str) -> Iterator[Subject]:
    network = named(name)
    asked = {"spec": network.spec, "example": network.example}
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"), torch.inference_mode():
        path = Path(folder) / "clean.onnx"
        export(network.module, path, **asked)
        shape = None if network.spec is None else network.spec.input.row_shape
        names = () if network.spec is None else network.spec.input.name
        signature = signature_of(network.module, example=network.example, input_shape=shape, input_name=names)
        known = trace(evaluated_copy(network.module), signature).inputs
        inputs = {gate: GATES[gate].rows(known, np.random.default_rng(0)) for gate in GATES}
        eager = {gate: _called(network, signature, rows) for gate, rows in inputs.items()}
        yield Subject(network, signature, path, inputs, eager, asked)


def _called(network: Network, signature: Signature, rows: Feed) -> np.ndarray:
    values = {name: torch.from_numpy(part) for name, part in rows.items()}
    return signature.call(network.module, values).numpy()


def tried(name: str) -> dict[str, Any]:
    """Every fault in one network: whether it could be planted, changed an output, and was caught by whom."""
    record: dict[str, Any] = {"network": name, "faults": {}}
    with _subject(name) as subject:
        module, asked = subject.network.module, {**subject.asked, "device": "cpu", "stop_early": True}
        model, broken = read_model(subject.path), subject.path.with_name("broken.onnx")
        structure = match(trace(evaluated_copy(module), subject.signature), model)
        right = subject.outputs(subject.path)
        for fault in FAULTS:
            edit = plan(fault, model, structure, crc32(f"{name} {fault}".encode()))
            if edit is None:
                continue
            planted(model, edit, broken)
            found = subject.outputs(broken)
            wide = "allclose 1e-3, 1e-5"
            seen = found[wide].tobytes() != right[wide].tobytes()
            caught = {gate: GATES[gate].catches(found[gate], subject.eager[gate]) for gate in GATES}
            why = {}
            if fault not in RUNTIME_ONLY:
                report = prove(module, broken, **asked)
                caught["mlpx"], why["file"] = not report.proved, report.why
            report = prove(module, subject.path, **asked, opener=faulty(on_device("cpu"), edit))
            caught["mlpx, in the runtime"], why["runtime"] = not report.proved, report.why
            by = next((check.name for check in report.checks if check.outcome == "failed"), "")
            record["faults"][fault] = {"seen": seen, "caught": caught, "by": by, "why": why}
    return record


def fault_free(name: str) -> dict[str, Any]:
    """The whole verification of a network without a fault, and every other gate."""
    record: dict[str, Any] = {"clean": name}
    with _subject(name) as subject:
        start = perf_counter()
        report = prove(subject.network.module, subject.path, device="cpu", **subject.asked)
        record |= {"seconds": perf_counter() - start, "why": report.why}
        record["ratio"] = max((layer.ratio for layer in report.layers), default=0.0)
        found = subject.outputs(subject.path)
        alarms = {gate: rule.catches(found[gate], subject.eager[gate]) for gate, rule in GATES.items()}
        record["alarms"] = {"mlpx": not report.proved, **alarms}
    return record


def misses(records: list[dict[str, Any]]) -> list[str]:
    """Faults that were not caught, and networks without a fault that were not proved, in words."""
    found = []
    for record in records:
        for fault, one in record.get("faults", {}).items():
            ways = [way for way, caught in one["caught"].items() if way.startswith("mlpx") and not caught]
            found += [f"{record['network']}: '{fault}' is missed by {way}" for way in ways]
        if record.get("alarms", {}).get("mlpx"):
            found.append(f"{record['clean']}: a false alarm: {record['why']}")
    return found


def table(records: list[dict[str, Any]]) -> str:
    """The table of the documentation, in Markdown."""
    columns = ["mlpx", "mlpx, in the runtime", *GATES]
    planted_in = [record for record in records if "faults" in record]
    clean = [record for record in records if "clean" in record]
    lines = [f"{len(planted_in)} networks with faults, {len(clean)} without", ""]
    lines.append(f"| fault | planted | no output changed | {' | '.join(columns)} |")
    lines.append(f"| --- | ---: | ---: |{' ---: |' * len(columns)}")
    for fault in FAULTS:
        found = [record["faults"][fault] for record in planted_in if fault in record["faults"]]
        cells = [str(len(found)), str(sum(not one["seen"] for one in found))]
        for column in columns:
            asked = [one["caught"][column] for one in found if column in one["caught"]]
            cells.append(f"{100 * sum(asked) / len(asked):.1f} %" if asked else "")
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    alarms = [f"{sum(r['alarms'].get(c, False) for r in clean)}" if c != columns[1] else "" for c in columns]
    lines.append(f"| false alarms | {len(clean)} | | {' | '.join(alarms)} |")
    return "\n".join(lines)


def read(path: Path) -> list[dict[str, Any]]:
    """The records that were written whole."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # cut off by an interruption
            continue
    return found


def _names(count: int, first: int) -> list[str]:
    """Generated and written networks, half of each, in turn."""
    return [f"{('generated', 'written')[i % 2]} {first + i // 2}" for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out") / "faults.jsonl")
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--clean", type=int, default=1000)
    parser.add_argument("--minutes", type=float, help="stop after this long")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # most networks are small, and waking another thread takes longer than their products
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = read(options.out)
    clean = _names(options.clean, 10_000)
    names = [*MODELS, *_names(options.networks, 0)]  # the large ones, which take longest, come last
    planned = [*((n, tried) for n in names), *((n, fault_free) for n in clean), *((n, tried) for n in LARGE)]
    known = {record.get("network", record.get("clean")) for record in done}
    work = [(name, run) for name, run in planned if name not in known]
    start = perf_counter()
    with open(options.out, "a") as file:
        for index, (name, run) in enumerate([] if options.table else work):
            if options.minutes and perf_counter() - start > 60 * options.minutes:
                break
            record = run(name)
            done.append(record)
            file.write(json.dumps(record) + "\n")
            file.flush()
            print(f"{index + 1} of {len(work)}: {name}", flush=True)
    print(", ".join(f"{key} {value}" for key, value in described().items()))
    print(table(done))
    print("\n".join(["", *misses(done)]))


if __name__ == "__main__":
    main()
