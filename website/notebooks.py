"""The notebooks of ``examples/``: running them, and their pages.

``python -m website.notebooks`` runs them all and stores what they print; with ``--check`` it stores nothing, and fails
where they print something else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from .folders import ROOT, SiteError

EXAMPLES = ROOT / "examples"


def executed(path: Path) -> dict[str, Any]:
    """A notebook with what it prints, run from its first cell in an empty folder.

    Raises SiteError: nbclient or the kernel is not installed, or a cell fails.
    """
    try:
        import nbformat
        from jupyter_client.kernelspec import NoSuchKernel
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, DeadKernelError
    except ModuleNotFoundError as error:
        raise SiteError(f"{path.name} needs {error.name}. What to do: pip install 'mlpx[docs]'") from None
    files = cast("Any", nbformat)  # untyped
    notebook = files.read(path, as_version=4)
    kernel = notebook.metadata.kernelspec.name
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, record_timing=False, resources={"metadata": {"path": folder}})
        python = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        try:
            client.execute(env=os.environ | {"PYTHONPATH": python, "IPYTHONDIR": folder})
        except NoSuchKernel:
            hint = f"pip install ipykernel, then {Path(sys.executable).name} -m ipykernel install --sys-prefix"
            raise SiteError(f"{path.name}: Jupyter has no kernel '{kernel}'. What to do: {hint}") from None
        except (CellExecutionError, DeadKernelError) as error:
            raise SiteError(f"{path.name}: {error}") from None
    return json.loads(files.writes(notebook))


def printed(notebook: dict[str, Any]) -> list[str]:
    """What every cell of code printed."""
    return ["".join(map(_text, cell["outputs"])) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def markdown(path: Path) -> str:
    """A notebook as a page: its words, its code and what it printed."""
    notebook = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        if text := "".join(map(_text, cell["outputs"])).rstrip():
            parts.append(f"```text\n{text}\n```")
    where = f"[This page is a notebook.](../examples/{path.name})"
    return "\n\n".join([*parts, f"{where}\n"])


def _text(output: dict[str, Any]) -> str:
    """The text of an output; a picture has none."""
    return "".join(output.get("text", output.get("data", {}).get("text/plain", "")))


def main() -> int:
    """Run the notebooks; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m website.notebooks", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="by default all of examples/")
    parser.add_argument("--check", action="store_true", help="store nothing, and compare with what is stored")
    given = parser.parse_args()
    for path in given.files or sorted(EXAMPLES.glob("*.ipynb")):
        try:
            notebook = executed(path)
        except SiteError as error:
            print(error, file=sys.stderr)
            return 1
        stored = printed(json.loads(path.read_text(encoding="utf-8")))
        if not given.check:
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        elif printed(notebook) != stored:
            hint = f"look why, or store it: python -m website.notebooks {path}"
            print(f"{path}: prints {printed(notebook)}, and {stored} is stored. What to do: {hint}", file=sys.stderr)
            return 1
        print(f"ran       {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
