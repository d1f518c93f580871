"""Hand-written modules: whatever a forward is made of, the file is proved to compute it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from export import load_module, publish
from runtime import Session
from tests.support.generated import sources
from tests.support.repeats import examples

Shapes = dict[str, tuple[int, ...]]


def rows(shapes: Shapes, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((count, *shape), dtype=np.float32) for name, shape in shapes.items()}


def values_of(returned: Any) -> list[np.ndarray]:
    if isinstance(returned, dict):
        returned = tuple(returned.values())
    values = returned if isinstance(returned, tuple) else (returned,)
    return [value.detach().numpy() for value in values]


def named(inputs: dict[str, np.ndarray]) -> object:
    return inputs if len(inputs) > 1 else next(iter(inputs.values()))


@settings(
    max_examples=examples(50, of=200),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
@given(sources())
def test_generated_modules_are_exported_and_proved(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[str, Shapes]
) -> None:
    code, shapes = drawn
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.py").write_text(code)
    module = load_module(f"{folder / 'net.py'}:Net", seed=0)
    before = copy.deepcopy(module.state_dict())
    shape = shapes if len(shapes) > 1 else next(iter(shapes.values()))
    artifact, report = publish(module, folder / "net.onnx", input_shape=shape, device="cpu", page=False)
    assert artifact.proved
    assert report is not None
    assert report.proved
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    inputs = rows(shapes, 5)
    with Session(artifact.path, "cpu") as session:
        found = session.run(named(inputs))
        assert [port.name for port in session.inputs] == (list(shapes) if len(shapes) > 1 else ["input"])
    module.eval()
    expected = values_of(module(*(torch.from_numpy(part) for part in inputs.values())))
    for given_back, value in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(given_back, value, rtol=1e-3, atol=1e-4 * (1 + np.abs(value).max()))
