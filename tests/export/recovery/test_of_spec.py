"""Files of several inputs and of words, recovered and bounded by the spec that they carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from builder import MLPSpec, RecoveryError, assemble
from export import ProofError, bound, export, publish, recover
from runtime import InputError, Session
from tests.support.commands import Run
from tests.support.words import NUMBERS, RECORD, WORDS, delays

FOLDED: list[Any] = [{"linear": {"features": 6, "bias": False}}, "batch_norm", "relu"]
INNER: list[Any] = [{"linear": {"features": 6, "bias": False}}, "batch_norm", "tanh"]
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "as it is": (RECORD, ["linear", "relu", "batch_norm", "dropout", "linear"]),
    "folded": (
        RECORD | {"blocks": [*FOLDED, {"residual": INNER}, {"linear": 1}]},
        ["linear", "relu", "residual", "linear"],
    ),
    "numbers alone": (RECORD | {"inputs": [NUMBERS, NUMBERS | {"name": "more"}]}, []),
    "words alone": (RECORD | {"inputs": [WORDS]}, []),
}


def made(record: dict[str, Any], folder: Path) -> tuple[Path, torch.nn.Module]:
    """A proved file of a spec whose features have names of their own, and its module with trained normalisers."""
    record = json.loads(json.dumps(record))
    for port, letter in zip(record["inputs"][1:], "bc", strict=False):
        port["features"] = [{**(f if isinstance(f, dict) else {}), "name": f"{letter}{i}"} for i, f in
                            enumerate(port["features"])]  # fmt: skip
    spec = MLPSpec(**record)
    module = assemble(spec, seed=3)
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            for values in (part.running_mean, part.running_var, part.weight, part.bias):
                assert values is not None
                values.data.uniform_(0.5, 2, generator=generator)
    artifact, _ = publish(module.eval(), folder / "delays.onnx", spec=spec, device="cpu", page=False)
    return artifact.path, module


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_a_spec_is_recovered_and_proved(case: str, tmp_path: Path) -> None:
    record, kinds = CASES[case]
    path, _ = made(record, tmp_path / "old")
    recovery = recover(path, tmp_path / "new", device="cpu", page=False)
    assert recovery.original is not None
    assert recovery.original.proved
    assert recovery.artifact is not None
    assert (recovery.artifact.proved, recovery.apart, recovery.rows) == (True, 0, 1000)
    assert [port.name for port in recovery.spec.inputs] == [port["name"] for port in record["inputs"]]
    assert not kinds or [block.kind for block in recovery.spec.blocks] == kinds
    with Session(path, "cpu") as old, Session(recovery.artifact.path, "cpu") as new:
        assert old.summary is not None
        assert new.summary is not None
        assert (old.summary.inputs, old.summary.outputs) == (new.summary.inputs, new.summary.outputs)
        assert (old.summary.weights_sha256 == new.summary.weights_sha256) == (case != "folded")


def test_the_command_recovers_and_bounds_by_the_file_alone(tmp_path: Path, run: Run) -> None:
    path, module = made(CASES["folded"][0], tmp_path / "old")
    done = run("recover", path, "-o", tmp_path / "new", "--name", "other", "--device", "cpu")
    assert done.code == 0, done.err
    words = " ".join(done.err.split())
    assert "the spec is the one that the file carries, without what was folded: linear '0', batch_norm '1'" in words
    assert "network 2, 2 → linear 6 → relu → residual → linear 1" in " ".join(done.out.split())
    assert (tmp_path / "new" / "other.onnx").is_file()
    alone, given = (bound(path, of, seconds=0, device="cpu") for of in (None, module))
    assert alone.largest == given.largest


def edited(path: Path, edit: Any) -> Path:
    """A copy of a file with another spec in its metadata."""
    model = onnx.load(path)
    (entry,) = [each for each in model.metadata_props if each.key == "mlpx.spec"]
    entry.value = edit(entry.value)
    onnx.save(model, path.with_name("edited.onnx"))
    return path.with_name("edited.onnx")


@pytest.mark.parametrize(
    ("edit", "error", "expected"),
    [
        (lambda text: text.replace('"relu"', '"tanh"'), ProofError, "the recovered network is not"),
        (lambda text: text.replace('{"linear": {"features": 8', '{"linear": {"features": 9'), RecoveryError,
         r"the weight '0.weight' of shape \[9, 8\], and the file has \[8, 8\] there"),
        (lambda text: text.replace('"relu"', '"layer_norm"'), RecoveryError, "'1.weight' of .*, and the file lacks it"),
        (lambda text: text.replace('"relu"', '"rellu"'), RecoveryError, "the spec that it carries is damaged"),
        (lambda _: "[]", RecoveryError, "the file has 2: 'numbers', 'words', and carries no spec. What to do: "),
        (lambda _: "{", RecoveryError, "carries no spec"),
    ],
)  # fmt: skip
def test_another_spec_is_seen(edit: Any, error: type[Exception], expected: str, tmp_path: Path) -> None:
    path = edited(made(RECORD, tmp_path / "old")[0], edit)
    with pytest.raises(error, match=expected):
        recover(path, tmp_path / "new", device="cpu", page=False)
    assert not (tmp_path / "new").exists()


def test_a_file_of_a_module_names_its_inputs(tmp_path: Path) -> None:
    _, module = delays()
    path = tmp_path / "own.onnx"
    examples = (torch.zeros(2, 2), torch.zeros((2, 2), dtype=torch.int64))
    export(module, path, example=examples)
    with pytest.raises(RecoveryError, match=r"the file has 2: '\w+', '\w+', and carries no spec\. What to do: "):
        recover(path, tmp_path / "new", device="cpu")
    publish(module, path, example=examples, device="cpu", page=False)
    with pytest.raises(
        InputError, match=r"cannot be read back from it: .* carries no spec\. What to do: .*--spec"
    ) as said:
        bound(path, ranges=(0, 1), device="cpu")
    assert str(said.value).count("What to do") == 1
    assert bound(path, module, ranges=(0, 1), device="cpu", seconds=0, example=examples).largest is not None
