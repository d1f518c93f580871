"""The InferenceService of packages for KServe, against the schema of KServe's own models."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from export import package
from runtime import VERSION, sha256
from tests.support.servers.asking import policy
from tests.support.servers.environments import environment

SCHEMA = Path(__file__).parent / "data" / "kserve-0.21.0.schema.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy(tmp_path_factory.mktemp("model"))


def inference_service(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "inference-service.yaml").read_text())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("backend", ["triton", "mlserver", "custom"])
def test_the_inference_service_is_one(backend: str, device: str, model: Path, tmp_path: Path) -> None:
    made = package(model, "kserve", tmp_path / "p", backend=backend, device=device, instances=2, threads=3)
    found = inference_service(made.folder)
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))
    predictor = found["spec"]["predictor"]
    container = predictor["model"] if backend == "triton" else predictor["containers"][0]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 8)
    assert container["resources"]["limits"]["cpu"] == "3"
    assert container["resources"]["limits"].get("nvidia.com/gpu") == ("1" if device == "cuda" else None)
    path = "/v2/models/policy/ready" if backend == "custom" else "/v2/health/ready"  # the SDK's is always ready
    assert container["readinessProbe"]["httpGet"] == {"path": path, "port": 8080}


def test_the_annotations_say_which_bytes_were_proved(model: Path, tmp_path: Path) -> None:
    made = package(model, "kserve", tmp_path / "p")
    annotations = inference_service(made.folder)["metadata"]["annotations"]
    assert all(re.fullmatch(r"mlpx\.github\.io/[a-z-]{1,63}", key) for key in annotations)
    found = {key.partition("/")[2]: value for key, value in annotations.items()}
    for name, file in (("model", "models/policy/1/model.onnx"), ("certificate", "policy.parity.json")):
        assert found[f"{name}-digest"] == f"sha256:{sha256(made.folder / file)}"
    certificate = json.loads((made.folder / "policy.parity.json").read_text())
    assert found["weights-digest"] == f"sha256:{certificate['weights_sha256']}"
    assert found["verdict"] == certificate["verdict"] == "proved"
    assert found["proved-by"] == f"mlpx {VERSION}"
    assert found["proved-on"] == certificate["made"]


def test_another_release_of_triton_is_the_runtime_s_version(model: Path, tmp_path: Path) -> None:
    made = package(model, "kserve", tmp_path / "p", release="23.10")
    served = inference_service(made.folder)["spec"]["predictor"]["model"]
    assert served["runtimeVersion"] == "23.10-py3"
    assert served["storageUri"] == "s3://SET-BUCKET/policy/models"
    assert (made.folder / "models" / "policy" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("name", "expected"), [("Arm_2.v3", "arm-2-v3"), ("7up", "model-7up"), ("a" * 99, "a" * 50), ("A..b", "a-b")]
)
def test_a_name_that_a_cluster_takes(name: str, expected: str, model: Path, tmp_path: Path) -> None:
    made = package(model, "kserve", tmp_path / "p", name=name)
    assert inference_service(made.folder)["metadata"]["name"] == expected
    assert f"inferenceservice/{expected} " in made.start


def test_the_schema_refuses_a_name_that_the_api_does_not_have(model: Path, tmp_path: Path) -> None:
    found = inference_service(package(model, "kserve", tmp_path / "p").folder)
    found["spec"]["predictor"]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(found, json.loads(SCHEMA.read_text()))


def test_the_schema_is_that_of_kserve_s_own_models(root: Path) -> None:
    python = environment("kserve") / "bin" / "python"
    script = root / "tests" / "support" / "servers" / "kserve_schema.py"
    made = subprocess.run([python, script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(made.stdout) == json.loads(SCHEMA.read_text())
