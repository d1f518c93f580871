"""``mlpx tune``: what it measures, refuses and writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export import ExportError, export, tune, write_variant
from runtime import InputError, MissingPackageError, Session, read_tuning, summary_of
from runtime.model.onnx_header import read_header
from runtime.timing.accuracy import difference
from runtime.timing.plot import can_plot, write_plot
from tests.support.cases import normal
from tests.support.commands import Run
from tests.support.onnx_drafts import Draft, layer
from tests.support.tuned import FEATURES, ill_conditioned, rows

SHORT = ("--seconds", "0.2")


def test_the_gate_on_labels_lets_8_bits_pass_and_4_not(tmp_path: Path, run: Run) -> None:
    path, data = ill_conditioned(tmp_path), rows(tmp_path)
    done = run("tune", path, "--data", data, "--max-changed-labels", "0.1", "-o", tmp_path / "out", *SHORT)
    assert done.code == 0, done.err
    found = read_tuning(tmp_path / "out" / "model.tuning.json")
    bad, good = found.file("weights4"), found.file("weights8")
    assert bad.changed_labels is not None
    assert bad.changed_labels > 0.2
    assert not bad.kept
    assert good.changed_labels is not None
    assert good.changed_labels <= 0.1
    assert good.kept
    assert "refused   weights4: " in done.out
    assert "of the labels change, above 10 %" in done.out
    names = {path.name for path in (tmp_path / "out").glob("*.onnx")}
    assert "model.weights8.onnx" in names
    assert "model.weights4.onnx" not in names
    assert bad.best is not None, "what was refused is shown all the same"
    assert bad.error is not None, "what was refused is shown all the same"


def test_the_gate_on_the_error(tmp_path: Path) -> None:
    path, data = ill_conditioned(tmp_path), rows(tmp_path)
    found = tune(path, data=data, max_error=0.05, seconds=0.2, plot=False)
    assert [one.kind for one in found.files if one.kept] == ["float32", "float16"]
    assert all("above 0.05" in (one.why or "") for one in found.files if not one.kept)
    for one in found.files[1:]:
        assert one.error is not None
        assert (one.error <= 0.05) is one.kept
        assert (tmp_path / one.name).exists() is one.kept
    assert found.chosen in ("float32", "float16")


def test_a_refused_file_is_never_chosen_however_fast(tmp_path: Path) -> None:
    path = layer(tmp_path, normal(2048, 1024), normal(1, 1024)[0])
    np.save(tmp_path / "x.npy", normal(3, 2048, 1))
    found = tune(path, data=tmp_path / "x.npy", max_error=0, seconds=0.3, plot=False)
    assert found.chosen == "float32"
    assert not any(one.kept for one in found.files[1:])


def test_the_error_is_the_one_that_a_user_would_measure(tmp_path: Path) -> None:
    path, data = ill_conditioned(tmp_path), rows(tmp_path)
    found = tune(path, data=data, max_error=100, seconds=0.2, plot=False)
    x = np.load(data)
    with Session(path, "cpu") as exact:
        wanted = exact.predict(x)
    for one in found.files[1:]:
        with Session(tmp_path / one.name, "cpu") as tried:
            given = np.concatenate([tried.predict(row) for row in x[:, None]])
        assert one.rows == len(x)
        assert one.error == pytest.approx(float(np.abs(given - wanted).max()), rel=1e-5)
        assert one.changed_labels == pytest.approx(float((given.argmax(1) != wanted.argmax(1)).mean()))
        summary = summary_of(read_header(tmp_path / one.name).metadata)
        assert summary is not None
        assert summary.variant is not None
        assert summary.variant.get("calibration_rows") == (100 if one.kind == "int8-static" else None)


def test_without_a_gate_only_the_file_itself_is_tuned(tmp_path: Path, run: Run) -> None:
    path = ill_conditioned(tmp_path)
    done = run("tune", path, *SHORT)
    assert done.code == 0
    assert "files of reduced precision: they need --data and a gate" in done.out
    assert {file.name for file in tmp_path.glob("*.onnx")} == {"model.onnx"}
    found = read_tuning(tmp_path / "model.tuning.json")
    assert [one.kind for one in found.files] == ["float32"]
    assert found.chosen == "float32"
    assert f"written to {tmp_path / 'model.tuning.json'}" in done.err


@pytest.mark.parametrize(
    ("options", "loaded"), [("rate=1e4", "set()"), ("data=sys.argv[2], max_error=100", "{'onnx'}")]
)
def test_tuning_never_needs_torch_and_onnx_only_with_a_gate(
    options: str, loaded: str, root: Path, tmp_path: Path
) -> None:
    tuning = f"from export import tune; tune(sys.argv[1], {options}, seconds=0.1, plot=False)"
    code = f"import sys; {tuning}; print({{'torch', 'onnx'}} & {{*sys.modules}})"
    command = [sys.executable, "-c", code, str(ill_conditioned(tmp_path)), str(rows(tmp_path))]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == loaded, done.stderr


def test_one_object_for_machines(tmp_path: Path, run: Run) -> None:
    path, data = ill_conditioned(tmp_path), rows(tmp_path)
    traffic = ("--batch", 3, "--rate", 2000)
    done = run("tune", path, "--data", data, "--max-error", 1, *traffic, *SHORT, "--json")
    record = json.loads(done.out)
    assert record == json.loads((tmp_path / "model.tuning.json").read_text())
    assert (record["batch"], record["rate"], record["max_error"], record["data"]) == (3, 2000, 1, "rows.npy")
    assert record["machine"]["cores"]
    assert record["machine"]["onnxruntime"]
    summary = summary_of(read_header(path).metadata)
    assert summary is not None
    assert record["weights_sha256"] == summary.weights_sha256
    for one in record["files"]:
        assert one["best"] in one["measured"]
        assert one["size"]
        assert len(one["sha256"]) == 64
        for each in one["measured"]:
            assert 0 < each["p50"] <= each["p99"]
            assert each["cpu"] > 0
            assert len(each["rounds"]) >= 3


def test_a_refused_file_of_an_earlier_tuning_goes_and_others_stay(tmp_path: Path) -> None:
    path, data = ill_conditioned(tmp_path), rows(tmp_path)
    tune(path, data=data, max_error=100, seconds=0.1, plot=False)
    assert (tmp_path / "model.weights4.onnx").exists()
    mine = tmp_path / "model.int8-static.onnx"
    made = mine.read_bytes()
    mine.write_bytes(path.read_bytes())  # a user's own
    for attempt in (
        lambda: tune(path, data=data, max_error=0),
        lambda: write_variant(path, "int8-static", rows={"input": np.load(data)}),
    ):
        with pytest.raises(ExportError, match=r"int8-static\.onnx exists, and is not a file of reduced precision"):
            attempt()
    assert mine.read_bytes() == path.read_bytes()
    assert (tmp_path / "model.weights4.onnx").exists()
    mine.write_bytes(made)
    tune(path, data=data, max_error=0, seconds=0.1, plot=False)
    left = {file.name for file in tmp_path.glob("*.onnx")}
    assert left == {"model.onnx", "model.float16.onnx"}, "float16 holds these weights exactly"


def test_files_of_an_earlier_model_are_named(tmp_path: Path, run: Run) -> None:
    path, data = ill_conditioned(tmp_path), rows(tmp_path)
    tune(path, data=data, max_error=100, seconds=0.1, plot=False)
    ill_conditioned(tmp_path, seed=1)
    done = run("tune", path, "--no-plot", *SHORT)
    assert "note      model.weights4.onnx: it was made of another model.onnx" in done.out


def test_one_nan_leaves_out_what_it_cannot_calibrate(tmp_path: Path) -> None:
    path, data = ill_conditioned(tmp_path), rows(tmp_path)
    values = np.load(data)
    values[4, 1] = np.nan
    np.save(data, values)
    found = tune(path, data=data, max_error=100, seconds=0.1, plot=False)
    assert "it cannot be made" in (found.file("int8-static").why or "")
    assert found.file("float16").kept


def test_a_link_is_told_by_what_it_names(tmp_path: Path, run: Run) -> None:
    path = ill_conditioned(tmp_path / "real")
    (tmp_path / "current.onnx").symlink_to(path)
    done = run("tune", tmp_path / "current.onnx", "--no-plot", *SHORT)
    assert f"written to {tmp_path / 'real' / 'model.tuning.json'}" in done.err


def test_the_measured_error_of_nan_is_infinite(tmp_path: Path) -> None:
    draft = Draft(dims=("batch", 1))
    one = draft.save(tmp_path / "one.onnx", draft("Sqrt", "x"))
    draft = Draft(dims=("batch", 1))
    other = draft.save(tmp_path / "other.onnx", draft("Abs", draft("Sqrt", draft("Abs", "x"))))
    assert difference(one, other, {"x": np.array([[1], [4]], np.float32)}).error == 0
    assert difference(one, one, {"x": np.array([[-1], [np.inf]], np.float32)}).error == 0
    assert difference(one, other, {"x": np.array([[1], [-4]], np.float32)}).error == np.inf


WRONG = {
    "a rate too low": (["--rate", 0.01, "--seconds", 1], "0.01 calls a second need at least 1,200 s.*--seconds 1200"),
    "no data": (["--max-error", 1], "a gate compares results on rows of your own.*--data"),
    "negative error": (["--max-error", -1, "--data", "rows.npy"], "largest error is a number from 0 on, not -1"),
    "a share above 1": (["--max-changed-labels", 2, "--data", "rows.npy"], "from 0 to 1, not 2"),
    "no rate": (["--rate", 0], "calls a second above 0, not 0"),
    "no time": (["--seconds", 0], "seconds above 0, not 0"),
    "no rows": (["--data", "empty.npy"], "empty.npy: it has no rows to measure with"),
    "no such data": (["--data", "none.npy"], "none.npy: no such file"),
    "data of another width": (["--data", "wide.npy"], r"expects shape \(batch, 24\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_says_what_to_do(name: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = ill_conditioned(tmp_path)
    rows(tmp_path)
    np.save("empty.npy", np.zeros((0, FEATURES), np.float32))
    np.save("wide.npy", np.zeros((3, FEATURES + 1), np.float32))
    options, expected = WRONG[name]
    before = sorted(tmp_path.iterdir())
    done = run("tune", path, *SHORT, *options)
    assert done.code == 2, done.err
    assert re.search(expected, done.err), done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_model_without_labels_has_none_to_change(tmp_path: Path, run: Run) -> None:
    path, data = ill_conditioned(tmp_path, labels=False), rows(tmp_path)
    done = run("tune", path, "--data", data, "--max-changed-labels", 0.1, *SHORT)
    assert done.code == 2
    assert "its outputs have no labels" in done.err
    assert "--max-error alone" in done.err


def test_a_fixed_batch_is_the_traffic(tmp_path: Path) -> None:
    draft = Draft(dims=(4, 6))
    path = tmp_path / "fixed.onnx"
    path.write_bytes(draft.model(draft("Gemm", "x", np.ones((6, 3)), np.ones(3)), (4, 3)).SerializeToString())
    assert tune(path, seconds=0.1, plot=False).batch == 4
    with pytest.raises(InputError, match=r"takes batches of exactly 4 rows, not 3.*--batch 4"):
        tune(path, batch=3, seconds=0.1)


class Two(nn.Module):
    """Two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(5, 4), nn.Linear(3, 2)

    def forward(self, obs: torch.Tensor, goal: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"torque": torch.tanh(self.one(obs)), "value": self.other(goal)}


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = export(Two(), tmp_path / "two.onnx").path
    np.savez(tmp_path / "rows.npz", obs=normal(40, 5), goal=100 * normal(40, 3))
    found = tune(path, data=tmp_path / "rows.npz", max_error=1.5, seconds=0.1, plot=False)
    errors = {one.kind: one.error or 0 for one in found.files}
    assert errors["weights4"] > 1.5 > errors["weights8"] > 0.1, "the larger output, value, decides"
    assert tune(path, batch=3, seconds=0.1, plot=False).batch == 3


def test_a_file_of_reduced_precision_is_tuned_with_its_source(tmp_path: Path, run: Run) -> None:
    variant = write_variant(ill_conditioned(tmp_path), "float16")
    done = run("tune", variant.path, *SHORT)
    assert done.code == 2
    assert "of reduced precision. What to do: tune the float32 file" in done.err


def test_nothing_is_written_where_nothing_can_be(tmp_path: Path, run: Run) -> None:
    path = ill_conditioned(tmp_path)
    (tmp_path / "taken").write_text("a file")
    done = run("tune", path, "-o", tmp_path / "taken", *SHORT)
    assert done.code == 3
    assert "a file stands where its folder should be" in done.err
    done = run("tune", tmp_path / "none.onnx", *SHORT)
    assert done.code == 2
    assert "no such file" in done.err


def test_the_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_plot():
        pytest.skip("matplotlib is not installed")
    path, data = ill_conditioned(tmp_path), rows(tmp_path)
    found = tune(path, data=data, max_error=0.2, seconds=0.2)
    assert (tmp_path / "model.tuning.png").read_bytes().startswith(b"\x89PNG")
    write_plot(found, tmp_path / "p.svg")
    text = (tmp_path / "p.svg").read_text()
    assert all(one.kind in text for one in found.files)
    assert "refused" in text
    assert "largest allowed, 0.2" in text
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"mlpx\[report\]"):
        write_plot(found, tmp_path / "q.svg")
