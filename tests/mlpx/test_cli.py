"""The commands: what they write, what they say, and their exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import polars
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from builder import json_schema
from runtime import Session
from runtime.data.file_formats import DATA_SUFFIXES, FORMATS, RESULTS_SUFFIXES
from tests.support.commands import Run

SPEC = """name: tiny
input: {name: x, features: [a, b, c]}
blocks: [{linear: 4}, relu, {dropout: 0.5}, {linear: 2}]
output: {name: y, labels: [no, yes]}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def model(run: Run, spec: Path, tmp_path: Path) -> Path:
    assert run("build", spec, "--seed", 1, "-o", tmp_path / "out").code == 0
    return tmp_path / "out" / "tiny.onnx"


def test_build_takes_the_weights_beside_the_spec(run: Run, root: Path, tmp_path: Path) -> None:
    done = run("build", root / "models" / "digits" / "spec.yaml", "-o", tmp_path)
    written = ["digits.onnx", "digits.parity.html", "digits.parity.json"]
    assert done.code == 0 and sorted(p.name for p in tmp_path.iterdir()) == written
    assert f"written   {tmp_path / 'digits.onnx'}" in done.out and "opset 17, IR 8" in done.out
    assert "pixels [batch, 64] -> logits [batch, 10]" in done.out
    assert "\nproved    on cpu: every layer within its bound on " in done.out and "not proved" not in done.out


def test_build_with_named_weights_and_data_in_json(run: Run, root: Path, tmp_path: Path) -> None:
    folder = root / "models" / "digits"
    weights, data = folder / "weights.safetensors", folder / "heldout.parquet"
    done = run("build", folder / "spec.yaml", "--weights", weights, "--data", data, "-o", tmp_path, "--json")
    record = json.loads(done.out)
    assert done.code == 0 and record["proved"] is True and record["summary"]["name"] == "digits"
    assert record["parity"]["verdict"] == "proved" and record["parity"]["inputs"][0]["rows"] == 450
    assert record["parity"]["end_to_end"]["from_float64"] < 1e-4


def test_build_without_weights_or_seed(run: Run, spec: Path, tmp_path: Path) -> None:
    done = run("build", spec, "-o", tmp_path / "out")
    assert done.code == 2 and "weights.safetensors: no such file" in done.err and "--seed" in done.err
    assert not (tmp_path / "out").exists()


def test_build_folds_when_asked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: two\ninput: {features: 3}\nblocks: [{linear: 4}, {linear: 2}]")
    plain = run("build", tmp_path / "s.yaml", "--seed", 0, "-o", tmp_path)
    folded = run("build", tmp_path / "s.yaml", "--seed", 0, "-o", tmp_path, "--fold-affine")
    assert "remark    linear '0' and linear '1' stand in a row" in plain.out
    assert "folded    linear '0', linear '1' folded into linear '1': 20 multiply-adds became 6" in folded.out


def test_a_difference_between_spec_and_weights_is_noted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: n\ninput: {features: 1}\nblocks: [{standardize: {mean: 1}}, {linear: 1}]")
    state = {"0.mean": [3.0], "0.std": [1.0], "1.weight": [[1.0]], "1.bias": [0.0]}
    torch.save({name: torch.tensor(value) for name, value in state.items()}, tmp_path / "w.pt")
    done = run("build", tmp_path / "s.yaml", "--weights", tmp_path / "w.pt", "-o", tmp_path)
    assert done.code == 0 and "note: " in done.err and "0.mean differs from the spec's by up to 2" in done.err
    with Session(tmp_path / "n.onnx", "cpu") as session:
        assert session.predict([[3.0]]).tolist() == [[0.0]]


def test_predict_to_a_file_and_to_standard_output(run: Run, model: Path, tmp_path: Path) -> None:
    rows = polars.DataFrame({"c": [1.0, 2.0], "a": [0.5, 0.25], "b": [3.0, 4.0]})
    rows.write_csv(tmp_path / "rows.csv")
    done = run("predict", model, tmp_path / "rows.csv", "-o", tmp_path / "scores.csv")
    assert done.code == 0 and done.out == "" and "2 rows on cpu, columns by name" in done.err
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
    assert "dropout '2' is not in the file" in done.out and "dead ReLU units, over 3 rows" in done.out
    record = json.loads(run("inspect", model, "--json").out)
    assert record["parameters"] == 26 and record["own"] is True


def test_schema(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("schema").out) == json_schema()
    done = run("schema", "-o", tmp_path / "schema.json")
    assert done.code == 0 and json.loads((tmp_path / "schema.json").read_text()) == json_schema()
    assert json.loads(run("schema", "-o", tmp_path / "s.json", "--json").out)["path"] == str(tmp_path / "s.json")


def test_doctor(run: Run) -> None:
    done = run("doctor")
    assert done.code == 0 and "no problem found" in done.out
    assert "onnxruntime-gpu" in done.out and "cpu   loads" in done.out
    record = json.loads(run("doctor", "--json").out)
    assert record["providers"]["cpu"] == "loads" and record["problems"] == []
    cuda = record["providers"]["cuda"]
    assert cuda == "loads" or "What to do" in cuda


def test_cuda_on_a_machine_without_it(run: Run, model: Path, tmp_path: Path) -> None:
    if json.loads(run("doctor", "--json").out)["providers"]["cuda"] == "loads":
        pytest.skip("this machine has CUDA")
    np.save(tmp_path / "rows.npy", np.zeros((3, 3), np.float32))
    done = run("predict", model, tmp_path / "rows.npy", "-o", tmp_path / "scores.csv", "--device", "cuda")
    assert done.code == 3 and done.out == "" and not (tmp_path / "scores.csv").exists()
    assert "cuda was requested and is not available" in done.err and "What to do" in done.err
    assert done.err.startswith("mlpx: ") and "Traceback" not in done.err and "onnxruntime" not in done.err


def test_build_publishes_nothing_that_could_not_be_run(run: Run, spec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run("build", spec, "--seed", 1, "-o", folder, "--external-data").code == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    written = ["tiny.onnx", "tiny.onnx.data", "tiny.parity.html", "tiny.parity.json"]
    assert sorted(path.name for path in before) == written
    np.save(tmp_path / "wide.npy", np.zeros((3, 4), np.float32))
    done = run("build", spec, "--seed", 2, "-o", folder, "--data", tmp_path / "wide.npy")
    assert done.code == 2 and "(batch, 3)" in done.err
    assert run("build", spec, "--seed", 2, "-o", folder, "--device", "cuda:99").code == 3
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert run("build", spec, "--seed", 2, "-o", folder, "--external-data").code == 0
    assert (folder / "tiny.onnx.data").read_bytes() != before[folder / "tiny.onnx.data"]


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
    assert expected in " ".join(done.err.replace("│", " ").split()) and "Traceback" not in done.err


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 4)
    def forward(self, x):
        return torch.relu(self.a(x))

    def act(self, x):
        return torch.tanh(self.a(x))

class Odd(Net):
    def forward(self, x):
        return torch.tan(self.a(x))

class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 2)
    def forward(self, item):
        return self.table(item)

ready, table = Net(), Table()
number = 3
"""


def test_export_a_hand_written_module(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(MODULE)
    for name, seed in (("Net", ["--seed", 0]), ("ready", [])):
        reference, target = f"{tmp_path / 'nets.py'}:{name}", tmp_path / f"{name}.onnx"
        done = run("export", reference, "-o", target, "--output-name", "y", *seed)
        assert done.code == 0 and "input [batch, 3] -> y [batch, 4]" in done.out and "\nproved " in done.out
    done = run("export", f"{tmp_path / 'nets.py'}:number", "-o", tmp_path / "n.onnx")
    assert done.code == 2 and "is a int; expected an nn.Module" in done.err
    done = run("export", f"{tmp_path / 'nets.py'}:Nat", "-o", tmp_path / "n.onnx")
    assert done.code == 2 and "has no 'Nat'; it has" in done.err and "Net" in done.err


def test_a_class_of_random_weights_wants_weights_or_a_seed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(MODULE)
    reference, target = f"{tmp_path / 'nets.py'}:Net", tmp_path / "net.onnx"
    done = run("export", reference, "-o", target)
    assert done.code == 2 and "a new network with random weights at every call" in done.err and "--seed 0" in done.err
    assert run("export", reference, "-o", target, "--seed", 7).code == 0
    random = target.read_bytes()
    torch.manual_seed(7)
    layer = nn.Linear(3, 4)
    trained = {"a.weight": layer.weight.detach(), "a.bias": layer.bias.detach()}
    torch.save(trained, tmp_path / "net.pth")
    assert run("export", reference, "-o", target, "--weights", tmp_path / "net.pth").code == 0
    assert target.read_bytes() == random
    done = run("verify", target, "--module", reference, "--weights", tmp_path / "net.pth")
    assert done.code == 0 and "\nmodule " in done.out


def test_another_method_and_whole_numbers(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(MODULE)
    nets = tmp_path / "nets.py"
    done = run("export", f"{nets}:ready", "-o", tmp_path / "act.onnx", "--method", "act")
    assert done.code == 0 and [n.op_type for n in onnx.load(tmp_path / "act.onnx").graph.node] == ["Gemm", "Tanh"]
    done = run("export", f"{nets}:table", "-o", tmp_path / "t.onnx", "--integers", "input", "--features", "3")
    assert done.code == 0 and "input [batch, 3]" in done.out, done.err
    with Session(tmp_path / "t.onnx", "cpu") as session:
        assert session.inputs[0].dtype == "int64" and session.inputs[0].indices == ((0, 4),) * 3


def test_an_operator_that_no_file_has_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(MODULE)
    done = run("export", f"{tmp_path / 'nets.py'}:Odd", "-o", tmp_path / "odd.onnx", "--seed", 0)
    assert done.code == 2 and "a file has no operator for tan at line 17 of nets.py" in done.err
    assert not list(tmp_path.glob("odd*"))


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
    arguments = {"predict": [model, tmp_path / "rows.parquet", "-o", tmp_path / "o.parquet"], "inspect": [model]}
    line = [sys.executable, "-c", IMPORTS, command, *map(str, arguments.get(command, []))]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True)
    assert "imported: []" in done.stderr, done.stderr


def test_a_missing_extra_names_its_install_line(spec: Path, root: Path) -> None:
    code = f"import sys; sys.modules['torch'] = None\nsys.argv = ['mlpx', 'build', {str(spec)!r}, '--seed', '0']\n"
    code += "from mlpx.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 3 and 'pip install "mlpx[build]"' in done.stderr and "Traceback" not in done.stderr


def test_external_data_goes_beside_the_file_that_a_link_names(run: Run, spec: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run("build", spec, "--seed", 1, "-o", tmp_path / "a").code == 0
    (tmp_path / "b" / "tiny.onnx").symlink_to(tmp_path / "a" / "tiny.onnx")
    assert run("build", spec, "--seed", 2, "-o", tmp_path / "b", "--external-data").code == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["tiny.onnx"]
    for folder in "ab":
        with Session(tmp_path / folder / "tiny.onnx", "cpu") as session:
            assert session.predict([[0.0, 0.0, 0.0]]).shape == (1, 2)


def test_a_range_that_is_wide(run: Run, tmp_path: Path) -> None:
    text = "name: wide\ninput: {features: 2, range: [-3e38, 3e38]}\nblocks: [{linear: 2}, sigmoid]"
    (tmp_path / "s.yaml").write_text(text)
    assert run("build", tmp_path / "s.yaml", "--seed", 0, "-o", tmp_path).code == 0
    (tmp_path / "s.yaml").write_text(text.replace("3e38]", "1e39]"))
    done = run("build", tmp_path / "s.yaml", "--seed", 0, "-o", tmp_path)
    assert done.code == 2 and "both within float32" in done.err


def test_a_defect_has_a_code_of_its_own(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("runtime.data.streaming.score", broken)
    np.save(tmp_path / "rows.npy", np.zeros((3, 3), np.float32))
    done = run("predict", model, tmp_path / "rows.npy")
    assert done.code == 70 and "ZeroDivisionError: a defect" in done.err and "defect of mlpx" in done.err


def test_export_of_a_file_that_imports_its_neighbour(run: Run, tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_nets.py").write_text("width = 3")
    (tmp_path / "nets2.py").write_text(
        "from neighbour_of_nets import width\nfrom torch import nn\nnet = nn.Linear(width, 2)"
    )
    assert run("export", f"{tmp_path / 'nets2.py'}:net", "-o", tmp_path / "m.onnx").code == 0
    (tmp_path / "nets3.py").write_text("raise SystemExit(0)")
    done = run("export", f"{tmp_path / 'nets3.py'}:net", "-o", tmp_path / "n.onnx")
    assert done.code == 2 and "running it raised SystemExit" in done.err


def test_help_and_version(run: Run) -> None:
    assert run("--version").out.startswith("mlpx ")
    text = run("--help").out
    assert all(name in text for name in ("build", "export", "inspect", "predict", "schema", "doctor"))


@pytest.mark.parametrize("command", ["predict", "inspect", "bench", "tune", "verify", "build", "export"])
def test_the_help_lists_every_format(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    suffixes = re.findall(r"\.[a-z]+\b", run(command, "--help").out)
    assert set(DATA_SUFFIXES) <= set(suffixes)
    assert command != "predict" or all(suffixes.count(suffix) == 2 for suffix in RESULTS_SUFFIXES)


def test_every_format_can_be_read_and_written() -> None:
    assert len({suffix for each in FORMATS for suffix in each.suffixes}) == sum(len(each.suffixes) for each in FORMATS)
    for each in FORMATS:
        assert all(callable(each.load(function, "a test")) for function in (each.read, each.write) if function)


def test_the_list_of_formats_needs_no_library(root: Path) -> None:
    code = (
        "import sys, mlpx.cli.options; print([name for name in ('numpy', 'polars', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def digits(run: Run, root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The spec of digits and a folder with its file and certificate."""
    spec = root / "models" / "digits" / "spec.yaml"
    assert run("build", spec, "-o", tmp_path / "digits", "--no-html").code == 0
    return spec, tmp_path / "digits"


def test_verify(run: Run, digits: tuple[Path, Path], tmp_path: Path) -> None:
    spec, folder = digits
    assert sorted(path.name for path in folder.iterdir()) == ["digits.onnx", "digits.parity.json"]
    done = run("verify", folder / "digits.onnx", "--spec", spec, "--certificate", folder / "digits.parity.json")
    assert done.code == 0 and "unchanged since it was proved on cpu" in done.err
    assert "proved    on cpu: every layer within its bound on " in done.out
    assert "passed   exact probes" in done.out and "passed   shipped file" in done.out
    report = run("verify", folder / "digits.onnx", "--spec", spec, "-o", tmp_path / "again", "--json", "--seed", 5)
    assert report.code == 0 and json.loads(report.out)["verdict"] == "proved" and json.loads(report.out)["seed"] == 5
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["digits.parity.html", "digits.parity.json"]


def test_verify_a_changed_file(run: Run, digits: tuple[Path, Path]) -> None:
    spec, folder = digits
    model = onnx.load(str(folder / "digits.onnx"))
    weight = next(t for t in model.graph.initializer if t.name == "4.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[7, 30] = np.nextafter(values[7, 30], np.float32(np.inf))
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, str(folder / "digits.onnx"))
    certificate = folder / "digits.parity.json"
    alone = run("verify", folder / "digits.onnx", "--certificate", certificate)
    assert alone.code == 1 and "is not the file that digits.parity.json was made of: its SHA-256 is" in alone.err
    done = run("verify", folder / "digits.onnx", "--spec", spec)
    assert done.code == 1 and done.out.startswith("failed    weight (4.weight) of '4' differs from the module's")
    assert "in 1 of 8,192 values, by at most 1 ulp, first at [7, 30]" in done.out
    assert "failed   exact probes" in done.out


def test_verify_by_the_certificate_alone(run: Run, digits: tuple[Path, Path]) -> None:
    _, folder = digits
    path, certificate = folder / "digits.onnx", folder / "digits.parity.json"
    done = run("verify", path, "--certificate", certificate, "--json")
    record = json.loads(done.out)
    assert done.code == 0 and record["unchanged"] and record["certificate"]["file"]["name"] == "digits.onnx"
    refused = json.loads(certificate.read_text()) | {"verdict": "failed", "why": "because"}
    certificate.write_text(json.dumps(refused))
    done = run("verify", path, "--certificate", certificate)
    assert done.code == 1 and "gives digits.onnx the verdict 'failed': because" in done.err
    certificate.write_text("no report")
    done = run("verify", path, "--certificate", certificate)
    assert done.code == 2 and "not a parity report" in done.err


def change(path: Path, of: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(str(path))
    of(model)
    onnx.save(model, str(path))


def relabel(model: onnx.ModelProto) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "mlpx.outputs")
    entry.value = entry.value.replace("zero", "nine")


def rename(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = model.graph.output[0].name = "renamed"


@pytest.mark.parametrize(
    ("of", "verdict", "part"),
    [
        (relabel, "failed", "the labels of the file are ['nine', 'one'"),
        (rename, "failed", "input and output are 'pixels' and 'renamed', and the spec's are 'pixels' and 'logits'"),
        (lambda model: model.ClearField("metadata_props"), "proved", "the file does not say its "),
    ],
)
def test_verify_what_the_file_declares(
    of: Callable[[onnx.ModelProto], object], verdict: str, part: str, run: Run, digits: tuple[Path, Path]
) -> None:
    spec, folder = digits
    change(folder / "digits.onnx", of)
    done = run("verify", folder / "digits.onnx", "--spec", spec)
    assert done.out.startswith(verdict) and part in done.out and done.code == (verdict != "proved")
    if verdict == "proved":  # the range is the spec's, whatever the file says
        assert "2,756 rows" in done.out


def test_a_refusal_in_json(run: Run, digits: tuple[Path, Path], root: Path, tmp_path: Path) -> None:
    spec, folder = digits
    state = load_file(root / "models" / "digits" / "weights.safetensors")
    state["1.weight"][3, 4] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    done = run("build", spec, "--weights", tmp_path / "nan.safetensors", "-o", folder, "--json", "--no-html")
    record = json.loads(done.out)
    assert done.code == 1 and record["proved"] is False and record["parity"]["verdict"] == "not proved"
    assert "first at [3, 4]" in record["why"] and (folder / "digits.failed" / "digits.onnx").exists()
    assert run("build", spec, "-o", folder, "--no-html").code == 0
    assert not (folder / "digits.failed").exists()


def test_verify_a_hand_written_module(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(MODULE)
    assert run("export", f"{tmp_path / 'nets.py'}:ready", "-o", tmp_path / "m.onnx").code == 0
    asked = ("verify", tmp_path / "m.onnx", "--module", f"{tmp_path / 'nets.py'}:Net")
    assert run(*asked).code == 2
    other = run(*asked, "--seed", 1)
    assert other.code == 1 and "differs from the module's" in other.out


def test_verify_is_asked_wrongly(run: Run, digits: tuple[Path, Path], tmp_path: Path) -> None:
    spec, folder = digits
    path = folder / "digits.onnx"
    for options, part in {
        (): "a file alone proves nothing",
        ("--spec", spec, "--module", "m:n"): "not both",
        ("--spec", spec, "--html"): "--html needs -o",
        ("--certificate", folder / "digits.parity.json", "--weights", "w.pt"): "--weights goes with --spec or --module",
        ("--certificate", folder / "digits.parity.json", "-o", "x"): "a certificate alone",
        ("--certificate", folder / "none.json"): "cannot be read",
        ("--spec", tmp_path / "none.yaml"): "none.yaml",
    }.items():
        done = run("verify", path, *options)
        assert done.code == 2 and part in done.err
    assert run("verify", tmp_path / "none.onnx", "--spec", spec).code == 2
