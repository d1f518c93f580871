"""What ``doctor`` finds in an installation: files that are not the ones that were installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

import mlpx.installation as installation


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a wheel of one room is installed, and which doctor takes for its own."""
    import base64
    import hashlib

    site = tmp_path / "site"
    (site / "builder").mkdir(parents=True)
    (site / "mlpx-0.1.0.dist-info").mkdir()
    content = b"ours = True\n"
    (site / "builder" / "__init__.py").write_bytes(content)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    record = f"builder/__init__.py,sha256={digest},{len(content)}\n"
    (site / "mlpx-0.1.0.dist-info" / "RECORD").write_text(record)
    (site / "mlpx-0.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mlpx\nVersion: 0.1.0\n")
    own = PathDistribution(site / "mlpx-0.1.0.dist-info")

    def distribution(name: str) -> Distribution:
        assert name == "mlpx"
        return own

    monkeypatch.setattr(installation, "distribution", distribution)
    return site


@pytest.mark.usefixtures("installed")
def test_a_whole_installation_has_no_foreign_file() -> None:
    assert list(installation.foreign_files()) == []


def test_a_file_that_was_overwritten_is_named(installed: Path) -> None:
    (installed / "builder" / "__init__.py").write_text("somebody_elses = True\n")
    (found,) = installation.foreign_files()
    assert str(installed / "builder" / "__init__.py") in found
    assert "is not the one mlpx installed" in found


def test_a_file_that_is_gone_is_named(installed: Path) -> None:
    (installed / "builder" / "__init__.py").unlink()
    (found,) = installation.foreign_files()
    assert "is missing" in found


def test_a_room_that_another_folder_shadows_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "builder").mkdir()
    (tmp_path / "builder" / "__init__.py").write_text("")
    code = "import mlpx.installation as i\nfor line in i.foreign_files(): print(line)"
    environment = {"PYTHONPATH": f"{tmp_path}:{root}", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert f"'builder' is imported from {tmp_path}" in done.stdout, done.stderr


@pytest.mark.parametrize("room", ["builder", "export", "runtime"])
def test_doctor_names_a_foreign_package_that_hides_a_room(room: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / room).mkdir()
    (tmp_path / room / "__init__.py").write_text("")
    environment = {"PYTHONPATH": f"{tmp_path}:{root}", "PATH": ""}
    command = [sys.executable, "-m", "mlpx", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert f"mlpx: '{room}' is imported from {tmp_path}" in done.stderr
