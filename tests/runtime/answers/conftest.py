"""The proved policy that answers are compared with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export import publish
from tests.support.robot import policy_module, policy_spec


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The proved policy with its certificate, which has a bound for the declared ranges."""
    spec = policy_spec()
    path = tmp_path_factory.mktemp("policy") / "policy.onnx"
    _, report = publish(policy_module(spec), path, spec=spec, device="cpu", page=False)
    assert report.bound is not None
    assert report.bound.why is None
    return path


@pytest.fixture
def policy(built: Path, tmp_path: Path) -> Path:
    for path in built.parent.iterdir():
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / "policy.onnx"
