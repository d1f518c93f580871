"""What a page for the browser is made of, and what is said where a part is missing."""

from __future__ import annotations

import json
import re
from importlib.resources import files as resources
from pathlib import Path

import pytest
import torch

from export import TargetError, package, publish
from tests.support.bounded import WORDS, give_bound
from tests.support.commands import Run


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    return publish(torch.nn.Linear(2, 1).eval(), path, device="cpu", page=False)[0].path


def test_the_page_is_made_of_a_release_and_the_widgets_of_the_server(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small stand-in for the npm package, which may be missing where the tests run."""
    give_bound(file)
    monkeypatch.chdir(tmp_path)
    package_json = {"name": "onnxruntime-web", "version": "1.30.0", "license": "MIT"}
    folder = tmp_path / "node_modules" / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps(package_json))
    (folder / "dist" / "ort.wasm.bundle.min.mjs").write_text("const a=1;export{a as InferenceSession};")
    (folder / "dist" / "ort-wasm-simd-threaded.wasm").write_bytes(b"wasm")
    done = run("package", file, "--for", "browser", "-o", tmp_path / "p")
    assert done.code == 0, done.err
    page = (tmp_path / "p" / "index.html").read_text(encoding="utf-8")
    assert 'globalThis.ort={"InferenceSession":a};' in page
    assert not re.search("@[A-Z]+@", page)
    assert f'"bound": "{WORDS}"' in page
    for widgets in ("ports.js", "form.js", "bars.js"):
        assert (resources("runtime") / "server" / widgets).read_text(encoding="utf-8") in page


def test_what_is_missing_is_told(run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("package", file, "--for", "browser", "-o", tmp_path / "p")
    done = run(*command)
    assert done.code == 3
    assert "npm install onnxruntime-web@1.30.0" in done.err
    assert "node_modules" in done.err
    folder = tmp_path / "node_modules" / "onnxruntime-web"
    folder.mkdir(parents=True)
    for content, version, expected in (
        ("{}", "1.30", "not that of onnxruntime-web"),
        ('{"name": "other", "version": "1.30.0"}', "1.30", "not that of onnxruntime-web"),
        (
            '{"name": "onnxruntime-web", "version": "1.29.0"}',
            "1.30",
            "and 1.30 was requested",
        ),
        ('{"name": "onnxruntime-web", "version": "1.30.0"}', "1.30", "lacks dist/ort.wasm.bundle.min.mjs"),
        ('{"name": "onnxruntime-web", "version": "1.22.0"}', "1.22", "not known to run in a page"),
    ):
        (folder / "package.json").write_text(content)
        done = run(*command, "--target-version", version)
        assert done.code == 2
        assert expected in done.err
        assert "What to do" in done.err
    assert not (tmp_path / "p").exists()


def test_what_a_page_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    publish(torch.nn.Linear(2, 1).eval(), path, device="cpu", page=False, external_data=True)
    with pytest.raises(TargetError, match=r"a page holds a model of one file.*its weights are in a file beside it"):
        package(path, "browser", tmp_path / "p")


def test_a_release_that_is_built_in_another_way(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "node_modules" / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": "1.30.0"}))
    (folder / "dist" / "ort.wasm.bundle.min.mjs").write_text("const a=1;export default a;")
    (folder / "dist" / "ort-wasm-simd-threaded.wasm").write_bytes(b"wasm")
    with pytest.raises(TargetError, match=r"not built like the known releases. What to do: take onnxruntime-web"):
        package(file, "browser", tmp_path / "p")
