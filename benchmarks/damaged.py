"""Damaged files by the thousand: every command that gets one ends with 0, 1, 2 or 3, soon and in little memory.

    python -m benchmarks.damaged --files 10000 --seed 0

Files of small real models (ONNX files with and without external data, certificates, specs, weights, data, tuning
files) are damaged at random (``benchmarks/damage.py``), and the commands that read such a file are run on each. A
command runs in a fork of this process, which has torch and ONNX Runtime loaded and starts neither threads nor sessions
itself. A traceback, a signal, more than 30 seconds or more than 2 GB make it an offender: its folder, with what it
printed, is kept in ``--keep``.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import importlib
import json
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.damage import damage

SECONDS, MEMORY = 30.0, 2 * 2**30
"""A command may take."""
ALLOWED = (0, 1, 2, 3)
_LOADED = "torch", "onnx", "onnxruntime", "onnx.reference", "export", "export.proof", "export.recovery", "mlpx.cli"
_MODELS = Path(__file__).parents[1] / "models"
_SPEC = """
name: mixed
input: {features: [a, b, c, d, e, f, g], name: input}
output: {labels: [no, yes]}
blocks:
- {standardize: {mean: 0.5, std: 2.0}}
- {linear: 9}
- layer_norm
- gelu
- {residual: [{linear: 9}, tanh]}
- {linear: 2}
- softmax
"""
_RUNS = [["predict", "m.onnx", "data.csv", "-o", "out.npy"], ["verify", "m.onnx", "--spec", "spec.yaml"]]
_BUILD = ["build", "spec.yaml", "-o", "made", "--no-html"]
_PACKAGE = ["package", "m.onnx", "--for", "triton", "-o", "package"]
COMMANDS: Mapping[str, Sequence[Sequence[str]]] = {
    "m.onnx": [*_RUNS, ["inspect", "m.onnx"], ["recover", "m.onnx", "-o", "made", "--no-html"], _PACKAGE],
    "m.onnx.data": [*_RUNS, ["recover", "m.onnx", "-o", "made", "--no-html"], _PACKAGE],
    "m.parity.json": [["verify", "m.onnx", "--certificate", "m.parity.json"], _PACKAGE, _RUNS[0]],
    "m.tuning.json": [_RUNS[0]],
    "spec.yaml": [_BUILD, _RUNS[1]],
    "weights.safetensors": [_BUILD, ["recover", "weights.safetensors", "-o", "made"]],
    "weights.pt": [[*_BUILD, "--weights", "weights.pt"], ["recover", "weights.pt", "-o", "made"]],
    **{
        f"data.{kind}": [["predict", "m.onnx", f"data.{kind}"], ["inspect", "m.onnx", "--data", f"data.{kind}"]]
        for kind in ("npy", "npz", "csv", "parquet", "arrow")
    },
}
"""The commands that read a file of each name."""


@dataclass(frozen=True)
class End:
    """How a command ended."""

    status: int
    """Its exit code, or the negative number of the signal that ended it."""
    seconds: float
    memory: int
    """The most that it, or a process that it started, had in memory, bytes."""

    @property
    def fault(self) -> str | None:
        """What makes it an offender."""
        if self.status not in ALLOWED:
            return f"ended with {self.status}"
        if self.seconds > SECONDS:
            return f"took {self.seconds:.0f} s"
        return f"took {self.memory / 2**30:.1f} GB" if self.memory > MEMORY else None


def run(arguments: Sequence[str], folder: Path) -> End:
    """Run a command in a fork of this process, in a folder; what it prints goes into ``printed`` there."""
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        _command(arguments, folder)
    deadline = start + SECONDS + 5
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    return End(os.waitstatus_to_exitcode(status), time.monotonic() - start, usage.ru_maxrss * 1024)


def _command(arguments: Sequence[str], folder: Path) -> None:
    """Never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        target = os.open("printed", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.write(target, f"\n$ mlpx {' '.join(arguments)}\n".encode())
        os.dup2(target, 1)
        os.dup2(target, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (4 * MEMORY, 4 * MEMORY))  # an offender does not take the machine
        sys.argv = ["mlpx", *arguments]
        from mlpx.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def corpus(folder: Path) -> list[Path]:
    """A folder for each of the models, with every file that is damaged. Made in forks, as all that starts threads."""
    made = []
    for name in ("diabetes", "breast_cancer", "mixed", "external"):
        place = folder / name
        place.mkdir(parents=True)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                _model(name, place)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            raise SystemExit(f"the model {name} could not be made")
        made.append(place)
    return made


def _model(name: str, folder: Path) -> None:
    import numpy as np
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet
    import torch

    from builder import assemble, load_spec, load_weights
    from export import publish, tune

    if (_MODELS / name).is_dir():
        for file in ("spec.yaml", "weights.safetensors"):
            shutil.copy(_MODELS / name / file, folder)
    else:
        (folder / "spec.yaml").write_text(_SPEC)
    spec = load_spec(folder / "spec.yaml")
    module = assemble(spec, seed=0)
    if (folder / "weights.safetensors").exists():
        load_weights(module, folder / "weights.safetensors")
    else:
        from safetensors.torch import save_file

        save_file(module.state_dict(), folder / "weights.safetensors")
    torch.save(module.state_dict(), folder / "weights.pt")
    publish(module, folder / "m.onnx", spec=spec, page=False, external_data=name == "external")
    if name == "mixed":
        tune(folder / "m.onnx", seconds=1, plot=False)
    port = spec.input
    names = (
        [getattr(feature, "name", feature) for feature in port.features] if isinstance(port.features, list) else None
    )
    width = int(np.prod(port.row_shape))
    rows = np.random.default_rng(0).random((50, width), dtype=np.float32)
    headers = [str(name) for name in names or range(width)]
    np.save(folder / "data.npy", rows)
    np.savez(folder / "data.npz", rows)
    np.savetxt(folder / "data.csv", rows, delimiter=",", header=",".join(headers), comments="", fmt="%.6g")
    table = pyarrow.table({header: rows[:, index] for index, header in enumerate(headers)})
    pyarrow.parquet.write_table(table, folder / "data.parquet")
    pyarrow.feather.write_feather(table, str(folder / "data.arrow"), compression="uncompressed")


def cases(models: Sequence[Path], random: Random) -> Iterator[tuple[Path, str, str, bytes]]:
    """Without end: a model's folder, the name of one of its files, and the kind of damage with the damaged bytes."""
    names = [name for name in COMMANDS for _ in range(4 if name == "m.onnx" else 1)]
    while True:
        folder, name = random.choice(models), random.choice(names)
        if (folder / name).is_file():
            yield folder, name, *damage(Path(name).suffix, (folder / name).read_bytes(), random)


@dataclass
class Tally:
    """What happened to the files of one process."""

    files: int
    counts: Counter[str]
    offenders: list[str]
    longest: float
    largest: int

    def __add__(self, other: Tally) -> Tally:
        counts, offenders = self.counts + other.counts, self.offenders + other.offenders
        longest, largest = max(self.longest, other.longest), max(self.largest, other.largest)
        return Tally(self.files + other.files, counts, offenders, longest, largest)


def run_files(models: Sequence[Path], place: Path, options: argparse.Namespace, job: int) -> Tally:
    """Run the commands of one process on its share of the files."""
    tally, start, random = Tally(0, Counter(), [], 0.0, 0), time.monotonic(), Random(f"{options.seed} {job}")
    share = options.files // options.jobs + (job < options.files % options.jobs)
    for model, name, kind, content in cases(models, random):
        if tally.files >= share or time.monotonic() - start > 60 * options.minutes:
            return tally
        if options.only not in (None, name):
            continue
        folder = place / f"case{job}"
        shutil.copytree(model, folder)
        (folder / name).write_bytes(content)
        tally.files += 1
        faults: list[str] = []
        commands = chosen(COMMANDS[name], random)
        for command in random.sample(commands, 1) if options.one else commands:
            end = run(command, folder)
            if end.seconds > SECONDS:  # on a busy machine: once more
                end = run(command, folder)
            tally.counts[f"{name:22} {command[0]:8} {end.status:3}"] += 1
            tally.longest, tally.largest = max(tally.longest, end.seconds), max(tally.largest, end.memory)
            if end.fault is not None:
                faults.append(f"{' '.join(command)}: {end.fault}")
            for made in ("made", "package"):
                shutil.rmtree(folder / made, ignore_errors=True)
        if faults:
            kept = options.keep / f"{options.seed}-{job}-{tally.files}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            (kept / "faults").write_text("\n".join([f"{name} of {model.name}: {kind}", *faults]) + "\n")
            tally.offenders.append(f"{kept}: {name}: {kind}: {'; '.join(faults)}")
            print(tally.offenders[-1], flush=True)
        shutil.rmtree(folder)
    raise AssertionError("there is always another case")


def chosen(commands: Sequence[Sequence[str]], random: Random) -> list[Sequence[str]]:
    """All commands that take no second, and one of those that prove something."""
    proving = [command for command in commands if command[0] in ("verify", "recover", "build")]
    others = [command for command in commands if command not in proving]
    return [*others, *random.sample(proving, min(1, len(proving)))]


def in_fork(models: Sequence[Path], place: Path, options: argparse.Namespace, job: int) -> int:
    """Start ``run_files`` in a fork, which leaves its tally in a file; the fork's process id."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            tally = run_files(models, place, options, job)
            (place / f"tally{job}").write_bytes(pickle.dumps(tally))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="damaged files")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; with the seed, they decide")
    parser.add_argument("--only", help="damage only files of this name, such as m.onnx")
    parser.add_argument("--one", action="store_true", help="one command for each file, drawn, and not several")
    parser.add_argument("--keep", type=Path, default=Path("out/damaged"), help="where offenders are kept")
    options = parser.parse_args()
    for module in _LOADED:
        importlib.import_module(module)
    sys.modules["torch"].set_num_threads(1)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="damaged-") as name:
        place = Path(name)
        models = corpus(place / "models")
        pids = [in_fork(models, place, options, job) for job in range(options.jobs)]
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        if any(statuses):
            raise SystemExit("a process of this benchmark itself failed")
        tally = Tally(0, Counter(), [], 0.0, 0)
        for job in range(options.jobs):
            tally += pickle.loads((place / f"tally{job}").read_bytes())
    for how, count in sorted(tally.counts.items()):
        print(f"{how} {count:6}")
    record = {"files": tally.files, "commands": tally.counts.total(), "offenders": len(tally.offenders)}
    record |= {"longest_s": round(tally.longest, 2), "largest_mb": tally.largest >> 20}
    print(json.dumps(record | {"minutes": round((time.monotonic() - start) / 60, 1)}))
    raise SystemExit(bool(tally.offenders))


if __name__ == "__main__":
    main()
