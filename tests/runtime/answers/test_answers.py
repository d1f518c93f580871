"""``mlpx verify --answers``: correct answers agree, and each planted fault differs and is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from builder import MLPSpec, assemble
from export import publish
from export.bounds.rows import row_bounds
from runtime import InputError, check_answers
from runtime.device.precisions import PRECISIONS
from tests.support.commands import Run
from tests.support.robot import JOINTS, ROWS, answers, judged, observations, policy_module, policy_spec, saved


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 4.0], ids=["inside the ranges", "outside"])
def test_what_the_module_gives_agrees(dtype: torch.dtype, scale: float, policy: Path, run: Run, tmp_path: Path) -> None:
    rows = observations(scale)
    code, report = judged(run, policy, saved(tmp_path, rows, answers(rows, dtype=dtype)))
    assert code == 0
    assert report["agree"]
    assert (report["rows"], report["judged"], report["beyond"]) == (ROWS, ROWS, 0)
    assert report["share"] < 1
    assert report["worst"]["allowed"] > 0
    rests = "the certificate's bound" if scale == 1 else "a bound of each row by itself"
    assert report["rests_on"][-1].startswith(rests)
    assert any("in float64" in note for note in report["notes"]) == (dtype == torch.float64)


def test_twice_the_bound_is_allowed_and_no_more(policy: Path, tmp_path: Path) -> None:
    rows = observations()
    bound = json.loads((tmp_path / "policy.parity.json").read_text())["bound"]["outputs"]["action"]["bound"]
    right = answers(rows)
    for share, expected in ((1.8, 0), (2.2, 1)):
        actions = right.copy()
        actions[5, 1] += np.float32(share * bound[1])
        path = saved(tmp_path, rows, actions)
        report = check_answers(policy, path, device="cpu")  # without bounds of single rows, which are smaller
        assert report.agree == (expected == 0)
        assert (report.worst.row, report.worst.feature) == (6, "joint_pos:left_knee")
        assert report.worst.difference == pytest.approx(share * bound[1], rel=0.1)
        assert report.worst.allowed == pytest.approx(2 * bound[1])


def test_a_row_is_bounded_by_itself_where_the_difference_is_unusual(policy: Path, run: Run, tmp_path: Path) -> None:
    rows = observations()
    right = answers(rows)
    bounds = row_bounds(policy, {"obs": rows})["action"]
    inner = np.abs(right - [0.1, -0.4, 0.1, -0.4]) < 0.2  # not at the clip, where nothing is lost
    row = int(np.flatnonzero(inner[:, 0])[0])
    actions = right.copy()
    actions[row, 0] += np.float32(5 * bounds[row, 0] + 1e-5)
    code, report = judged(run, policy, saved(tmp_path, rows, actions))
    assert code == 1
    assert report["worst"]["row"] == row + 1
    assert report["worst"]["allowed"] == pytest.approx(2 * bounds[row, 0], rel=1e-3)


FAULTS: dict[str, tuple[Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], list[str]]] = {}


def fault(name: str, *words: str) -> Callable[[Callable[[np.ndarray], Any]], Callable[[np.ndarray], Any]]:
    def add(make: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
        FAULTS[name] = (make, list(words))
        return make

    return add


def without(**changed: Any) -> nn.Module:
    return policy_module(policy_spec(**changed))


@fault("normaliser left out", "'obs': the normaliser, applied first in the file, left out where the answers are from")
def _normaliser(rows: np.ndarray) -> Any:
    return rows, answers(rows, without(normaliser=None))


@fault(
    "normaliser left out far from the clip", "'obs': the clip and the normaliser, applied first in the file, left out"
)
def _neither(rows: np.ndarray) -> Any:
    rows = rows * 20
    return rows, answers(rows, without(clip=None, normaliser=None))


@fault("inputs already normalised", "the normaliser, applied first", "or the saved inputs went through it already")
def _normalised(rows: np.ndarray) -> Any:
    rows = rows / 4
    normalised = policy_module(policy_spec())[1](torch.from_numpy(rows)).numpy()
    return normalised, answers(rows)


@fault("scale left out", "'action': the scale, applied last in the file, left out where the answers are from")
def _scale(rows: np.ndarray) -> Any:
    return rows, answers(rows, without(scale=None))


@fault("scale applied twice", "'action': the scale applied once more in the saved answers than in the file")
def _twice(rows: np.ndarray) -> Any:
    return rows, policy_module(policy_spec())[-1](torch.from_numpy(answers(rows))).numpy()


@fault("another scale", "the answers are the right ones times (1, 1, 1, 0.5) plus (")
def _factor(rows: np.ndarray) -> Any:
    scale = {"scale": {"factor": [0.25, 0.5, 0.25, 0.25], "offset": [0.1, -0.4, 0.1, -0.4]}}
    return rows, answers(rows, without(scale=scale))


@fault("actions not clipped", "'action': the saved answers are not clipped to -1 to 1, and the file's are: joint_pos:")
def _clip(rows: np.ndarray) -> Any:
    return rows, answers(rows, without(action_clip=None))


@fault("inputs not clipped", "'obs': the clip that the file applies first is left out", "(ang_vel[1])")
def _input_clip(rows: np.ndarray) -> Any:
    rows = rows.copy()
    rows[::3, 1] = 25
    return rows, answers(rows, without(clip=None))


@fault("joints of the actions", "'action': the saved values are in another order: joint_pos:left_hip holds that of")
def _actions(rows: np.ndarray) -> Any:
    return rows, answers(rows)[:, [1, 0, 2, 3]]


@fault("joints of the inputs", "the joints of 'obs' are in another order (left_knee and right_hip exchanged)")
def _joints(rows: np.ndarray) -> Any:
    return rows[:, [0, 1, 2, 3, 5, 4, 6, 7, 9, 8, 10, 11]], answers(rows)


@fault("joints of both", "are in another order (left_knee and right_hip exchanged), and so are those of 'action'")
def _both(rows: np.ndarray) -> Any:
    return rows[:, [0, 1, 2, 3, 5, 4, 6, 7, 9, 8, 10, 11]], answers(rows)[:, [0, 2, 1, 3]]


@fault("history", "'obs': the history is in the opposite order")
def _history(rows: np.ndarray) -> Any:
    return rows[:, [0, 1, 2, 7, 8, 9, 10, 3, 4, 5, 6, 11]], answers(rows)


@fault("a row late", "the saved answers are a row late")
def _late(rows: np.ndarray) -> Any:
    return rows, np.roll(answers(rows), 1, axis=0)


@fault("half precision", "TF32: products were rounded to it where the answers were computed")
def _tf32(rows: np.ndarray) -> Any:
    """As a GPU multiplies: both factors in TF32."""
    values = torch.from_numpy(rows)
    with torch.no_grad():
        for layer in policy_module(policy_spec()):
            if isinstance(layer, nn.Linear):
                layer.weight[:] = torch.from_numpy(PRECISIONS["TF32"](layer.weight.numpy()))
                values = torch.from_numpy(PRECISIONS["TF32"](values.numpy()))
            values = layer(values)
    return rows, values.numpy()


@fault("another policy", "the answers are not")
def _other(rows: np.ndarray) -> Any:
    torch.manual_seed(99)
    return rows, np.tanh(np.random.default_rng(9).normal(size=(ROWS, 4))).astype(np.float32)


@fault("rounded", "the saved answers are rounded to 2 decimals")
def _rounded(rows: np.ndarray) -> Any:
    return rows, np.round(answers(rows), 2)


@fault("one answer", "every row has the same answer: one answer was saved for all rows, or for the same inputs")
def _one(rows: np.ndarray) -> Any:
    return rows, np.full((ROWS, 4), 0.3, np.float32)


@fault("not a number", "values that are not numbers")
def _nan(rows: np.ndarray) -> Any:
    actions = answers(rows)
    actions[7] = np.nan
    return rows, actions


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_differs_and_is_named(name: str, policy: Path, run: Run, tmp_path: Path) -> None:
    make, words = FAULTS[name]
    rows, actions = make(observations())
    code, report = judged(run, policy, saved(tmp_path, rows, actions))
    assert code == 1
    assert not report["agree"]
    assert report["beyond"] > 0
    assert [part for part in words if part not in report["causes"][0]] == [], report["causes"]
    assert not any(word in cause for cause in report["causes"] for word in ("server", "does not reach the model"))


def test_what_is_printed_names_row_feature_and_cause(policy: Path, run: Run, tmp_path: Path) -> None:
    rows = observations()
    actions = answers(rows, without(scale=None))
    code, out, _ = run("verify", policy, "--answers", saved(tmp_path, rows, actions), "--device", "cpu")
    assert code == 1
    row, index = np.unravel_index(np.abs(actions - answers(rows)).argmax(), actions.shape)
    assert f"most off  row {row + 1}, 'joint_pos:{JOINTS[index]}' of 'action': {actions[row, index]:.9g} saved" in out
    assert out.startswith(f"differ    {policy} on cpu, {ROWS} rows of {tmp_path / 'saved.npz'}\n")
    assert "cause     'action': the scale, applied last in the file, left out where the answers are from" in out


def test_it_needs_a_bound_and_says_where_to_get_one(policy: Path, tmp_path: Path) -> None:
    rows = observations(4.0)
    path = saved(tmp_path, rows, answers(rows))
    with pytest.raises(InputError, match="every row is outside the declared ranges, so nothing says how far"):
        check_answers(policy, path, device="cpu")
    rows[:10] = observations()[:10]
    report = check_answers(policy, saved(tmp_path, rows, answers(rows)), device="cpu")
    assert report.agree
    assert (report.rows, report.judged) == (ROWS, 10)
    assert report.notes[0].startswith("30 of 40 rows have no bound, and were not judged")
    (tmp_path / "policy.parity.json").unlink()
    with pytest.raises(InputError, match="has no certificate beside it"):
        check_answers(policy, saved(tmp_path, rows, answers(rows)), device="cpu")
    with pytest.raises(InputError, match=r'What to do: pip install "mlpx\[build\]"'):
        check_answers(policy, saved(tmp_path, rows, answers(rows)), device="cpu")
    assert check_answers(policy, saved(tmp_path, rows, answers(rows)), device="cpu", bounder=row_bounds).judged == ROWS
    rows[:] = np.nan
    with pytest.raises(InputError, match="What to do: compare fewer rows, or declare ranges that hold them"):
        check_answers(policy, saved(tmp_path, rows, answers(rows)), device="cpu", bounder=row_bounds)


def test_options_that_do_not_go_with_it_are_refused(policy: Path, run: Run, tmp_path: Path) -> None:
    code, _, err = run("verify", policy, "--answers", tmp_path / "a.npz", "--spec", tmp_path / "s.yaml")
    assert code == 2
    assert "--answers goes with FILE, --certificate and --device alone" in err
    code, _, err = run("verify", "--url", "http://localhost:1/v2/models/x", "--answers", tmp_path / "a.npz")
    assert code == 2
    assert "does not go with --answers" in err


def test_a_network_of_two_outputs_and_whole_numbers(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.body = nn.Embedding(5, 3), nn.Linear(5, 4)

        def forward(self, item: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = torch.tanh(self.body(torch.cat([self.table(item), x], dim=1)))
            return y, 3 * y

    torch.manual_seed(0)
    module = Two().eval()
    item, x = np.arange(8) % 5, np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    shapes = {"item": (), "x": (2,)}
    path = tmp_path / "two.onnx"
    publish(
        module,
        path,
        input_shape=shapes,
        input_dtype={"item": "int64"},
        device="cpu",
        page=False,
        output_name=("a", "b"),
    )
    with torch.no_grad():
        a, b = (each.numpy() for each in module(torch.from_numpy(item), torch.from_numpy(x)))
    np.savez(tmp_path / "s.npz", item=item, x=x, a=a, b=b)
    bounds = {name: np.full((8, 4), 1e-5) for name in ("a", "b")}
    assert check_answers(path, tmp_path / "s.npz", device="cpu", bounder=lambda *_: bounds).agree
    np.savez(tmp_path / "s.npz", item=item, x=x, a=b, b=a)
    report = check_answers(path, tmp_path / "s.npz", device="cpu", bounder=lambda *_: bounds)
    assert not report.agree
    assert "the outputs are exchanged" in report.causes[0]


def test_it_needs_no_torch_where_the_certificate_covers_the_rows(policy: Path, tmp_path: Path) -> None:
    rows = observations()
    path = saved(tmp_path, rows, answers(rows))
    code = (
        "import sys; from mlpx.cli import main\n"
        "sys.modules |= dict.fromkeys(['torch', 'onnx', 'polars', 'pyarrow', 'pandas'])\n"  # as if not installed
        "import mlpx.cli.answers as answers; answers.find_spec = lambda name: None\n"
        f"sys.argv = ['mlpx', 'verify', {str(policy)!r}, '--answers', {str(path)!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("agree")


def test_bounds_of_single_rows_hold_every_float32_evaluation(tmp_path: Path) -> None:
    spec = MLPSpec(
        name="m", input={"features": 6}, blocks=[{"linear": 32}, "elu", {"linear": 32}, "tanh", {"linear": 3}]
    )
    module = assemble(spec, seed=2).eval()
    path = publish(module, tmp_path / "m.onnx", spec=spec, device="cpu", page=False)[0].path
    rows = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32) * 3
    rows[7, 2] = np.nan
    bounds = row_bounds(path, {"input": rows})["output"]
    exact = answers(rows, module, torch.float64)
    module = module.float()
    error = np.abs(answers(rows, module) - exact)
    finite = np.isfinite(rows).all(axis=1)
    assert (error[finite] <= bounds[finite]).all()
    assert bounds[finite].max() < 1e-4
    assert np.isinf(bounds[7]).all()
