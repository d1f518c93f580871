"""The package for systemd: a unit whose command serves the model, proved, and whose reload is the signal for it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from export import package
from export.errors import TargetError
from tests.support.servers.asking import policy
from tests.support.serving import serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("systemd")
    return package(policy(place), "systemd", place / "p", name="arm", threads=2, instances=2).folder


def service(folder: Path) -> dict[str, str]:
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((folder / "mlpx-serve.service").read_text())
    return dict(unit["Service"])


@pytest.mark.server
def test_the_units_command_serves_the_proved_model_and_reloads_by_its_signal(folder: Path) -> None:
    unit = service(folder)
    program, command, models, *options = shlex.split(unit["ExecStart"])
    assert (program, command, models) == ("/opt/mlpx/bin/mlpx", "serve", "models")
    assert unit["ExecReload"].split()[1:] == ["-USR1", "$MAINPID"]
    assert options[options.index("--workers") + 1] == "2"
    with serving(folder / "models", *options) as server:
        assert [(model["name"], model["state"], model["proved"]) for model in server.models] == [("arm", "READY", True)]


def test_the_unit_is_one_that_systemd_reads(folder: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze: not on the PATH")
    text = (folder / "mlpx-serve.service").read_text()
    unit = tmp_path / "mlpx-serve.service"
    unit.write_text(text.replace("/opt/mlpx/bin/mlpx", shutil.which("true") or "").replace("/SET-FOLDER", str(folder)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, "mlpx-serve" in done.stderr) == (0, False), done.stderr


def test_a_delay_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="never lets a request wait"):
        package(policy(tmp_path), "systemd", tmp_path / "p", delay_us=5)
