"""How much faster is each step from a plain run to ``Session.predict``?

One row at a time: a plain ``InferenceSession.run`` as users write it, then each step added to the ones before, and
``Session`` itself, which validates and copies besides. Interleaved rounds in one process for what runs on one thread;
medians of paired ratios. ``--cpu`` adds the processor time of a call every 10 ms for the ways to wait, each in a
process of its own. Run it with ``python -m benchmarks.steps [--rounds 15] [--cpu] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any

import numpy as np

from benchmarks.machine import in_process, write_results
from export import export
from runtime import Session
from runtime.session.ort_session import run_options
from tests.support.cases import WIDTHS, normal, relu_network

CALLS = {"tiny": 3000, "small": 2000, "medium": 200, "deep": 500, "large": 10}
WAITS = {
    "plain run": None,
    "one thread": {"threads": 1},
    "two threads, not at all": {"threads": 2, "spin_us": 0},
    "two threads, 50 us": {"threads": 2},
    "two threads, 1 ms": {"threads": 2, "spin_us": 1000},
    "the rule": {},
}
"""Ways to wait for work between calls, as settings of a session."""


def opened(path: Path, **config: str) -> Any:
    """A session of one thread, with entries of ONNX Runtime's configuration."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def steps(path: Path, x: np.ndarray) -> tuple[dict[str, Callable[[], Any]], object]:
    """Each step as a call without arguments, the first as users write it; and what must live as long as they."""
    session, options = opened(path), run_options()
    input_name, output_port = session.get_inputs()[0].name, session.get_outputs()[0]
    buffer, output = x.copy(), np.zeros((len(x), output_port.shape[1]), np.float32)
    binding = session.io_binding()
    binding.bind_input(input_name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
    binding.bind_output(output_port.name, "cpu", 0, np.float32, output.shape, output.ctypes.data)
    native, bound = session._sess.run_with_iobinding, binding._iobinding
    ours, into = Session(path, "cpu"), np.zeros_like(output)
    ways: dict[str, Callable[[], Any]] = {
        "run, one thread": lambda: session.run(None, {input_name: x}),
        "one RunOptions for all calls": lambda: session.run(None, {input_name: x}, options),
        "buffers bound once": lambda: session.run_with_iobinding(binding),
        "both": lambda: session.run_with_iobinding(binding, options),
        "both, past the Python wrapper": lambda: native(bound, options),
        "Session.predict": lambda: ours.predict(x),
        "Session.predict_into": lambda: ours.predict_into(x, into),
    }
    return ways, (buffer, output, binding)


def measured(path: Path, name: str, rounds: int) -> dict[str, Any]:
    """Microseconds of the first step, and the others as ratios to it."""
    ways, _buffers = steps(path, normal(1, WIDTHS[name][0]))
    times: dict[str, list[float]] = {way: [] for way in ways}
    for call in ways.values():
        call()
    for _ in range(rounds):
        for way, call in ways.items():
            start = perf_counter()
            for _ in range(CALLS[name]):
                call()
            times[way].append((perf_counter() - start) / CALLS[name] * 1e6)
    first = times["run, one thread"]
    return {
        "us": median(first),
        **{way: median(a / b for a, b in zip(v, first, strict=True)) for way, v in times.items()},
    }


def waiting(path: Path, way: str, calls: int = 300) -> dict[str, float]:
    """Processor time and latency per call at one call every 10 ms, microseconds, in this process."""
    x = normal(1, WIDTHS["medium"][0])
    if (settings := WAITS[way]) is None:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        input_name = session.get_inputs()[0].name
        call: Callable[[], Any] = lambda: session.run(None, {input_name: x})  # noqa: E731
    else:
        ours = Session(path, "cpu", **settings)
        call = lambda: ours.predict(x)  # noqa: E731
    for _ in range(20):
        call()
    latencies, start = [], process_time()
    for _ in range(calls):
        begun = perf_counter()
        call()
        latencies.append(perf_counter() - begun)
        sleep(0.01)
    return {"cpu_us": (process_time() - start) / calls * 1e6, "latency_us": median(latencies) * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--waiting", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.waiting:
        print(json.dumps(waiting(Path(arguments.waiting[0]), arguments.waiting[1])))
        return
    record: dict[str, Any] = {"steps": {}, "waiting": {}}
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name in CALLS:
            spec, module = relu_network(name)
            paths[name] = export(module, Path(folder) / f"{name}.onnx", spec=spec).path
        for name, path in paths.items():
            figures = record["steps"][name] = measured(path, name, arguments.rounds)
            print(f"{name}: {figures['us']:.1f} us")
            for way, ratio in figures.items():
                if way != "us":
                    print(f"  {ratio:5.2f}  {way}")
        for way in WAITS if arguments.cpu else ():
            figures = record["waiting"][way] = in_process("benchmarks.steps", "--waiting", paths["medium"], way)
            print(f"medium every 10 ms, {way}: {figures['cpu_us']:.0f} us of CPU, {figures['latency_us']:.0f} us")
    write_results(arguments.json, **record)


if __name__ == "__main__":
    main()
