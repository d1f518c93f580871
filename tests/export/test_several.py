"""Several named inputs and outputs, from the module to the table of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars
import pytest
import torch
from torch import nn

from export import ExportError, export, inspect, publish, verify
from runtime import InputError, Session, read_inputs, score_file
from tests.support.policy import SHAPES, Heads, Policy


@dataclass
class Record:
    action: torch.Tensor
    value: torch.Tensor


def as_dict(action: torch.Tensor, value: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"action": action, "value": value}


def as_tuple(action: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return action, value


@pytest.fixture
def policy() -> Policy:
    torch.manual_seed(0)
    return Policy()


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"obs": rng.standard_normal((6, 3), dtype=np.float32), "goal": rng.standard_normal((6, 2), dtype=np.float32)}


def eager(module: nn.Module, rows: dict[str, np.ndarray]) -> list[np.ndarray]:
    module.eval()
    given = {name: torch.from_numpy(part) for name, part in rows.items()}
    with torch.no_grad():
        return [value.numpy() for value in module(given["obs"], goal=given["goal"])]


def test_the_whole_road(policy: Policy, rows: dict[str, np.ndarray], device: str, tmp_path: Path) -> None:
    artifact, report = publish(policy, tmp_path / "m.onnx", input_shape=SHAPES, device=device, data=rows, page=False)
    assert report is not None
    assert report.proved
    assert report.inputs[0].rows == 6
    summary = inspect(artifact.path).summary
    assert [(port.name, port.shape) for port in summary.inputs] == [("obs", ("batch", 3)), ("goal", ("batch", 2))]
    assert [(port.name, port.shape) for port in summary.outputs] == [("action", ("batch", 2)), ("value", ("batch", 1))]
    with Session(artifact.path, device) as session:
        found = session.run(rows)
        assert list(found) == ["action", "value"]
        assert session.run({name: part[:0] for name, part in rows.items()})["value"].shape == (0, 1)
    for given, expected in zip(found.values(), eager(policy, rows), strict=True):
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
    assert verify(policy, artifact.path, device=device, data=rows).proved


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (Heads, ["action", "value"]),
        (Record, ["action", "value"]),
        (as_dict, ["action", "value"]),
        (as_tuple, ["output_0", "output_1"]),
    ],
)
def test_outputs_are_named_as_they_are_returned(returned: Any, names: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    artifact, _ = publish(Policy(returned), tmp_path / "m.onnx", input_shape=SHAPES, device="cpu", page=False)
    assert [port.name for port in artifact.summary.outputs] == names


def test_names_can_be_given(policy: Policy, tmp_path: Path) -> None:
    options: dict[str, Any] = {"input_name": ["a", "b"], "output_name": ["c", "d"]}
    artifact, report = publish(
        policy, tmp_path / "m.onnx", input_shape={"a": (3,), "b": (2,)}, device="cpu", page=False, **options
    )
    assert report is not None
    assert report.proved
    assert artifact.summary is not None
    assert [port.name for port in (*artifact.summary.inputs, *artifact.summary.outputs)] == ["a", "b", "c", "d"]
    with pytest.raises(ExportError, match="1 names are given for the inputs, and the module has 2: obs, goal"):
        export(policy, tmp_path / "n.onnx", input_name="x")
    with pytest.raises(ExportError, match="every output needs a name of its own"):
        export(policy, tmp_path / "n.onnx", input_shape=SHAPES, output_name=["y", "y"])
    with pytest.raises(ExportError, match="input and output need different names, not both 'obs'"):
        export(policy, tmp_path / "n.onnx", input_shape=SHAPES, output_name=["obs", "y"])


def test_features_are_inferred_where_weights_show_them(policy: Policy, tmp_path: Path) -> None:
    """``skip`` shows obs, and ``body`` the sum of both, so goal is the rest."""
    artifact = export(policy, tmp_path / "m.onnx")
    assert [port.shape for port in artifact.summary.inputs] == [("batch", 3), ("batch", 2)]
    with pytest.raises(ExportError, match="a shape is given for 'target'; the module's inputs are: obs, goal"):
        export(policy, tmp_path / "m.onnx", input_shape={"target": (2,)})


def test_a_file_whose_inputs_or_outputs_are_exchanged_is_not_proved(tmp_path: Path) -> None:
    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.a(x), self.b(y)

    torch.manual_seed(0)
    module = Alike()
    path = export(module, tmp_path / "m.onnx").path
    assert verify(module, path, device="cpu").proved
    for ports in ("input", "output"):
        model = onnx.load(str(path))
        for node in model.graph.node:
            names = node.input if ports == "input" else node.output
            other = {"x": "y", "y": "x", "output_0": "output_1", "output_1": "output_0"}
            names[0] = other.get(names[0], names[0])
        onnx.save(model, str(tmp_path / "other.onnx"))
        assert verify(module, tmp_path / "other.onnx", device="cpu").verdict == "failed"


WRONG: dict[str, tuple[Any, str]] = {
    "one array": (np.zeros((2, 3), np.float32), r"this model has 2 inputs \(obs, goal\), and got one array.*'goal': …"),
    "one missing": ({"obs": np.zeros((2, 3))}, "'goal' is missing; the model's inputs are: obs, goal"),
    "one unknown": (
        {"obs": np.zeros((2, 3)), "goal": np.zeros((2, 2)), "aim": np.zeros((2, 2))},
        "'aim' is unknown; the model's inputs are: obs, goal",
    ),
    "unequal batches": (
        {"obs": np.zeros((2, 3)), "goal": np.zeros((3, 2))},
        "different numbers of rows: 'obs' 2, 'goal' 3",
    ),
    "another width": (
        {"obs": np.zeros((2, 3)), "goal": np.zeros((2, 9))},
        r"'goal' expects shape \(batch, 2\), and got \(2, 9\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_inputs_that_do_not_fit_are_named(name: str, policy: Policy, tmp_path: Path) -> None:
    given, expected = WRONG[name]
    with Session(export(policy, tmp_path / "m.onnx").path, "cpu") as session, pytest.raises(InputError, match=expected):
        session.run(given)


def test_predict_gives_a_single_output_of_several_inputs(tmp_path: Path, rows: dict[str, np.ndarray]) -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, obs: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.cat((obs, goal), -1))

    torch.manual_seed(0)
    module = Joined()
    path = export(module, tmp_path / "m.onnx", input_shape=SHAPES).path
    with Session(path, "cpu") as session:
        with torch.no_grad():
            expected = module(*map(torch.from_numpy, rows.values())).numpy()
        np.testing.assert_allclose(session.predict(rows), expected, rtol=1e-5, atol=1e-6)


def test_files_of_several_inputs_and_outputs(policy: Policy, rows: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = export(policy, tmp_path / "m.onnx", input_shape=SHAPES).path
    np.savez(tmp_path / "rows.npz", **rows)  # type: ignore[arg-type]
    columns = {f"{name}_{i}": part[:, i] for name, part in rows.items() for i in range(part.shape[1])}
    table = polars.DataFrame(columns | {"other": np.zeros(6)})
    table.write_csv(tmp_path / "rows.csv")
    table.write_parquet(tmp_path / "rows.parquet")
    with Session(path, "cpu") as session:
        expected = session.run(rows)
        for name in ("rows.npz", "rows.csv", "rows.parquet"):
            report = score_file(session, tmp_path / name, tmp_path / "out.npz")
            with np.load(tmp_path / "out.npz") as found:
                assert report.rows == 6
                assert sorted(found) == ["action", "value"]
                np.testing.assert_allclose(found["action"], expected["action"], rtol=1e-5, atol=1e-6)
        score_file(session, tmp_path / "rows.npz", tmp_path / "out.csv")
        assert polars.read_csv(tmp_path / "out.csv").columns == ["action_0", "action_1", "value"]
        with pytest.raises(InputError, match=r"holds one array, and the model has the outputs action, value"):
            score_file(session, tmp_path / "rows.npz", tmp_path / "out.npy")
        np.save(tmp_path / "rows.npy", rows["obs"])
        with pytest.raises(InputError, match=r"one array, and the model has 2 inputs \(obs, goal\).*\.npz"):
            read_inputs(tmp_path / "rows.npy", session.inputs)
        table.drop("goal_1").write_csv(tmp_path / "less.csv")
        with pytest.raises(InputError, match="'goal_1'"):
            read_inputs(tmp_path / "less.csv", session.inputs)
