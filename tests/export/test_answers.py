"""What a certificate holds to ask a live server: exact answers, bounds, and what reduced precisions would give."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from builder import MLPSpec
from export import publish
from runtime import InputError, Session, read_certificate
from tests.support.cases import BLOCKS, network, randomised, specs


def answered(module: nn.Module, folder: Path, spec: MLPSpec | None = None):
    """The answers of the certificate, the module's in float64 and the file's."""
    artifact, _ = publish(module, folder / "m.onnx", spec=spec, page=False)
    answers = read_certificate(folder / "m.parity.json").answers
    assert answers is not None
    with Session(artifact.path, "cpu") as session, torch.inference_mode():
        found = session.run(dict(answers.inputs))
        names = [port.name for port in session.inputs]
        double = module.double()(*(torch.from_numpy(answers.inputs[name]).double() for name in names))
    return answers, dict(zip(found, double if isinstance(double, tuple) else [double], strict=True)), found


@pytest.mark.parametrize("block", BLOCKS)
def test_the_file_is_within_the_bound_of_the_exact_answer(block: str, tmp_path: Path) -> None:
    spec, module = network([{"linear": 7}, BLOCKS[block], {"linear": 3}])
    answers, exact, found = answered(randomised(module, 1), tmp_path, spec)
    assert 12 < answers.rows <= 48
    for name, expected in answers.exact.items():
        np.testing.assert_allclose(expected, exact[name].numpy(), rtol=1e-6, atol=1e-7)  # options are float32 numbers
        assert np.all(np.abs(found[name] - expected) <= answers.bound[name])


@given(specs(deepest=6, widest=64), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_the_bound_holds_for_any_network(tmp_path_factory: pytest.TempPathFactory, spec: MLPSpec, seed: int) -> None:
    from builder import assemble

    answers, _, found = answered(randomised(assemble(spec), seed), tmp_path_factory.mktemp("any"), spec)
    for name, expected in answers.exact.items():
        assert np.all(np.abs(found[name] - expected) <= answers.bound[name])


def test_reduced_precisions_are_further_off_than_float32(tmp_path: Path) -> None:
    _, module = network([{"linear": 64}, "relu", {"linear": 64}, "relu", {"linear": 4}], features=32)
    answers, _, found = answered(randomised(module, 3), tmp_path)
    (name,) = answers.exact
    off = {key: np.abs(held[name] - answers.exact[name]).max() for key, held in answers.reduced.items()}
    own = np.abs(found[name] - answers.exact[name]).max()
    assert own * 50 < off["TF32"] < off["TF32, truncated"]
    assert own * 50 < off["float16"] < off["bfloat16"]
    with torch.inference_mode():
        half = (
            module.bfloat16()(torch.from_numpy(answers.inputs[next(iter(answers.inputs))]).bfloat16()).float().numpy()
        )
    assert np.abs(half - answers.reduced["bfloat16"][name]).max() < off["bfloat16"]


def test_a_certificate_tells_its_file_from_another(tmp_path: Path) -> None:
    _, module = network([{"linear": 3}])
    artifact, _ = publish(module, tmp_path / "m.onnx", page=False)
    certificate = read_certificate(tmp_path / "m.parity.json")
    assert certificate.proved
    assert certificate.is_of(artifact.path)
    artifact.path.write_bytes(artifact.path.read_bytes() + b"\0")
    assert not certificate.is_of(artifact.path)


def test_a_damaged_certificate_is_refused(tmp_path: Path) -> None:
    _, module = network([{"linear": 3}])
    publish(module, tmp_path / "m.onnx", page=False)
    path = tmp_path / "m.parity.json"
    whole = json.loads(path.read_text())
    for change in (
        {"format": 2},
        {"verdict": None} | {"file": {}},
        {"answers": whole["answers"] | {"rows": 5}},
        {"answers": whole["answers"] | {"exact": {"y": {"shape": [9, 9], "dtype": "float64", "base64": "AAAA"}}}},
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(InputError, match=r"parity report|format 2"):
            read_certificate(path)
    path.write_text("[1")
    with pytest.raises(InputError, match="not a parity report"):
        read_certificate(path)
