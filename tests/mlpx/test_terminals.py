"""What commands print on terminals and in pipes of any width and encoding, and what they do when nobody reads it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.mlpx.terminal import INVOCATION, environment, on_terminal, piped, plain
from tests.support.commands import Run

LABELS = "name: n\ninput: {name: x, features: 2}\nblocks: [{linear: 2}]\noutput: {name: y, labels: [naïve, 日本 😀]}"
ENCODINGS = [{"PYTHONIOENCODING": name} for name in ("cp1252", "ascii", "latin-1", "utf-16", "utf-8")]
ENCODINGS += [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]


@pytest.fixture
def labelled(run: Run, tmp_path: Path) -> Path:
    """A file whose labels few encodings have."""
    (tmp_path / "s.yaml").write_text(LABELS, encoding="utf-8")
    assert run("build", tmp_path / "s.yaml", "--seed", 0, "-o", tmp_path, "--no-html").code == 0
    return tmp_path / "n.onnx"


@pytest.mark.parametrize("changes", ENCODINGS, ids=lambda changes: next(iter(changes.values())))
def test_characters_that_an_encoding_lacks_are_escaped(changes: dict[str, str], labelled: Path) -> None:
    encoding = changes.get("PYTHONIOENCODING", "ascii")
    done = piped("inspect", labelled, **changes)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert "naïve, 日本 😀".encode(encoding, "backslashreplace").decode(encoding) in text
    record = json.loads(piped("inspect", labelled, "--json", **changes).stdout.decode(encoding))
    assert record["summary"]["outputs"][0]["labels"] == ["naïve", "日本 😀"]


def test_recover_in_an_encoding_without_arrows(labelled: Path, tmp_path: Path) -> None:
    done = piped("recover", labelled, "-o", tmp_path / "o", "--no-html", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0
    assert b"2 \\u2192 linear 2" in done.stdout
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "o" / "spec.yaml").exists()


def test_a_name_of_a_file_that_is_no_text(labelled: Path, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.onnx")
    labelled.rename(name)
    done = piped("inspect", name)
    assert done.returncode == 0
    assert b"\\udcff\\udce9.onnx" in done.stdout
    assert json.loads(piped("inspect", name, "--json").stdout)["path"] == name
    done = piped("inspect", name + ".none")
    assert done.returncode == 2
    assert b"\\udcff\\udce9.onnx.none: cannot be read" in done.stderr


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A line of bash in which $@ is a command; the exit code is the command's."""
    script = f"set -o pipefail; {line}"
    command = ["bash", "-c", script, "bash", *INVOCATION, *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True)


@pytest.mark.parametrize("command", ["inspect", "schema", "predict", "--help", "--version", "build"])
def test_a_reader_that_has_gone(command: str, labelled: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((50_000, 2), np.float32))
    build = [tmp_path / "s.yaml", "--seed", 1, "-o", tmp_path / "again", "--no-html"]
    arguments = {"inspect": [labelled], "predict": [labelled, tmp_path / "rows.npy"], "build": build}
    done = shell('"$@" | true', command, *arguments.get(command, []))
    assert (done.returncode, done.stdout) == (141, "")
    assert all(" rows on " in line for line in done.stderr.splitlines()), done.stderr
    assert command != "build" or (tmp_path / "again" / "n.onnx").exists()


@pytest.mark.parametrize("line", ['"$@" >&-', '"$@" 2>&-', '"$@" <&- >&- 2>&-', '{ "$@" 2>&1 >&3 | true; } 3>&1'])
def test_closed_streams_lose_no_file(line: str, labelled: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((3, 2), np.float32))
    done = shell(line, "predict", labelled, tmp_path / "rows.npy", "-o", tmp_path / "scores.csv")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "scores.csv").read_text().startswith("label,")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["inspect", "predict", "--help"])
def test_a_full_disk_under_the_output_is_an_error(command: str, labelled: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((3, 2), np.float32))
    arguments = {"inspect": [labelled], "predict": [labelled, tmp_path / "rows.npy"]}
    done = shell('"$@" >/dev/full', command, *arguments.get(command, []))
    assert done.returncode == 3
    assert done.stderr.startswith("mlpx: standard output cannot be written: No space left on device")
    assert done.stderr.count("\n") == 1


def test_a_terminal_breaks_no_word_and_a_pipe_no_line(labelled: Path) -> None:
    whole = piped("inspect", labelled)
    lines = whole.stdout.decode().splitlines()
    assert max(map(len, lines)) > 60
    narrow = on_terminal(40, "inspect", labelled)
    assert narrow.code == 0
    assert narrow.out.split() == whole.stdout.decode().split()
    longest = max(len(line) for line in narrow.out.splitlines() if len(line.split()) > 1)
    assert longest <= 40


@pytest.mark.parametrize("command", [["frob"], ["predict", "a", "b", "--fast"], ["verify"], ["predict", "a" * 50, "b"]])
def test_errors_are_wrapped_between_words(command: list[str]) -> None:
    whole, narrow = piped(*command), on_terminal(40, *command, TERM="dumb")
    assert narrow.code == whole.returncode == 2
    assert narrow.out.split() == whole.stderr.decode().split()
    assert all(len(line) <= 40 or len(line.split()) == 1 for line in narrow.out.splitlines())


def test_headings_are_bold_on_a_terminal_with_colours() -> None:
    coloured = on_terminal(80, "schema", "--help").out
    assert "\x1b[1mOptions:\x1b[0m" in coloured
    for changes in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert on_terminal(80, "schema", "--help", **changes).out == plain(coloured)
    assert piped("schema", "--help").stdout.decode() == plain(coloured)


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_progress_on_a_plain_terminal_has_no_colour(changes: dict[str, str], labelled: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((3, 2), np.float32))
    done = on_terminal(40, "predict", labelled, tmp_path / "rows.npy", "-o", tmp_path / "s.csv", **changes)
    assert done.code == 0
    assert "\x1b[38" not in done.out
    assert "TERM" not in changes or "\x1b" not in done.out


def test_a_home_that_cannot_be_written(labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    np.save(tmp_path / "rows.npy", np.zeros((3, 2), np.float32))
    for command in (["inspect", labelled], ["predict", labelled, tmp_path / "rows.npy"], ["schema"]):
        done = piped(*command, HOME=str(tmp_path / "home"), XDG_CACHE_HOME="/proc/none")
        assert done.returncode == 0
        assert done.stdout
        assert b"Traceback" not in done.stderr
