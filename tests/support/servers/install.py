"""Makes the environment of one server or browser runtime: ``python -m tests.support.servers.install NAME``.

Where that fails, ``.servers/NAME.reason`` says why, and the tests of that server are skipped with it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[2] / ".servers"
READY = ".ready"


def install(name: str) -> str | None:
    """Why the environment of a server could not be made; None where it was."""
    folder, reason = ENVIRONMENTS / name, ENVIRONMENTS / f"{name}.reason"
    reason.unlink(missing_ok=True)
    try:
        _HOW.get(name, _environment)(folder)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        told = [line for line in lines if not line.startswith("WARNING")] or lines
        why = f"{name} cannot be installed here: {' / '.join(told[-2:])}"
        ENVIRONMENTS.mkdir(exist_ok=True)
        reason.write_text(why + "\n", encoding="utf-8")
        return why
    (folder / READY).touch()
    return None


def _environment(folder: Path) -> None:
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1"]
    _run([*pip, "--requirement", HERE / f"{folder.name}.txt"])
    _AFTER.get(folder.name, lambda _: None)(folder)


def _npm(folder: Path) -> None:
    """``node_modules`` of the package that the folder is named after."""
    if shutil.which("npm") is None:
        raise RuntimeError("it needs npm (Debian: apt-get install npm)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    named = (HERE / f"{folder.name}.txt").read_text(encoding="utf-8").strip()
    _run(["npm", "install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--silent", named])


def _run(command: list[str | Path]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout


def _stub(folder: Path) -> None:
    """The Python backend looks for its stub beside itself, and the wheel has one per version of Python elsewhere."""
    release = f"{sys.version_info.major}.{sys.version_info.minor}"
    server = folder / "lib" / f"python{release}" / "site-packages" / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / release / "triton_python_backend_stub"
    if not stub.is_file():
        raise RuntimeError(f"the wheel has no stub of the Python backend for Python {release}")
    if missing := [line.split()[0] for line in _run(["ldd", stub]).splitlines() if "not found" in line]:
        raise RuntimeError(f"{stub.name} needs {', '.join(missing)} (Debian: apt-get install libpython{release})")
    shutil.copy2(stub, server / "backends" / "python" / stub.name)


_HOW: dict[str, Callable[[Path], None]] = {"onnxruntime-web": _npm}
_AFTER: dict[str, Callable[[Path], None]] = {"triton": _stub}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(install(name) or f"{name} is installed in {ENVIRONMENTS / name}")
