"""Proved files, a tracking server, and what was logged there, shared by the tests of a file."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export import publish
from runtime import Answers, read_certificate
from tests.support.policy import SHAPES, Policy
from tests.support.servers.mlflow import Mlflow, python, tracking_server
from tests.support.words import delays, eager


class Proved:
    """A published file, its module, and the rows of its certificate."""

    def __init__(self, path: Path, module: nn.Module):
        self.path, self.module = path, module
        self.certificate = read_certificate(path.with_suffix(".parity.json"))

    @property
    def answers(self) -> Answers:
        assert self.certificate.answers is not None
        return self.certificate.answers

    def eager(self) -> dict[str, np.ndarray]:
        """What the module computes for these rows in eager PyTorch, in float64."""
        if len(self.answers.exact) == 1:
            return {"delay": eager(self.module, self.answers.inputs["numbers"], self.answers.inputs["words"])}
        rows = {name: torch.tensor(values, dtype=torch.float64) for name, values in self.answers.inputs.items()}
        with torch.inference_mode():
            heads = copy.deepcopy(self.module).double()(rows["obs"], goal=rows["goal"])
        return {name: getattr(heads, name).numpy() for name in self.answers.exact}

    def assert_proved(self, outputs: dict[str, Any]) -> None:
        """Every output of every row is within its bound of eager PyTorch's."""
        for name, expected in self.eager().items():
            values = np.array(outputs[name], np.float64)
            assert values.shape == expected.shape
            assert np.all(np.abs(values - expected) <= self.answers.bound[name])


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    """Two inputs and two outputs, tensors, with external data."""
    torch.manual_seed(0)
    module, path = Policy(), tmp_path_factory.mktemp("policy") / "policy.onnx"
    publish(module, path, input_shape=SHAPES, external_data=True)
    return Proved(path, module)


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    """Columns of numbers that may be missing, and of words."""
    spec, module = delays()
    path = tmp_path_factory.mktemp("delays") / "delays.1.onnx"
    publish(module, path, spec=spec, page=False)
    return Proved(path, module)


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tracking_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture(scope="session")
def mlflow(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    with python(uri, tmp_path_factory.mktemp("python")) as worker:
        yield worker
