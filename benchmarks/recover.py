"""How long do reading a network back and proving it take, and how much memory?

A checkpoint, a safetensors and an ONNX file of one network are recovered, each in a process of its own, warm, imports
excluded: the median of several rounds. ``read`` is until spec and weights are known; ``recover`` until everything is
written, and for an ONNX file until old and new file are proved. There is no peer that reads a spec back. Memory is the
peak above the start of the first round, as a multiple of the weights.
Run it with ``python -m benchmarks.recover [--rounds 5] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.machine import in_process, print_machine, write_results
from benchmarks.memory import Peak
from builder import MLPSpec, assemble
from export import export, read_network, recover

NETWORKS = {"784-512-256-10": [784, 512, 256, 10], "1024-4096-4096-1000": [1024, 4096, 4096, 1000]}
KINDS = ("pt", "safetensors", "onnx")


def written(module: nn.Module, kind: str, folder: Path) -> Path:
    """The network as a file of this kind."""
    path = folder / f"model.{kind}"
    if kind == "onnx":
        export(module, path)
    elif kind == "pt":
        torch.save(module.state_dict(), path)
    else:
        save_file(module.state_dict(), path)
    return path


def measured(name: str, kind: str, rounds: int) -> dict[str, float]:
    """In this process: one network from one kind of file."""
    first, *hidden, last = NETWORKS[name]
    blocks = [block for width in hidden for block in ({"linear": width}, "relu")]
    module = assemble(MLPSpec(name="net", input={"features": first}, blocks=[*blocks, {"linear": last}])).eval()
    options: dict[str, Any] = {} if kind == "onnx" else {"activation": "relu"}
    weights = sum(parameter.numel() * 4 for parameter in module.parameters())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        small = written(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), kind, home)
        recover(small, home / "warm", device="cpu", page=False, **options)
        path = written(module, kind, home)
        del module
        with Peak() as reading:
            recovered = read_network(path, **options)
        del recovered
        with Peak() as whole:
            recover(path, home / "out", device="cpu", page=False, **options)
        seconds: dict[str, list[float]] = {"read_s": [], "recover_s": []}
        for _ in range(rounds):
            start = perf_counter()
            read_network(path, **options)
            middle = perf_counter()
            recover(path, home / "out", device="cpu", page=False, **options)
            seconds["read_s"].append(middle - start)
            seconds["recover_s"].append(perf_counter() - middle)
    figures = {key: median(values) for key, values in seconds.items()}
    memory = {"read_memory": reading.above / weights, "recover_memory": whole.above / weights}
    return figures | memory | {"weights_mb": weights / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one[0], options.one[1], options.rounds)))
        return
    results: dict[str, Any] = {}
    print_machine()
    print(f"{'network':<20} {'file':<12} {'weights':>9} {'read':>8} {'recover':>9} {'memory: read':>13} {'recover':>9}")
    for name in NETWORKS:
        for kind in KINDS:
            r = in_process("benchmarks.recover", "--one", name, kind, "--rounds", options.rounds)
            results[f"{name} {kind}"] = r
            times = f"{r['read_s']:>6.3f} s {r['recover_s']:>7.2f} s"
            memory = f"{r['read_memory']:>11.1f} x {r['recover_memory']:>7.1f} x"
            print(f"{name:<20} {kind:<12} {r['weights_mb']:>6.2f} MB {times} {memory}", flush=True)
    write_results(options.json, results=results)


if __name__ == "__main__":
    main()
