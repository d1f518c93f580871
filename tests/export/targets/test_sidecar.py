"""What a package holds to keep its model checked: a service for systemd, a container for a pod."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from export import package
from tests.support.commands import Run
from tests.support.servers.asking import policy

SCHEMA = Path(__file__).parent / "data" / "kserve-0.21.0.schema.json"
PODS = ("triton", "kserve")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy(tmp_path_factory.mktemp("model"))


def command_of(folder: Path) -> list[str]:
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((folder / "verify" / "mlpx-verify.service").read_text())
    assert set(unit) == {"DEFAULT", "Unit", "Service", "Install"}
    return shlex.split(unit["Service"]["ExecStart"])


def container_of(folder: Path) -> dict[str, Any]:
    (container,) = yaml.safe_load((folder / "verify" / "container.yaml").read_text())
    return container


@pytest.mark.parametrize("target", ["triton", "openvino", "kserve", "mlserver", "ray-serve"])
def test_the_service_checks_the_server_that_is_packaged(target: str, model: Path, tmp_path: Path) -> None:
    made = package(model, target, tmp_path / "p", name="Arm_2.v3")
    mlpx, *arguments = command_of(made.folder)
    assert mlpx == "/opt/mlpx/bin/mlpx"
    assert arguments[:5] == ["verify", "--url", made.url, "--certificate", "/SET-FOLDER/Arm_2.v3.parity.json"]
    assert "verify/mlpx-verify.service" in (made.folder / "README.md").read_text()
    assert ("verify/container.yaml" in made.files) == ("verify/Dockerfile" in made.files) == (target in PODS)
    assert ("verify/container.yaml" in (made.folder / "README.md").read_text()) == (target in PODS)


@pytest.mark.parametrize("target", PODS)
def test_the_command_of_both_is_one_that_mlpx_takes(
    target: str, model: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = package(model, target, tmp_path / "p")
    monkeypatch.setattr("mlpx.cli.repeating.pause", lambda _: True)
    commands = {"/SET-FOLDER/": command_of(made.folder)[1:], "/model/": container_of(made.folder)["args"]}
    for folder, arguments in commands.items():
        here = [re.sub(f"^{folder}", f"{made.folder}/", each).replace(":9465", ":0") for each in arguments]
        done = run(*here)
        assert done.code == 0, done.err
        assert f"watching  {made.url}, every 10m; http://" in done.out
        assert "cannot be reached" in done.out


@pytest.mark.parametrize("target", PODS)
def test_the_container_is_one_of_kubernetes(target: str, model: Path, tmp_path: Path) -> None:
    made = package(model, target, tmp_path / "p")
    container = container_of(made.folder)
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 9465}
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": 9465}
    assert container["args"][-1] == "0.0.0.0:9465"  # a probe comes from outside of the pod
    service = package(model, "kserve", tmp_path / "k").folder / "inference-service.yaml"
    record = yaml.safe_load(service.read_text())
    record["spec"]["predictor"]["containers"] = [container]
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    container["readinesProbe"] = {}
    with pytest.raises(jsonschema.ValidationError, match="readinesProbe"):
        jsonschema.validate(record, json.loads(SCHEMA.read_text()))


def test_the_image_holds_the_certificate_where_the_container_reads_it(model: Path, tmp_path: Path) -> None:
    made = package(model, "triton", tmp_path / "p")
    lines = (made.folder / "verify" / "Dockerfile").read_text().splitlines()
    (copied,) = (line.split() for line in lines if line.startswith("COPY"))
    assert (made.folder / copied[1]).is_file()
    assert copied[2] in container_of(made.folder)["args"]


def test_systemd_takes_the_service(model: Path, tmp_path: Path) -> None:
    analyse = shutil.which("systemd-analyze")
    if analyse is None:
        pytest.skip("no systemd-analyze here")
    made = package(model, "triton", tmp_path / "p")
    text = (made.folder / "verify" / "mlpx-verify.service").read_text().replace("/opt/mlpx/bin/mlpx", sys.executable)
    unit = tmp_path / "mlpx-verify.service"
    unit.write_text(text)
    done = subprocess.run([analyse, "verify", "--recursive-errors=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(text.replace("DynamicUser", "DynamicUsers"))
    done = subprocess.run([analyse, "verify", "--recursive-errors=no", unit], capture_output=True, text=True)
    assert "DynamicUsers" in done.stderr
