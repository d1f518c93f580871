"""Compilers of the machine, and what opens a file as compiled C: the runtime of a proof."""

from __future__ import annotations

import _ctypes
import atexit
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from export.errors import TargetError
from export.proof.running import Opener
from runtime import ModelError

from .writing import CSource, c_source

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wdouble-promotion", "-Werror")
"""What every build is compiled with: a warning is an error."""
_NATIVE = "-march=native"
LEVELS = (("-O0",), ("-O2",), ("-O3", _NATIVE))
"""The levels of optimisation that a file is proved at."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler: its name and how it is called."""

    name: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    """Where it is not told which processor to compile for."""
    always: tuple[str, ...] = ()

    @cached_property
    def version(self) -> str:
        """What it says that it is, in a line."""
        done = subprocess.run([*self.command, "--version"], capture_output=True, text=True, env=_environment())
        return next(iter(done.stdout.splitlines()), "").strip()

    def compile(self, sources: Sequence[Path], output: Path, flags: Sequence[str]) -> None:
        """Compile to ``output``. Raises TargetError, with what the compiler says."""
        own = () if _NATIVE in flags else self.options
        command = [*self.command, *STRICT, *flags, *own, *self.always, *map(str, sources), "-o", str(output), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment())
        if done.returncode:
            said = "\n".join(done.stderr.splitlines()[:10])
            message = f"{self.name} {' '.join(flags)} does not compile the code"
            raise TargetError(
                f"{message}:\n{said}\nWhat to do: put another gcc or clang first on the PATH, or report this"
            )


def _environment() -> dict[str, str]:
    """Messages in English; and where the home folder cannot be written to, another cache for zig."""
    own = {**os.environ, "LC_ALL": "C"}
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    try:
        home.mkdir(parents=True, exist_ok=True)
        writable = os.access(home, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        own = {"ZIG_GLOBAL_CACHE_DIR": _zig_cache(), "ZIG_LOCAL_CACHE_DIR": _zig_cache(), **own}
    return own


@cache
def _zig_cache() -> str:
    folder = tempfile.mkdtemp(prefix="mlpx-zig-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def compilers() -> tuple[list[Compiler], list[str]]:
    """The compilers that are there, and for each that is not why it is left out, a line each."""
    found, missing = list[Compiler](), list[str]()
    if shutil.which("gcc"):
        found.append(Compiler("gcc", ("gcc",)))
    else:
        missing.append("gcc: not on the PATH")
    if shutil.which("clang"):
        found.append(Compiler("clang", ("clang",)))
    elif importlib.util.find_spec("ziglang") is not None:
        command = (sys.executable, "-m", "ziglang", "cc")
        # zig compiles for this very processor by itself, and checks for undefined behaviour at -O0
        found.append(Compiler("clang (zig cc)", command, ("-mcpu=baseline",), ("-fno-sanitize=undefined",)))
    else:
        missing.append("clang: neither clang on the PATH nor the package ziglang")
    return found, missing


Known = dict[Path | bytes, CSource]
"""Code by the file or the bytes that it is of."""


@dataclass
class CRunning:
    """Compiled code that is loaded: rows of every input to those of every output."""

    source: CSource
    library: ctypes.CDLL
    _closed: bool = field(default=False, init=False)

    def run(self, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for a batch. Raises ModelError: rows of another shape."""
        arrays = [np.ascontiguousarray(x[each.port.name], np.float32) for each in self.source.inputs]
        count = arrays[0].size // self.source.inputs[0].size
        for each, values in zip(self.source.inputs, arrays, strict=True):
            if values.size != count * each.size:
                raise ModelError(f"'{each.port.name}' has rows of {each.size} numbers, and got {list(values.shape)}")
        made = {each.port.name: np.empty((count, *each.row), np.float32) for each in self.source.outputs}
        pointers = [values.ctypes.data_as(ctypes.c_void_p) for values in (*arrays, *made.values())]
        getattr(self.library, f"{self.source.name}_infer_rows")(ctypes.c_size_t(count), *pointers)
        return {name: self._as_in_file(name, values) for name, values in made.items()}

    def _as_in_file(self, name: str, values: np.ndarray) -> np.ndarray:
        values = values != 0 if name in self.source.bools else values
        return values.reshape(-1, *values.shape[2:]) if name in self.source.merged else values

    def self_test(self) -> int:
        """What ``NAME_self_test`` returns."""
        return getattr(self.library, f"{self.source.name}_self_test")()

    def close(self) -> None:
        """Unload the code."""
        if not self._closed:
            self._closed = True
            unload: Callable[[int], object] = getattr(_ctypes, "FreeLibrary" if os.name == "nt" else "dlclose")
            unload(self.library._handle)


def load(source: CSource, compiler: Compiler, flags: Sequence[str]) -> CRunning:
    """Compile code to a library of this process, and load it. Raises TargetError: it does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in source.files().items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        library = Path(folder) / f"{source.name}.so"
        compiler.compile([Path(folder) / f"{source.name}.c"], library, [*flags, "-shared", "-fPIC"])
        return CRunning(source, ctypes.CDLL(str(library)))


def c_compiler(compiler: Compiler, flags: Sequence[str], known: Known | None = None) -> Opener:
    """What opens files as compiled C, in place of ONNX Runtime.

    ``known``: the code of a file that is shipped, which is compiled as it is, and of the graphs that a proof with
    another compiler made already; what is written is added.
    """
    sources: Known = {} if known is None else known

    def open_compiled(source: Path | bytes) -> CRunning:
        code = sources.get(source)
        if code is None:
            code = c_source(source, "network")
            if isinstance(source, bytes) and known is not None:
                sources[source] = code
        return load(code, compiler, flags)

    return open_compiled
