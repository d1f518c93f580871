"""The documents are true: their Python runs, their links lead somewhere, their commands exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from mlpx.cli.app import app
from tests.support import ROOT
from tests.support.commands import Run
from tests.support.hub import LEGACY, connected

PAGES = [path for folder in ("", "docs", "models/*") for path in sorted(ROOT.glob(f"{folder}/*.md".lstrip("/")))]


FILES = {
    "robot-policy.md": {"csv": "log.csv"},
    "c.md": {"yaml": "spec.yaml", "c": "main.c", "cpp": "app/main.cpp", "cmake": "app/CMakeLists.txt"},
    "first-model.md": {"csv": "rows.csv"},
    "tables.md": {"yaml": "describe.yaml", "csv": "wrong.csv"},
    "hub.md": {},
}
"""The pages that are a session from beginning to end, and the files that their blocks are.

Any other block of YAML is the file that its first line names: ``# arm/spec.yaml``.
"""
PROGRAMS = {"c.md": ("bash", "gcc", "g++", "cmake", "sed")}
"""What a session needs besides mlpx."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python") and p.name not in FILES], ids=lambda page: page.name
)
def test_the_python_runs_and_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), {"__name__": page.stem})
        printed = capsys.readouterr().out
        for expected in re.findall(r"print\(.*?\)  # (\S.*)|^# (\[.*)", code, re.MULTILINE):
            assert (expected[0] or expected[1]).split(", or ")[0] in printed


def measured(line: str) -> str:
    """A line without the figures that differ from machine to machine."""
    return re.sub(r"\d(\.\d+)?e-\d+|\d+\.\d{3,}|\d\.\d+ s", "#", " ".join(line.split()))


@pytest.mark.filterwarnings(LEGACY)
@pytest.mark.parametrize("name", FILES)
def test_a_session_gives_what_the_page_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    with connected(monkeypatch) if name == "hub.md" else nullcontext():
        _follow(name, tmp_path, monkeypatch, run)


def _follow(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    missing = [program for program in PROGRAMS.get(name, ()) if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not on the PATH")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    shown = 0
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if kind == "yaml" or kind in FILES[name]:
            path = tmp_path / (FILES[name].get(kind) or block.partition("\n")[0].removeprefix("# "))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block, encoding="utf-8")
        elif kind == "python":
            done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == "\n".join(re.findall(r"print\(.*\)  # (\S.*)", block))
        elif kind == "console":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, *lines = part.splitlines()
                if command.startswith("mlpx "):
                    done = run(*shlex.split(command)[1:])
                    printed = done.out + done.err
                else:
                    shell = ["bash", "-c", f"exec 2>&1\n{command}"]
                    printed = subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=False).stdout
                found = {measured(line) for line in printed.splitlines()}
                whole = " ".join(found)
                for line in lines:
                    assert measured(line) in found or measured(line) in whole, (command, line, found)
                    shown += 1
    assert shown > {"robot-policy.md": 30, "c.md": 30, "first-model.md": 12, "tables.md": 9, "hub.md": 4}[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_architecture_names_every_folder_and_files_that_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+(?:/\w+)*)/` \|", text, re.MULTILINE))
    rooms = ("builder", "export", "runtime", "mlpx")
    folders = {str(path.parent.relative_to(ROOT)) for room in rooms for path in (ROOT / room).rglob("__init__.py")}
    described_by_their_parent = {"export/onnxfile/patterns", "export/proof/rules", "export/targets/runners", "mlpx/cli"}
    assert rows == folders - described_by_their_parent
    paths = re.findall(r"((?:builder|export|runtime|mlpx|tests)/[\w/.]*[\w/])", text)
    assert len(paths) > 40
    for path in paths:
        assert (ROOT / path.replace("NAME", "csv")).exists(), path


def test_the_commands_and_options_exist() -> None:
    import typer.main

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    seen = set()
    for page in PAGES:
        lines = [line for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ mlpx")]
        lines += re.findall(r"`(mlpx [a-z][^`]*)`", page.read_text(encoding="utf-8"))
        for line in lines:
            _, name, *rest = shlex.split(line.removeprefix("$ "), comments=True)
            known = {option for parameter in commands[name].params for option in parameter.opts}
            assert {word for word in rest if word.startswith("-")} <= known | {"--help"}, line
            seen.add(name)
    assert seen == set(commands)
