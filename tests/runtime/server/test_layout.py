"""Which files of a folder are which models, and what is said of files that are none."""

import shutil
from pathlib import Path

import pytest

from runtime import InputError
from runtime.server.layout import scan_models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place in (
        "a.onnx",
        "b/b.onnx",
        "b/b.float16.onnx",
        "c/2/model.onnx",
        "c/10/x.onnx",
        "c/notes/y.onnx",
        "d/other.onnx",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    (tmp_path / ".hidden.onnx").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_files_folders_and_versions(folder: Path) -> None:
    models = scan_models(folder)
    assert {name: versions for name, versions in models.items() if name != "d"} == {
        "a": {"1": folder / "a.onnx"},
        "b": {"1": folder / "b/b.onnx"},
        "c": {"2": folder / "c/2/model.onnx", "10": folder / "c/10/x.onnx"},
    }
    assert scan_models(folder / "a.onnx") == {"a": {"1": folder / "a.onnx"}}


def test_a_file_that_is_not_served_is_told(folder: Path) -> None:
    assert "neither d.onnx nor folders of versions" in str(scan_models(folder)["d"]["1"])
    (folder / "c/10/z.onnx").touch()
    assert "none is called model.onnx" in str(scan_models(folder)["c"]["10"])
    (folder / "c/3").mkdir()
    assert "no .onnx file" in str(scan_models(folder)["c"]["3"])
    (folder / "c/02").mkdir()
    assert "two folders are version 2" in str(scan_models(folder)["c"]["2"])
    shutil.copy(folder / "a.onnx", folder / "what?.onnx")
    assert "URL" in str(scan_models(folder)["what?"]["1"])


def test_one_model_twice_or_no_folder_is_refused(folder: Path) -> None:
    (folder / "b.onnx").touch()
    with pytest.raises(InputError, match="are both the model 'b'"):
        scan_models(folder)
    (folder / 'we"ird.onnx').touch()
    with pytest.raises(InputError, match="a URL does not carry"):
        scan_models(folder / 'we"ird.onnx')
    with pytest.raises(InputError, match="No such file"):
        scan_models(folder / "nowhere")
