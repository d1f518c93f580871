"""Packages in general: which files are packaged, what every package holds, and how the folder is written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from export import TargetError, package, publish
from export.targets import target_of
from runtime import read_certificate
from tests.support.bounded import WORDS, give_bound
from tests.support.cases import network, randomised
from tests.support.commands import Run
from tests.support.hand_written import Written


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proved file."""
    folder = tmp_path_factory.mktemp("model")
    spec, module = network([{"linear": 8}, "relu", {"linear": 2}], 4)
    publish(randomised(module, 1), folder / "m.onnx", spec=spec, page=False)
    return folder / "m.onnx"


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """The file and its certificate in a folder of their own."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in (model, model.with_name("m.parity.json")):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / "m.onnx"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("target", ["triton", "openvino"])
def test_what_every_package_holds(run: Run, model: Path, target: str, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "package"
    done = run("package", model, "--for", target, "-o", folder, "--json")
    assert done.code == 0, done.err
    record, files = json.loads(done.out), contents(folder)
    assert sorted(record["files"]) == sorted(files)
    assert record["target"] == target
    assert files["models/m/1/model.onnx"] == model.read_bytes()
    assert files["m.parity.json"] == model.with_name("m.parity.json").read_bytes()
    manifest = json.loads(files.pop("mlpx-package.json"))
    assert manifest["files"] == {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    readme = files["README.md"].decode()
    assert record["start"] in readme
    for command in (f"python3 smoke/check.py {record['url']}", f"mlpx verify --url {record['url']} --certificate m."):
        assert command in readme
    assert [path for path in (tmp_path / "out").iterdir() if path != folder] == []


def test_the_readme_quotes_the_bound_with_its_box(model: Path, copy: Path, tmp_path: Path) -> None:
    plain = (package(model, "triton", tmp_path / "plain").folder / "README.md").read_text()
    assert "float32 evaluation, against" not in plain
    give_bound(copy)
    quoted = (package(copy, "triton", tmp_path / "p").folder / "README.md").read_text()
    assert f"Any correct float32 evaluation, against the network in real arithmetic: {WORDS}." in quoted
    assert "cannot change a label where the exact margin exceeds 0.0131." in quoted
    assert "nothing of inputs outside these ranges" in quoted
    give_bound(copy, outputs={}, why="'1/log': the logarithm of 0", labels=None)
    without = (package(copy, "triton", tmp_path / "without").folder / "README.md").read_text()
    assert "real arithmetic: none for inputs with input -0.5 to 16: '1/log': the logarithm of 0.\n" in without
    assert "exact margin" not in without


def test_what_the_command_says(run: Run, model: Path, tmp_path: Path) -> None:
    done = run("package", model, "--for", "triton", "-o", tmp_path / "p")
    assert done.code == 0
    assert done.err == ""
    assert (
        f"packaged  {tmp_path / 'p'}: 11 files for triton {target_of('triton').release}, backend onnxruntime"
        in done.out
    )
    assert "at most 1,024 rows a batch" in done.out
    assert "python3 smoke/check.py http://127.0.0.1:8000/v2" in done.out


def test_the_smoke_test_is_of_the_certificate(model: Path, tmp_path: Path) -> None:
    made = package(model, "triton", tmp_path / "p", max_batch=3)
    answers = read_certificate(model.with_name("m.parity.json")).answers
    assert answers is not None
    request = json.loads((made.folder / "smoke" / "request.json").read_text())
    expected = json.loads((made.folder / "smoke" / "expected.json").read_text())
    (tensor,), output = request["inputs"], expected["outputs"]["output"]
    rows = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    assert rows.shape == (3, 4)
    assert tensor["datatype"] == "FP32"
    places = [int(np.flatnonzero((answers.inputs["input"] == row).all(axis=1))[0]) for row in rows]
    np.testing.assert_array_equal(np.reshape(output["exact"], output["shape"]), answers.exact["output"][places])
    np.testing.assert_array_equal(np.reshape(output["bound"], output["shape"]), answers.bound["output"][places])


def test_the_same_file_and_options_give_the_same_bytes(model: Path, tmp_path: Path) -> None:
    first, second = (package(model, "triton", tmp_path / name, max_batch=7) for name in "ab")
    assert contents(first.folder) == contents(second.folder)


def changed_certificate(path: Path, **changes: Any) -> None:
    certificate = path.with_suffix(".parity.json")
    certificate.write_text(json.dumps(json.loads(certificate.read_text()) | changes))


def test_a_file_without_a_proof_is_refused(run: Run, copy: Path, tmp_path: Path) -> None:
    out, certificate = tmp_path / "p", copy.with_suffix(".parity.json")

    def refused(words: str, code: int = 1) -> None:
        done = run("package", copy, "--for", "triton", "-o", out)
        assert (done.code, out.exists()) == (code, False)
        assert words in done.err
        assert "What to do: " in done.err
        assert "Traceback" not in done.err

    text = certificate.read_text()
    changed_certificate(copy, verdict="failed", why="a layer is off")
    refused("is not proved: a layer is off")
    certificate.write_text(text)
    changed_certificate(copy, answers=None)
    refused("has no answers to check a live server with")
    certificate.write_text("{")
    refused("not a parity report", 2)
    certificate.unlink()
    refused("has no certificate beside it (m.parity.json)")
    certificate.write_text(text)
    copy.write_bytes(copy.read_bytes() + b"\x7a\x00")
    refused("is not the file that m.parity.json was made of")


def test_a_file_that_is_none(run: Run, tmp_path: Path) -> None:
    done = run("package", tmp_path / "no.onnx", "--for", "triton", "-o", tmp_path / "p")
    assert done.code == 2
    assert "no.onnx" in done.err


def test_a_certificate_that_lies_elsewhere(copy: Path, tmp_path: Path) -> None:
    elsewhere = copy.with_suffix(".parity.json").rename(tmp_path / "proof.json")
    made = package(copy, "triton", tmp_path / "p", certificate=elsewhere, name="digits-2.b")
    assert (made.folder / "digits-2.b.parity.json").read_bytes() == elsewhere.read_bytes()
    assert (made.folder / "models" / "digits-2.b" / "1" / "model.onnx").is_file()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"target": "tritn"}, "did you mean 'triton'?"),
    ({"target": "triton:"}, "'' is not a release of triton"),
    ({"target": "triton:latest"}, "'latest' is not a release of triton"),
    ({"target": "triton:23.06"}, "--for triton:23.04, the nearest older release"),
    ({"target": "openvino:2022.1"}, "--for openvino:2023.3"),
    ({"target": "triton:23.04", "release": "23.10"}, "two releases were given, 23.04 and 23.10"),
    ({"name": "a/b"}, "'a/b' cannot be a model's name"),
    ({"name": ".."}, "'..' cannot be a model's name"),
    ({"name": ""}, "'' cannot be a model's name"),
    ({"backend": "pyton"}, "did you mean 'python'?"),
    ({"target": "openvino", "backend": "python"}, "openvino has no backend 'python'"),
    ({"device": "tpu"}, "the device is cpu or cuda, not 'tpu'"),
    ({"target": "openvino", "device": "cuda"}, "runs on CPUs and Intel's devices, not on cuda"),
    ({"target": "openvino", "delay_us": 5}, "none waits to share a batch"),
    ({"target": "triton:24.02"}, "or let it run on an ONNX Runtime of its own (--backend python)"),
    ({"target": "kserve:24.02"}, "(--backend mlserver or custom)"),
    ({"target": "mlserver:0.1"}, "mlserver 0.1 is older than 1.7.1"),
    ({"target": "ray-serve:2.9.0"}, "ray-serve 2.9.0 is older than 2.60.0"),
    ({"max_batch": 0}, "--max-batch is a whole number from 1 on, not 0"),
    ({"delay_us": -1}, "--delay-us is a whole number from 0 on, not -1"),
    ({"instances": True}, "--instances is a whole number from 1 on, not True"),
    ({"threads": 2**31}, "--threads is a whole number from 1 on"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[str(options) for options, _ in REFUSED])
def test_what_cannot_be_packaged(options: dict[str, Any], words: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as raised:
        package(model, folder=tmp_path / "p", **{"target": "triton", **options})
    assert words in str(raised.value)
    assert "What to do: " in str(raised.value)
    assert not list(tmp_path.iterdir())


SHAPED: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
    "one number a row": (
        Written(lambda m, x: m.parts[0](x).sum(1), nn.Linear(4, 2)),
        {},
        r"'output' is float32 of shape \['batch'\], expected \[batch, known sizes\].*mlpx recover",
    ),
}


@pytest.mark.parametrize("name", SHAPED)
def test_tensors_that_no_server_takes(name: str, tmp_path: Path) -> None:
    module, options, words = SHAPED[name]
    publish(module, tmp_path / "m.onnx", device="cpu", page=False, **options)
    with pytest.raises(TargetError, match=words):
        package(tmp_path / "m.onnx", "triton", tmp_path / "p")


def test_an_empty_folder_may_exist(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    assert package(model, "triton", tmp_path / "p").folder == tmp_path / "p"
    assert (tmp_path / "p" / "README.md").is_file()


def test_a_release_that_was_not_tested_is_noted(model: Path, tmp_path: Path) -> None:
    made = package(model, "mlserver:9.1", tmp_path / "p")
    assert made.notes == ("mlserver 9.1 was not tested; 1.7.1 was: run the smoke test before you rely on it",)
    assert made.notes[0] in (made.folder / "README.md").read_text()
    assert package(model, "mlserver", tmp_path / "q").notes == ()


def test_a_folder_in_use_is_left_alone(run: Run, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path, words: str, *options: str) -> None:
        before = contents(folder) if folder.is_dir() else None
        done = run("package", copy, "--for", "triton", "-o", folder, *options)
        assert done.code == 2, done.err
        assert words in done.err, done.err
        assert "What to do: " in done.err, done.err
        assert before is None or contents(folder) == before

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    refused(mine, "is not empty")
    refused(mine, "holds files that no package of mlpx brought: thesis.txt", "--replace")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is a file")
    refused(copy.parent, "m.onnx is in ", "--replace")
    (tmp_path / "here" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "sub")
    refused(tmp_path / "here", "the current folder is in ", "--replace")


def test_a_package_can_be_replaced(run: Run, model: Path, tmp_path: Path) -> None:
    old = package(model, "triton", tmp_path / "p", backend="python")
    assert "Dockerfile" in old.files
    done = run("package", model, "--for", "openvino", "-o", tmp_path / "p", "--replace")
    assert done.code == 0, done.err
    fresh = package(model, "openvino", tmp_path / "q")
    assert contents(tmp_path / "p") == contents(fresh.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "q"]


def test_a_folder_that_cannot_be_written(run: Run, model: Path) -> None:
    done = run("package", model, "--for", "triton", "-o", "/dev/null/p")
    assert done.code == 3
    assert "cannot be written" in done.err
    assert "What to do: " in done.err


def test_torch_and_onnx_are_not_needed(root: Path, model: Path, tmp_path: Path) -> None:
    code = "import sys; from mlpx import package; package(*sys.argv[1:]); print({'torch', 'onnx'} & {*sys.modules})"
    command = [sys.executable, "-c", code, str(model), "triton", str(tmp_path / "p")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_smoke_test_needs_the_standard_library_only(model: Path, tmp_path: Path) -> None:
    made = package(model, "triton", tmp_path / "p")
    script = made.folder / "smoke" / "check.py"
    closed = "http://127.0.0.1:9/v2/models/m"
    done = subprocess.run([sys.executable, "-I", "-S", str(script), closed], capture_output=True, text=True)
    assert done.returncode == 3
    assert f"{closed}: no answer" in done.stderr
