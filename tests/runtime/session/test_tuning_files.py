"""Which tuning file ``Session`` reads, and which it ignores, with a warning."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from export import tune
from runtime import InputError, Session, TuningWarning, read_tuning, tuning_for
from runtime.session.settings import Settings
from tests.support.tuned import edited, ill_conditioned, rows

MARK = Settings(threads=3, spin_us=7)
"""Settings that no rule gives."""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    path = ill_conditioned(folder)
    found = tune(path, data=rows(folder), max_error=100, seconds=0.1, plot=False)
    files = []
    for index, one in enumerate(found.files):
        assert one.best is not None
        files.append(replace(one, best=replace(one.best, settings=replace(MARK, spin_us=7 + index))))
    replace(found, files=tuple(files)).write(folder / "model.tuning.json")
    return folder


@pytest.fixture
def folder(tuned: Path, tmp_path: Path) -> Path:
    """A copy of the model, its files of reduced precision and their tuning."""
    shutil.copytree(tuned, tmp_path / "here")
    return tmp_path / "here"


def settings(path: Path, **options: object) -> tuple[int, int]:
    with Session(path, "cpu", **options) as session:  # type: ignore[arg-type]
        return session.settings.threads, session.settings.spin_us


def test_the_file_beside_the_model_is_read(folder: Path) -> None:
    path = folder / "model.onnx"
    assert settings(path) == (3, 7)
    assert settings(path, threads=2) == (2, 7), "what is said wins"
    assert settings(path, tuning=None) == settings(Path(shutil.copy(path, folder.parent / "bare.onnx")))
    assert settings(path, tuning=None) != (3, 7)
    moved = folder.parent / "elsewhere.json"
    shutil.move(folder / "model.tuning.json", moved)
    assert settings(path) != (3, 7)
    assert settings(path, tuning=moved) == (3, 7)


def test_what_is_said_of_threads_is_not_mixed_with_what_was_measured(folder: Path) -> None:
    """One thread is one thread, whatever the tuning says of workers."""
    record = read_tuning(folder / "model.tuning.json")
    best = record.files[0].best
    assert best is not None
    mixed = replace(record.files[0], best=replace(best, settings=Settings(threads=1, workers=2, spin_us=9)))
    replace(record, files=(mixed, *record.files[1:])).write(folder / "model.tuning.json")
    with Session(folder / "model.onnx", "cpu") as session:
        assert session.settings.workers == 2
    with Session(folder / "model.onnx", "cpu", threads=1) as session:
        assert (session.settings.threads, session.settings.workers, session.settings.spin_us) == (1, 1, 9)


def test_each_file_has_its_own_entry_and_none_is_opened_for_another(folder: Path) -> None:
    record = read_tuning(folder / "model.tuning.json")
    for index, one in enumerate(record.files):
        assert settings(folder / one.name) == (3, 7 + index)
    with Session(folder / "model.onnx", "cpu") as session:
        assert session.summary is not None
        assert session.summary.variant is None
    (folder / "link.onnx").symlink_to(folder / "model.onnx")
    assert settings(folder / "link.onnx") == (3, 7)


def test_a_renamed_pair_still_fits(folder: Path) -> None:
    for name in ("onnx", "tuning.json"):
        (folder / f"model.{name}").rename(folder / f"other.{name}")
    assert settings(folder / "other.onnx") == (3, 7)


DAMAGED = [
    "",
    "[]",
    "{}",
    "no JSON",
    '{"format": 1}',
    '{"format": 1, "files": [{}]}',
    "\xff",
    '{"format": "1"}',
    '{"format": 1, "files": [], "machine": {}, "model": 7}',
    "[" * 9999,
    '{"format": 1, "files": [{"kind": "a", "name": "b", "error": 1' + "0" * 400 + "}]}",
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_ignored_with_a_warning(content: str, folder: Path) -> None:
    (folder / "model.tuning.json").write_bytes(content.encode("latin-1"))
    with pytest.warns(TuningWarning, match=r"ignored: .*(not a tuning file|of format '1').*") as said:
        assert settings(folder / "model.onnx") != (3, 7)
    assert said[0].filename == __file__


@pytest.mark.parametrize("cut", [1, 100, 1000])
def test_a_truncated_file_is_ignored(cut: int, folder: Path) -> None:
    path = folder / "model.tuning.json"
    path.write_bytes(path.read_bytes()[:-cut].rstrip(b"}\n"))
    with pytest.warns(TuningWarning, match="not a tuning file, or a damaged one.*mlpx tune"):
        assert tuning_for(folder / "model.onnx") is None


def test_settings_that_are_none_are_damage(folder: Path) -> None:
    path = folder / "model.tuning.json"
    record = json.loads(path.read_text())
    record["files"][0]["best"]["settings"]["threads"] = "all"
    path.write_text(json.dumps(record))
    with pytest.warns(TuningWarning):
        assert tuning_for(folder / "model.onnx") is None


def test_another_machine(folder: Path) -> None:
    path = folder / "model.tuning.json"
    machine = json.loads(path.read_text())["machine"]
    for key, words in (("processor", "Z80"), ("cores", "4096"), ("onnxruntime", "0.1"), ("instructions", "")):
        edited(path, machine={**machine, key: words})
        with pytest.warns(TuningWarning, match=f"made on another machine .{key}: {words} there, .*mlpx tune"):
            assert tuning_for(folder / "model.onnx") is None


def test_another_model(folder: Path) -> None:
    ill_conditioned(folder, seed=1)  # trained again
    with pytest.warns(TuningWarning, match=r"is of another file of that name, not of .*model\.onnx"):
        assert settings(folder / "model.onnx") != (3, 7)
    shutil.move(ill_conditioned(folder / "b", seed=2), folder / "b.onnx")
    with pytest.warns(TuningWarning, match=r"is of another model, model\.onnx, not of .*b\.onnx"):
        assert settings(folder / "b.onnx", tuning=folder / "model.tuning.json") != (3, 7)


def test_a_name_that_only_begins_alike_is_left_in_peace(folder: Path) -> None:
    shutil.move(ill_conditioned(folder / "b", seed=2), folder / "model.v2.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuning_for(folder / "model.v2.onnx") is None


def test_a_file_that_was_named_must_be_there(folder: Path) -> None:
    with pytest.raises(InputError, match=r"none.json: no such file.*mlpx tune"):
        Session(folder / "model.onnx", "cpu", tuning=folder / "none.json")
    assert tuning_for(b"not a path") is None
    assert tuning_for(folder / "none.onnx") is None


def test_a_newer_format_is_ignored_and_newer_keys_are_not(folder: Path) -> None:
    path = folder / "model.tuning.json"
    edited(path, later=1)
    assert tuning_for(folder / "model.onnx") == MARK
    edited(path, format=2)
    with pytest.warns(TuningWarning, match="of format 2; this version reads format 1"):
        assert tuning_for(folder / "model.onnx") is None


def test_a_record_is_read_as_it_was_written(folder: Path) -> None:
    found = read_tuning(folder / "model.tuning.json")
    with_infinity = replace(found, files=(replace(found.files[1], error=float("inf")), *found.files))
    with_infinity.write(folder / "again.json")
    assert read_tuning(folder / "again.json") == with_infinity
    assert "Infinity" not in (folder / "again.json").read_text()


def test_a_large_file_is_told_apart_by_the_pieces_that_are_read(tmp_path: Path) -> None:
    from runtime.session.tuned import fingerprint

    path = tmp_path / "large"
    content = bytearray(6 * 2**20)
    path.write_bytes(content)
    before = fingerprint(path)
    for place in (0, len(content) - 1):
        content[place] = 1
        path.write_bytes(content)
        assert fingerprint(path) != before
        content[place] = 0
    path.write_bytes(content[:-1])
    assert fingerprint(path) != before
    path.write_bytes(content)
    assert fingerprint(path) == before
    Path(f"{path}.data").write_bytes(b"weights")
    assert fingerprint(path) != before
