"""The error constants of activations, and the program that measures them.

An activation's kernel is right when its result is within u·(a + r·|y| + m·|z|) of the exact value y = f(z), u = 2^-24:
``a`` bounds the error absolutely, ``r`` relative to the result, ``m`` relative to the argument. The limits below are
what a proof allows. They are not fitted to a machine, so that one with a wrong kernel fails instead of being believed.
Every proof runs the activations of its file over the whole range (``export.proof.probes``) and says how much of their
bound they took there;

    python -m export.proof.constants [--device cuda] [--points 22] [--json FILE]

does so for all of them, for ONNX Runtime on that device and for PyTorch on the CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Limits:
    """The constants (a, r, m) that a proof allows, in units of u, and why these."""

    limits: tuple[float, float, float]
    source: str


CONSTANTS: dict[str, Limits] = {
    "sigmoid": Limits((4, 0, 0), "measured; libraries clamp at -18, so no relative bound holds"),
    "tanh": Limits((0, 6, 0), "measured"),
    "gelu": Limits((0, 1, 8), "measured; x·(1 + erf) cancels for negative x, so the error is relative to x"),
    "gelu tanh": Limits((0, 1, 5), "measured; as gelu"),
    "silu": Limits((0, 1, 5), "measured; x times a sigmoid with an absolute error"),
    "elu": Limits((3, 1, 0), "times alpha: the exponential to 2 u of at most 1, the difference 1 u; the product 1 u"),
    "softplus": Limits((4, 4, 2), "the exponential and the logarithm; beta·x and the quotient one rounding each"),
    "hardsigmoid": Limits((2, 1, 0), "derived: x/6 has two roundings for abs(x) < 3, the sum one; clipping adds none"),
    "softmax": Limits((0, 4, 0), "roundings of one exponential; the rest is derived in the rule"),
}
"""By the name of the block."""

_SPELT: dict[str, list[Any]] = {
    "sigmoid": ["sigmoid"],
    "tanh": ["tanh"],
    "gelu": ["gelu"],
    "gelu tanh": [{"gelu": "tanh"}],
    "silu": ["silu"],
    "elu": ["elu"],
    "softplus": ["softplus"],
    "hardsigmoid": ["hardsigmoid"],
    "softmax": ["softmax"],
}
_WIDTH = 64


@dataclass(frozen=True)
class Measured:
    """The largest error of one kernel: in u absolutely, relative to y, to z, and as a share of the limit, and where."""

    name: str
    kernel: str
    points: int
    absolute: float
    relative: float
    argument: float
    share: float
    worst: float


def grid(bits: int, seed: int = 0) -> np.ndarray:
    """2^bits float32 numbers over 2^-30 ≤ abs(x) < 2^8, both signs, evenly spread over the float32 numbers there."""
    first, last = (int(np.float32(limit).view(np.int32)) for limit in (2.0**-30, 2.0**8))
    count = 2 ** (bits - 1)
    offset = np.random.default_rng(seed).integers(0, max(1, (last - first) // count))
    steps = (first + offset + np.arange(count, dtype=np.int64) * ((last - first) // count)).astype(np.int32)
    positive = steps.view(np.float32)
    return np.concatenate([positive, -positive])


def measure(name: str, kernel: str, run: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> Measured:
    """The largest errors of a kernel (rows, width) → (rows, width) over some points, which become rows of 64."""
    import torch

    from .bounds import RULES
    from .reference import evaluate

    node = block_of(name)[1]
    worst = [0.0] * 4
    where = 0.0
    for part in np.array_split(points.reshape(-1, _WIDTH), max(1, points.size // 2**20)):
        z = torch.from_numpy(part.astype(np.float64))
        y = evaluate(node, [z])
        apart = (torch.from_numpy(run(part).astype(np.float64)) - y).abs()
        units = apart / 2.0**-24
        shares = torch.where(apart == 0, 0.0, apart / RULES[node.op](node, [z], [None], y))
        normal = y.abs() >= 2.0**-100
        found = [units, (units / y.abs())[normal], units / z.abs(), shares]
        largest = [float(part.max()) for part in found]
        if shares.max() > worst[3]:
            where = float(z.flatten()[shares.argmax()])
        worst = [max(old, new) for old, new in zip(worst, largest, strict=True)]
    absolute, relative, argument, share = worst
    return Measured(name, kernel, points.size, absolute, relative, argument, share, where)


def block_of(name: str) -> tuple[Any, Any]:
    """A network of this one activation, and its node."""
    from builder import MLPSpec, assemble
    from export.trace import trace

    module = assemble(MLPSpec(name="activation", input={"features": _WIDTH}, blocks=_SPELT[name])).eval()
    return module, trace(module, (_WIDTH,)).nodes[0]


def measurements(device: str, bits: int) -> Iterator[Measured]:
    """Every activation, by ONNX Runtime on ``device`` as mlpx exports it, and by PyTorch on the CPU."""
    import torch

    from export.exporting import export
    from runtime import Session

    for name in CONSTANTS:
        module, _ = block_of(name)
        points = np.random.default_rng(0).permutation(grid(bits))  # so that a softmax sees unlike neighbours
        with tempfile.TemporaryDirectory() as folder:
            path = export(module, Path(folder) / "activation.onnx", input_shape=(_WIDTH,)).path
            with Session(path, device) as session, torch.inference_mode():
                yield measure(name, f"ONNX Runtime, {session.device}", session.predict, points)
                yield measure(name, "PyTorch, cpu", lambda x, m=module: m(torch.from_numpy(x)).numpy(), points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--points", type=int, default=22, help="2^POINTS numbers per activation")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(
        f"{'activation':<12} {'library':<22} {'u abs':>8} {'u rel':>10} {'u of z':>10} {'share of limit':>14}  worst at"
    )
    found = []
    for one in measurements(options.device, options.points):
        found.append(vars(one))
        ratios = [f"{r:.2f}" if r < 1e4 and math.isfinite(r) else "unbounded" for r in (one.relative, one.argument)]
        cells = f"{one.absolute:>8.2f} {ratios[0]:>10} {ratios[1]:>10} {one.share:>14.2f}"
        print(f"{one.name:<12} {one.kernel:<22} {cells}  {one.worst:.9g}", flush=True)
    if options.json:
        from .report import machine

        options.json.write_text(json.dumps({"machine": machine(), "measured": found}, indent=2))


if __name__ == "__main__":
    main()
