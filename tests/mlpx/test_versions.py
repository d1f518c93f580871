"""What ``mlpx --version`` says for a report of a defect, and what ``doctor`` says of the extras."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PathDistribution, metadata, version
from pathlib import Path

import pytest

from mlpx.extras import DEVELOPMENT, extras_of, required_by
from runtime import VERSION
from tests.mlpx.terminal import environment
from tests.support.commands import Run


def test_the_version_says_what_a_report_needs(run: Run) -> None:
    done = run("--version")
    first, *lines = done.out.splitlines()
    assert (done.code, done.err, first) == (0, "", f"mlpx {VERSION}")
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown["python"].startswith(sys.version.split()[0])
    assert shown["numpy"] == version("numpy")
    assert shown["torch"] == version("torch")
    assert "CPUExecutionProvider" in shown["providers"]
    assert any(name.startswith("onnxruntime") for name in shown)
    assert shown["platform"]


@pytest.mark.parametrize("order", [("--version", "--json"), ("--json", "--version")])
def test_the_version_for_machines(order: tuple[str, str], run: Run) -> None:
    record = json.loads(run(*order).out)
    assert (record["mlpx"], record["numpy"], record["torch"]) == (VERSION, version("numpy"), version("torch"))
    assert "CPUExecutionProvider" in record["providers"]
    assert record["problem"] is None


def test_json_alone_is_no_command(run: Run) -> None:
    done = run("--json", "doctor")
    assert (done.code, done.out) == (2, "")
    assert "--json stands after the command" in done.err


def test_the_version_imports_no_torch_and_survives_a_runtime_that_does_not_load(root: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise OSError('libonnxruntime.so: cannot open')")
    code = "import sys\nfrom mlpx.versions import versions\nprint(versions().problem, 'torch' in sys.modules)"
    path = f"{tmp_path}:{root}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(PYTHONPATH=path), cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "OSError: libonnxruntime.so: cannot open False\n", done.stderr


def test_doctor_covers_every_extra_of_the_metadata(run: Run) -> None:
    record = json.loads(run("doctor", "--json").out)
    declared = metadata("mlpx").get_all("Provides-Extra") or []
    assert {"dev", "docs"} == set(DEVELOPMENT)  # which are for those who change mlpx
    assert list(record["extras"]) == [name for name in declared if name not in DEVELOPMENT]
    assert record["extras"]["build"] == {
        "installed": True,
        "packages": {name: version(name) for name in ("torch", "onnx", "safetensors")},
        "missing": [],
        "install": 'pip install "mlpx[build]"',
    }
    shown = run("doctor").out.partition("\nextras\n")[2]
    assert shown.partition("\nexecution")[0].count("\n") + 1 == len(record["extras"])


def test_an_extra_says_what_it_lacks(tmp_path: Path) -> None:
    """Of a distribution that does not exist, with extras of every form."""
    folder = tmp_path / "own-1.dist-info"
    folder.mkdir()
    extras = ["whole", "missing", "old", "both", "self", "elsewhere", "loop", "dev"]
    requires = [
        "numpy>=1",
        'packaging; extra == "whole"',
        'no-such-package>=2; extra == "missing"',
        'numpy>=999; extra == "old"',
        'own[old,missing]; extra == "both"',
        'numpy; extra == "both"',
        'no-such-package; sys_platform == "amiga" and extra == "elsewhere"',
        'own[loop]; extra == "loop"',
        'no-such-package; extra == "dev"',
    ]
    lines = ["Metadata-Version: 2.4", "Name: own", "Version: 1", *(f"Provides-Extra: {each}" for each in extras)]
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {each}" for each in requires)]) + "\n")
    own = PathDistribution(folder)
    found = extras_of(own)
    too_old = f"numpy {version('numpy')} (>=999 is needed)"
    assert {name: extra.missing for name, extra in found.items()} == {
        "whole": (),
        "missing": ("no-such-package",),
        "old": (too_old,),
        "both": ("no-such-package", too_old),
        "self": (),
        "elsewhere": (),
        "loop": (),
    }
    assert found["whole"].packages == {"packaging": version("packaging")}
    assert found["missing"].packages == {"no-such-package": None}
    assert found["missing"].install == 'pip install "own[missing]"'
    assert required_by(own) == ["numpy"]


def test_the_other_onnx_runtime_is_not_recommended(tmp_path: Path) -> None:
    folder = tmp_path / "own-1.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.4", "Name: own", "Version: 1", "Provides-Extra: cpu", "Provides-Extra: gpu"]
    lines += ['Requires-Dist: numpy; extra == "gpu"', 'Requires-Dist: no-such-package; extra == "cpu"']
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    cpu = extras_of(PathDistribution(folder))["cpu"]
    assert (cpu.installed, cpu.install) == (False, None)
