"""``mlpx predict``, ``inspect`` and ``doctor``, and how commands fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars
import pytest

from runtime import Session
from tests.support.bounded import WORDS, give_bound
from tests.support.commands import Run


def test_predict_to_a_file_and_to_standard_output(run: Run, model: Path, tmp_path: Path) -> None:
    rows = polars.DataFrame({"c": [1.0, 2.0], "a": [0.5, 0.25], "b": [3.0, 4.0]})
    rows.write_csv(tmp_path / "rows.csv")
    done = run("predict", model, tmp_path / "rows.csv", "-o", tmp_path / "scores.csv")
    assert done.code == 0
    assert done.out == ""
    assert "2 rows on cpu, columns by name" in done.err
    printed = run("predict", model, tmp_path / "rows.csv")
    assert printed.out == (tmp_path / "scores.csv").read_text()
    assert printed.out.splitlines()[0] == "label,probability_no,probability_yes,y_no,y_yes"
    with Session(model, "cpu") as session:
        expected = session.predict(rows.select("a", "b", "c").to_numpy())
    assert polars.read_csv(tmp_path / "scores.csv")["y_yes"].to_numpy().astype("f4").tolist() == expected[:, 1].tolist()
    as_json = run("predict", model, tmp_path / "rows.csv", "-o", tmp_path / "s.parquet", "--json")
    assert json.loads(as_json.out)["rows"] == 2


def test_inspect(run: Run, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.full((3, 3), -1, np.float32))
    done = run("inspect", model, "--data", tmp_path / "rows.npy")
    assert done.code == 0
    for part in (
        "x (batch, 3) float32, named a, b, c",
        "logits of no, yes",
        "26 parameters, 20 multiply-adds",
        "opset",
    ):
        assert part in done.out
    assert "dropout '2' is not in the file" in done.out
    assert "dead ReLU units, over 3 rows" in done.out
    record = json.loads(run("inspect", model, "--json").out)
    assert record["parameters"] == 26
    assert record["own"] is True


def test_inspect_shows_the_bound_of_the_certificate(run: Run, model: Path, tmp_path: Path) -> None:
    assert json.loads(run("inspect", model, "--json").out)["bound"] is None
    assert "  bound  " not in run("inspect", model).out
    give_bound(model)
    assert f"  bound    {WORDS}\n" in run("inspect", model).out
    bound = json.loads(run("inspect", model, "--json").out)["bound"]
    assert bound["box"] == {"input": [[-0.5, 16]]}
    assert bound["outputs"]["output"]["bound"] == [0.00125, 0.006543]
    assert (bound["largest"], bound["margin"], bound["why"]) == (0.006543, 0.01309, None)
    (tmp_path / "link.onnx").symlink_to(model)
    assert WORDS in run("inspect", tmp_path / "link.onnx").out
    certificate = model.with_name("tiny.parity.json")
    whole = certificate.read_text()
    certificate.write_text(whole.replace('"margin"', '"other"'))  # damaged
    assert "  bound  " not in run("inspect", model).out
    certificate.write_text(whole)
    with model.open("ab") as file:
        file.write(b"\x92\x01\x00")  # a field that no reader knows: the file is another
    done = run("inspect", model)
    assert done.code == 0
    assert "  bound  " not in done.out


def test_inspect_says_why_there_is_no_bound(run: Run, model: Path) -> None:
    give_bound(model, outputs={}, why="'3/log': the logarithm of 0", labels=None)
    assert (
        "  bound    none for inputs with input -0.5 to 16: '3/log': the logarithm of 0\n" in run("inspect", model).out
    )


def test_doctor(run: Run) -> None:
    done = run("doctor")
    assert done.code == 0
    assert "no problem found" in done.out
    assert "onnxruntime-gpu" in done.out
    assert "cpu   loads" in done.out
    record = json.loads(run("doctor", "--json").out)
    assert record["providers"]["cpu"] == "loads"
    assert record["problems"] == []
    cuda = record["providers"]["cuda"]
    assert cuda == "loads" or "What to do" in cuda


def test_cuda_on_a_machine_without_it(run: Run, model: Path, tmp_path: Path) -> None:
    if json.loads(run("doctor", "--json").out)["providers"]["cuda"] == "loads":
        pytest.skip("this machine has CUDA")
    np.save(tmp_path / "rows.npy", np.zeros((3, 3), np.float32))
    done = run("predict", model, tmp_path / "rows.npy", "-o", tmp_path / "scores.csv", "--device", "cuda")
    assert done.code == 3
    assert done.out == ""
    assert not (tmp_path / "scores.csv").exists()
    assert "cuda was requested and is not available" in done.err
    assert "What to do" in done.err
    assert done.err.startswith("mlpx: ")
    assert "Traceback" not in done.err
    assert "onnxruntime" not in done.err


WRONG = {
    "a spec that is not there": (["build", "nothing.yaml"], 2, "No such file"),
    "a bad spec": (["build", "bad.yaml", "--seed", "0"], 2, "did you mean 'relu'?"),
    "weights and a seed": (["build", "spec.yaml", "--seed", "0", "--weights", "w"], 2, "not both"),
    "a truncated model": (["predict", "cut.onnx", "rows.npy"], 2, "not a whole ONNX file"),
    "data of another width": (["predict", "out/tiny.onnx", "wide.npy"], 2, "(batch, 3)"),
    "data that is not there": (["predict", "out/tiny.onnx", "nothing.npy"], 2, "no such file"),
    "json without a file": (["predict", "out/tiny.onnx", "rows.npy", "--json"], 2, "--json needs an output file"),
    "an unknown device": (["predict", "out/tiny.onnx", "rows.npy", "--device", "tpu"], 2, "auto, cpu, cuda or cuda:N"),
    "an unknown command": (["frobnicate"], 2, "frobnicate"),
    "an unknown option": (["predict", "out/tiny.onnx", "rows.npy", "--fast"], 2, "--fast"),
    "an output that cannot be": (["predict", "out/tiny.onnx", "rows.npy", "-o", "bad.yaml/x.csv"], 3, "be written"),
    "a build that cannot be written": (["build", "spec.yaml", "--seed", "0", "-o", "bad.yaml"], 3, "cannot be written"),
    "a module that is not there": (["export", "nothing:here", "-o", "m.onnx"], 2, "cannot be imported"),
    "a module reference without a name": (["export", "nothing", "-o", "m.onnx"], 2, "package.module:factory"),
    "inspecting text": (["inspect", "bad.yaml"], 2, "not a whole ONNX file"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_is_a_paragraph_and_a_code(
    name: str, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, code, expected = WRONG[name]
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("name: x\ninput: {features: 3}\nblocks: [relo]")
    Path("cut.onnx").write_bytes(model.read_bytes()[:100])
    np.save("rows.npy", np.zeros((3, 3), np.float32))
    np.save("wide.npy", np.zeros((3, 4), np.float32))
    done = run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert expected in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err


IMPORTS = """
import sys
from mlpx.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = ("torch", "onnx", "onnx_ir", "onnxscript", "pandas", "sklearn")
print("imported:", [name for name in heavy if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["predict", "inspect", "doctor", "schema", "--help"])
def test_commands_that_only_run_a_model_import_no_torch(command: str, model: Path, root: Path, tmp_path: Path) -> None:
    polars.DataFrame({name: [1.0] for name in "abc"}).write_parquet(tmp_path / "rows.parquet")
    give_bound(model)
    arguments = {"predict": [model, tmp_path / "rows.parquet", "-o", tmp_path / "o.parquet"], "inspect": [model]}
    line = [sys.executable, "-c", IMPORTS, command, *map(str, arguments.get(command, []))]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True)
    assert "imported: []" in done.stderr, done.stderr


def test_a_missing_extra_names_its_install_line(spec: Path, root: Path) -> None:
    code = f"import sys; sys.modules['torch'] = None\nsys.argv = ['mlpx', 'build', {str(spec)!r}, '--seed', '0']\n"
    code += "from mlpx.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 3
    assert 'pip install "mlpx[build]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_defect_has_a_code_of_its_own(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("runtime.data.streaming.score", broken)
    np.save(tmp_path / "rows.npy", np.zeros((3, 3), np.float32))
    done = run("predict", model, tmp_path / "rows.npy")
    assert done.code == 70
    assert "ZeroDivisionError: a defect" in done.err
    assert "defect of mlpx" in done.err
