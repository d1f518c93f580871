"""The notebooks run from their first cell and print what is stored in them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.repeats import but
from website import notebooks

KINDS = {"robot_policy", "tabular_scoring", "recommendation_tower", "controller_in_c", "physics_surrogate"}
NEEDS = {"controller_in_c": ("cmake", "cc")}
"""What a notebook needs on the PATH."""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own: a kernel's clients warn and keep threads."""
    pytest.importorskip("nbclient", reason='notebooks need pip install "mlpx[docs]"')
    command = [sys.executable, "-m", "website.notebooks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def written(path: Path, *cells: str, kernel: str = "python3") -> Path:
    """A notebook of these cells of code, that has not run."""
    code: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{i}", "execution_count": None, "metadata": {}, "outputs": [], "source": cell}
        for i, cell in enumerate(cells)
    ]
    about = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": about, "cells": code}))
    return path


@pytest.mark.parametrize("name", but("tabular_scoring", *sorted(KINDS - {"tabular_scoring"})))
def test_a_notebook_prints_what_is_stored(name: str) -> None:
    path = notebooks.EXAMPLES / f"{name}.ipynb"
    missing = [program for program in NEEDS.get(name, ()) if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not on the PATH")
    done = run("--check", path)
    assert done.returncode == 0, done.stderr
    stored = json.loads(path.read_text(encoding="utf-8"))
    outputs = [output for cell in stored["cells"] for output in cell.get("outputs", ())]
    assert len(outputs) >= 3
    assert all(output["output_type"] == "stream" and output["name"] == "stdout" for output in outputs)


def test_there_is_one_for_every_kind_of_user() -> None:
    assert {path.stem for path in notebooks.EXAMPLES.glob("*.ipynb")} == KINDS


def test_output_that_differs_and_cells_that_fail_are_said(tmp_path: Path) -> None:
    path = written(tmp_path / "one.ipynb", "print(1)")
    assert run(path).returncode == 0
    assert notebooks.printed(json.loads(path.read_text())) == ["1\n"]
    path.write_text(path.read_text().replace("print(1)", "print(2)"))
    done = run("--check", path)
    assert (done.returncode, "prints ['2\\n'], and ['1\\n'] is stored" in done.stderr) == (1, True)
    done = run(written(tmp_path / "two.ipynb", "x = 1", "1 / 0"))
    assert (done.returncode, "two.ipynb" in done.stderr, "ZeroDivisionError" in done.stderr) == (1, True, True)


def test_a_notebook_without_a_kernel_says_what_to_install(tmp_path: Path) -> None:
    done = run(written(tmp_path / "n.ipynb", "1", kernel="none-such"))
    assert done.returncode == 1
    assert "n.ipynb: Jupyter has no kernel 'none-such'. What to do: pip install ipykernel" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    path = written(tmp_path / "page.ipynb", "print(1)")
    stored = json.loads(path.read_text())
    stored["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["1\n", "2\n"]}]
    stored["cells"].insert(
        0, {"cell_type": "markdown", "id": "w", "metadata": {}, "source": ["# A page\n", "\n", "Words."]}
    )
    path.write_text(json.dumps(stored))
    assert notebooks.markdown(path) == (
        "# A page\n\nWords.\n\n```python\nprint(1)\n```\n\n```text\n1\n2\n```\n\n"
        "[This page is a notebook.](../examples/page.ipynb)\n"
    )
