"""Files appear whole or not at all, and what stood under their names stays where they cannot."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from runtime import OutputError, whole_files, whole_folder, write_whole


def write_all(folder: Path, *names: str) -> None:
    """The files of these names together, each with "new" in it."""
    with whole_files(folder) as stage:
        for name in names:
            (stage / name).write_text("new")


def fail_within(block: AbstractContextManager[Path], name: str) -> None:
    """One file is written, and then the block fails."""
    with block as stage:
        (stage / name).write_text("new")
        raise ZeroDivisionError


def folder_of(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir() if file.is_file()}


def test_files_move_together(tmp_path: Path) -> None:
    with whole_files(tmp_path / "new") as stage:
        (stage / "m.onnx").write_text("model")
        (stage / "m.onnx.data").write_text("data")
        assert folder_of(tmp_path / "new") == {}
    assert folder_of(tmp_path / "new") == {"m.onnx": "model", "m.onnx.data": "data"}
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_what_cannot_be_finished_is_put_back(tmp_path: Path) -> None:
    """The data moves first; the model's place is a link to nowhere, and so the old data must come back."""
    (tmp_path / "m.onnx").symlink_to("/dev/null/nowhere/m.onnx")
    (tmp_path / "m.onnx.data").write_text("old")
    with pytest.raises(OutputError, match="cannot be written"):
        write_all(tmp_path, "m.onnx", "m.onnx.data")
    assert (tmp_path / "m.onnx.data").read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


def test_what_was_not_there_before_goes_again(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").symlink_to("/dev/null/nowhere/m.onnx")
    with pytest.raises(OutputError, match="cannot be written"):
        write_all(tmp_path, "m.onnx", "m.onnx.data")
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_nothing_moves_where_the_block_fails_or_a_folder_is_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_within(whole_files(tmp_path), "m.onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "m.onnx").mkdir()
    (tmp_path / "m.onnx.data").write_text("old")
    with pytest.raises(OutputError, match=r"Is a directory|is a folder"):
        write_all(tmp_path, "m.onnx", "m.onnx.data")
    assert (tmp_path / "m.onnx.data").read_text() == "old"
    with pytest.raises(OutputError, match="folder"):
        write_whole(tmp_path / "m.onnx", b"x")


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no second file system at /dev/shm")
def test_a_link_to_another_file_system_is_replaced_whole(tmp_path: Path) -> None:
    far = Path(f"/dev/shm/mlpx-test-{os.getpid()}")
    far.mkdir()
    try:
        (far / "m.onnx").write_text("old")
        (tmp_path / "m.onnx").symlink_to(far / "m.onnx")
        before = (far / "m.onnx").stat().st_ino
        with whole_files(tmp_path) as stage:
            (stage / "m.onnx").write_text("new")
        assert (far / "m.onnx").read_text() == "new"
        assert (far / "m.onnx").stat().st_ino != before
        assert (tmp_path / "m.onnx").is_symlink()
        assert len(list(far.iterdir())) == 1
    finally:
        for file in far.iterdir():
            file.unlink()
        far.rmdir()


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    # As a daemon: were the pipe replaced, nobody would ever write to it.
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    write_whole(tmp_path / "pipe", b"content")
    reader.join(10)
    assert read == [b"content"]
    assert (tmp_path / "pipe").is_fifo()


def test_long_names(tmp_path: Path) -> None:
    name = "n" * 250 + ".csv"
    write_whole(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"


def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    for content in ("old", "new"):
        with whole_folder(place) as stage:
            (stage / "sub").mkdir()
            (stage / "sub" / content).write_text(content)
            assert not place.exists() or folder_of(place / "sub") == {"old": "old"}
    assert folder_of(place / "sub") == {"new": "new"}
    assert list((tmp_path / "a").iterdir()) == [place]


def test_a_folder_stays_as_it_was_where_the_block_fails(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    with pytest.raises(ZeroDivisionError), whole_folder(place):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    place.mkdir(parents=True)
    (place / "mine").write_text("x")
    with pytest.raises(ZeroDivisionError):
        fail_within(whole_folder(place), "other")
    assert folder_of(place) == {"mine": "x"}
    assert list(place.parent.iterdir()) == [place]
    with pytest.raises(OutputError, match="nothing was changed"), whole_folder(place) as stage:
        stage.rmdir()  # there is nothing to take the place
    assert folder_of(place) == {"mine": "x"}
    assert list(place.parent.iterdir()) == [place]
    with pytest.raises(OutputError, match="a file stands"), whole_folder(place / "mine"):
        pass
