"""Measure elementary functions against the constants that a proof allows them.

    python -m benchmarks.constants [--device cuda] [--points 22] [--json FILE]

runs each function of ``export.proof.rules.constants`` over its whole range, by ONNX Runtime on that device as mlpx
writes it (with and without its optimisations, which fuse some), and by PyTorch on the CPU (its vectorised and its
scalar kernel). ATEN_CPU_CAPABILITY=avx2 or =default in the environment measures PyTorch's other kernels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from export.emitter import Emitter
from export.evaluation import evaluate
from export.graph import Graph, Input, Node, Rows
from export.operators import OPERATORS
from export.proof.rules import RULES
from export.proof.rules.constants import CONSTANTS, ETA, U

WIDTH = 64
_TYPES = {"float32": 1, "int64": 7, "bool": 9}
Run = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Range:
    """Where a function is tried: 2^first ≤ |x| < 2^last, of which signs, and of a second argument the bound of |c|."""

    first: float = -30
    last: float = 8
    signs: tuple[int, ...] = (1, -1)
    second: float | None = None


_ALL = Range(-126, 128)
RANGES: dict[str, Range] = {
    "sin": Range(-126, 100),
    "cos": Range(-126, 100),
    "exp": Range(-126, 7),
    "expm1": Range(-126, 7),
    **dict.fromkeys(("log", "sqrt", "rsqrt"), Range(-126, 128, (1,))),
    "log1p": Range(-126, 128, (1, -1)),
    "atan": _ALL,
    "asinh": _ALL,
    "erf": _ALL,
    "pow": Range(-126, 128, (1,), 4.0),
}
_OPTIONS: dict[str, dict[str, object]] = {
    "gelu": {"approximate": "none"},
    "elu": {"alpha": 1.0},
    "celu": {"alpha": 1.3},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "softmax": {"dim": 1},
    "log_softmax": {"dim": 1},
}
_OVERLOADS = {"softmax": "int", "log_softmax": "int", "pow": "Tensor_Tensor"}


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


def node_of(name: str) -> Node:
    """The operator whose constants have this name."""
    op, _, formula = name.partition(" ")
    attributes = {**_OPTIONS.get(op, {}), **({"approximate": formula} if formula else {})}
    inputs = ("x", "c") if op == "pow" else ("x",)
    shape = (Rows(), WIDTH)
    return Node(op, op, inputs, "y", shape, attributes, overload=_OVERLOADS.get(op, "default"), home=op)


def grid(bits: int, where: Range = Range(), seed: int = 0) -> np.ndarray:
    """2^bits float32 numbers, evenly spread over the float32 numbers of a range and shuffled."""
    last = np.finfo(np.float32).max if where.last >= 128 else np.float32(2.0**where.last)
    first, end = (int(np.float32(limit).view(np.int32)) for limit in (2.0**where.first, last))
    count = 2**bits // len(where.signs)
    step = max(1, (end - first) // count)
    rng = np.random.default_rng(seed)
    picked = (first + rng.integers(0, step) + np.arange(count, dtype=np.int64) * step) % (end + 1)
    positive = np.maximum(picked, first).astype(np.int32).view(np.float32)
    return rng.permutation(np.concatenate([sign * positive for sign in where.signs]))


def model_of(node: Node, inputs: Sequence[np.ndarray | torch.Tensor], opset: int = 18) -> bytes:
    """An ONNX model of one node, as mlpx writes it."""
    given = [torch.as_tensor(x) for x in inputs]
    types = [str(x.dtype).removeprefix("torch.") for x in given]
    rows = {name: Input(tuple(x.shape[1:]), kind) for name, x, kind in zip(node.inputs, given, types, strict=True)}
    emit = Emitter(Graph(rows, (node,), {}), opset)
    OPERATORS[node.op].lower(emit, node)
    read = [
        onnx.helper.make_tensor_value_info(name, _TYPES[one.dtype], [None] * (1 + len(one.row)))
        for name, one in rows.items()
    ]
    result = onnx.helper.make_tensor_value_info(node.output, _TYPES[node.dtype], None)
    held = [onnx.numpy_helper.from_array(values, name) for name, values in emit.initialisers.items()]
    graph = onnx.helper.make_graph(emit.nodes, "one", read, [result], held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()


def runner(
    node: Node, inputs: Sequence[np.ndarray | torch.Tensor], device: str = "cpu", *, opset: int = 18, fused: bool = True
) -> Run:
    """The node in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    cuda = [("CUDAExecutionProvider", {"use_tf32": 0})] if device.startswith("cuda") else []
    providers = [*cuda, "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model_of(node, inputs, opset), options, providers=providers)
    names = [given.name for given in session.get_inputs()]
    return lambda arrays: np.asarray(session.run(None, dict(zip(names, arrays, strict=True)))[0])


def by_pytorch(node: Node) -> Run:
    """The node in PyTorch, in float32."""
    return lambda arrays: evaluate(node, [torch.from_numpy(a) for a in arrays], precision=torch.float32).numpy()


def by_pytorch_one_by_one(node: Node) -> Run:
    """The same on numbers that do not lie beside each other, so that PyTorch takes its scalar kernel."""

    def spread(array: np.ndarray) -> torch.Tensor:
        wide = torch.zeros(*array.shape, 2)
        wide[..., 0] = torch.from_numpy(array)
        return wide[..., 0]

    return lambda arrays: evaluate(node, [spread(a) for a in arrays], precision=torch.float32).numpy()


def measure(name: str, kernel: str, run: Run, arguments: Sequence[np.ndarray]) -> Measured:
    """The largest errors of a kernel over some arguments (rows, width)."""
    node, worst, where = node_of(name), [0.0] * 4, 0.0
    for start in range(0, len(arguments[0]), 2**14):
        part = [a[start : start + 2**14] for a in arguments]
        z = [torch.from_numpy(a).double() for a in part]
        y = evaluate(node, z)
        apart = (torch.from_numpy(run(part)).double() - y).abs()
        radius = RULES[node.op](node, z, [None] * len(z), y)
        bounded = radius.isfinite() & y.isfinite() & (y.abs() + radius <= torch.finfo(torch.float32).max)
        apart = torch.where(bounded, apart, 0.0)
        shares = torch.where(apart == 0, 0.0, apart / radius).nan_to_num(torch.inf, torch.inf)
        units = torch.where(apart > 4 * ETA, apart / U, 0.0)
        found = [units, (units / y.abs())[(y.abs() >= ETA) & y.isfinite()], units / z[0].abs(), shares]
        largest = [float(values.max()) if values.numel() else 0.0 for values in found]
        if largest[3] > worst[3]:
            where = float(z[0].flatten()[shares.argmax()])
        worst = [max(old, new) for old, new in zip(worst, largest, strict=True)]
    absolute, relative, argument, share = worst
    return Measured(name, kernel, arguments[0].size, absolute, relative, argument, share, where)


def arguments_of(name: str, bits: int) -> list[np.ndarray]:
    """The numbers that a function is tried on, in rows."""
    where = RANGES.get(name, Range())
    given = [grid(bits, where).reshape(-1, WIDTH)]
    if where.second is not None:
        rng = np.random.default_rng(1)
        exponents = rng.uniform(-1, 1, given[0].shape) * 2.0 ** rng.uniform(-4, np.log2(where.second), given[0].shape)
        given.append(exponents.astype(np.float32))
    return given


def measurements(device: str, bits: int, names: Sequence[str] = tuple(CONSTANTS)) -> Iterator[Measured]:
    """Every function, by every kernel."""
    for name in names:
        given, node = arguments_of(name, bits), node_of(name)
        with torch.inference_mode():
            yield measure(name, f"ONNX Runtime, {device}", runner(node, given, device), given)
            yield measure(name, f"the same, unfused, {device}", runner(node, given, device, fused=False), given)
            if node.op == "gelu":
                whole = runner(replace(node), given, device, opset=20)
                yield measure(name, f"the same, Gelu, {device}", whole, given)
            yield measure(name, "PyTorch, cpu", by_pytorch(node), given)
            yield measure(name, "PyTorch, cpu, one by one", by_pytorch_one_by_one(node), given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--points", type=int, default=22, help="2^POINTS numbers per function")
    parser.add_argument("--only", action="append", choices=list(CONSTANTS), help="these alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(
        f"{'function':<12} {'kernel':<28} {'u abs':>10} {'u rel':>10} {'u of z':>10} {'share of limit':>14}  worst at"
    )
    found = []
    for one in measurements(options.device, options.points, options.only or tuple(CONSTANTS)):
        found.append(vars(one))
        ratios = [f"{r:.2f}" if r < 1e4 else "unbounded" for r in (one.absolute, one.relative, one.argument)]
        cells = f"{ratios[0]:>10} {ratios[1]:>10} {ratios[2]:>10} {one.share:>14.2f}"
        print(f"{one.name:<12} {one.kernel:<28} {cells}  {one.worst:.9g}", flush=True)
    if options.json:
        machine = {"torch": torch.backends.cpu.get_cpu_capability(), "torch version": torch.__version__}
        options.json.write_text(json.dumps({"machine": machine, "measured": found}, indent=2))


if __name__ == "__main__":
    main()
