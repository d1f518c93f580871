"""Every way to run a network in C that can be had here, and for the others why not."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks import c_drivers
from benchmarks.c_drivers import EMX, MLPX, RUNTIME, Program
from benchmarks.peers import NUMPY
from benchmarks.subjects import Subject
from export.csource.compilers import Compiler, compilers
from export.errors import TargetError
from runtime.timing.contenders import INTO, ONE_THREAD, contenders_of
from runtime.timing.contest import Contender, LeftOut

FLAGS = (("-O2",), ("-O3", "-march=native"))
CTYPES = f"{MLPX} through ctypes"
_FROM_SOURCE = "no package index has it; it is built from its repository"


def programs(
    subject: Subject, sizes: tuple[int, int], folder: Path, peers: Path, library: Path | None
) -> tuple[list[Program], list[LeftOut]]:
    """The programs of a network with rows of ``sizes`` numbers, in and out.

    ``library`` is ONNX Runtime's; None: the one of the package that is installed.
    """
    found, missing = compilers()
    left_out = [LeftOut("onnx2c", _FROM_SOURCE)]
    left_out += [LeftOut(name, reason) for name, _, reason in (line.partition(": ") for line in missing)]
    if not found:
        return [], left_out
    made: list[Program] = []
    generators = {MLPX: c_drivers.mlpx_code, EMX: partial(c_drivers.emx_code, peers=peers)}
    for generator, write in generators.items():
        if generator == EMX and not (peers / "emx_onnx_cgen").is_dir():
            hint = "What to do: make bench installs it; or name a folder with --peers"
            left_out.append(LeftOut(EMX, f"it is not in {peers}. {hint}"))
            continue
        own = folder / generator.replace(" ", "_")
        own.mkdir(parents=True, exist_ok=True)
        try:
            code = write(subject.path, own)
            for compiler in found:
                for flags in FLAGS:
                    name = f"{generator}, {compiler.name} {' '.join(flags)}"
                    made.append(c_drivers.compiled(name, code, compiler, flags, sizes))
        except TargetError as error:
            left_out.append(LeftOut(generator, str(error)))
    library = library or runtime_library()
    if library is None:
        hint = "What to do: name it with --onnxruntime"
        left_out.append(LeftOut(RUNTIME, f"there is no libonnxruntime in the package. {hint}"))
    else:
        made.append(c_drivers.runtime_program(subject.path, folder, found[0], library, sizes))
    return made, left_out


def from_python(subject: Subject, sizes: tuple[int, int], folder: Path, compiler: Compiler | None) -> list[Contender]:
    """What is called from Python."""
    entered = [one for one in contenders_of(subject.path, "cpu", {}) if one.name in (INTO, ONE_THREAD)]
    entered.append(Contender(NUMPY, "benchmarks.peers:by_numpy", {"steps": str(subject.steps)}))
    if compiler is not None:
        library = c_drivers.library(folder / MLPX.replace(" ", "_") / "network.c", compiler, FLAGS[-1])
        arguments = {"library": str(library), "function": c_drivers.FUNCTION, "outputs": sizes[1]}
        entered.append(Contender(CTYPES, "benchmarks.peers:by_ctypes", arguments))
    return entered


def runtime_library() -> Path | None:
    """The library with ONNX Runtime's C interface in the installed package."""
    spec = find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec is not None else None
    found = (path for folder in folders or () for path in sorted(Path(folder).glob("capi/libonnxruntime.so*")))
    return next(found, None)
