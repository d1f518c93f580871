"""The help: every option is explained, in lines that fit the terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mlpx.cli.app import app
from runtime.data.file_formats import DATA_SUFFIXES, FORMATS, RESULTS_SUFFIXES
from tests.mlpx.terminal import COMMANDS
from tests.support.commands import Run

OPTIONS = {
    "build": (
        "--bound --data --device --dtype --external-data --fold-affine --for --html --ir-version --no-bound "
        "--no-html --opset --output --seed --weights -o"
    ),
    "export": (
        "--bound --data --device --dtype --external-data --features --fold-affine --for --html --input-name "
        "--describe --integers --ir-version --method --name --no-bound --no-html --opset --output --output-name "
        "--seed --weights -o"
    ),
    "recover": (
        "--activation --activations --compare --device --dropout --dtype --epsilon --html --joints --keep-shape --key "
        "--name --no-html --normalizer --output --output-activation --prefix --replace --trust -o"
    ),
    "verify": (
        "--answers --ca-file --certificate --confidence --data --describe --device --dtype --every --html --method "
        "--metrics "
        "--module --no-html --output --rate --require-signature --seed --spec --tensors --timeout --url --weights -o"
    ),
    "bound": (
        "--around --certificate --data --device --dtype --eps --method --module --range --seconds --spec --vnnlib "
        "--vnnlib-version --weights --within"
    ),
    "inspect": "--contract --data --dtype --output -o",
    "predict": (
        "--address --chunk-rows --device --dtype --engine --keep --on-error --output --reject-nonfinite "
        "--separator --strict --threads --workers -o"
    ),
    "sign": "--certificate --key",
    "package": (
        "--backend --certificate --delay-us --device --for --instances --max-batch --name "
        "--onnxruntime-web --output --replace --require-signature --target-version --threads --verify-every -o"
    ),
    "push": (
        "--dry-run --license --message --output --private --readme --replace --require-signature --revision --tag "
        "--weights -o"
    ),
    "pull": "--device --output --replace --require-signature --revision -o",
    "serve": (
        "--coalescing --connections --control --device --grace --grpc --grpc-port --host --log-requests "
        "--max-batch --max-body --max-head --max-rows --no-coalescing --no-control --no-grpc "
        "--only-proved --otel --poll --port --queue-rows --read-timeout --require-signature --shared-memory --threads "
        "--timeout --tls-cert --tls-key --token-file --uds --verify-every --workers"
    ),
    "shadow": (
        "--ca-file --grace --host --max-body --metrics --new --new-bound --new-certificate --old --old-bound "
        "--old-certificate --parallel --port --queue --share --timeout"
    ),
    "bench": "--batch --chunk-rows --data --device --dtype --seconds --spin-us --threads --workers",
    "tune": ("--batch --data --dtype --max-changed-labels --max-error --no-plot --output --plot --rate --seconds -o"),
    "lab": "--output -o",
    "schema": "--output -o",
    "completion": "",
    "doctor": "",
}
"""The options of every command, besides --json and --help."""
ROOT: Any = typer.main.get_command(app)
WIDTHS = [40, 80, 120]


def shown(run: Run, monkeypatch: pytest.MonkeyPatch, width: int, *command: str) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    done = run(*command, "--help")
    assert done.code == 0
    assert done.err == ""
    return done.out


def test_the_options_are_those_that_are_promised() -> None:
    for name, command in ROOT.commands.items():
        options = [each for each in command.params if each.param_type_name == "option"]
        names = {name for each in options for name in (*each.opts, *each.secondary_opts)}
        assert names == {*OPTIONS[name].split(), "--json"}
    assert set(ROOT.commands) == set(OPTIONS) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    for parameter in ROOT.commands[command].params:
        assert parameter.help.endswith((".", "…")), parameter.name
        assert (
            parameter.is_flag
            if parameter.metavar is None
            else re.fullmatch(r"[A-Z]+([ :][A-Z]+)?|[a-z|]+|[\d.|]+", parameter.metavar)
        )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_no_line_is_longer_than_the_terminal_and_no_word_is_broken(
    command: str, width: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(run, monkeypatch, width, *command.split())
    assert max(map(len, text.splitlines())) <= width
    node = ROOT.commands[command] if command else ROOT
    words = set(text.split())
    told = [
        node.help,
        *(each.help for each in node.params),
        *(each.short_help for each in getattr(node, "commands", {}).values()),
    ]
    for line in told:
        assert set(line.split()) <= words


@pytest.mark.parametrize("command", COMMANDS)
def test_descriptions_have_room_and_types_are_words(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(run, monkeypatch, 80, command)
    assert not re.search(
        r"[<>│─]|range|list\[", text.replace("ranges", "").replace("--range ", "").replace("default: ", "")
    )
    columns = {80 - len(found[0]) for found in re.finditer(r"^ {2}-.*? {2,}(?=\S)", text, re.MULTILINE)}
    assert min(columns) >= 40


def test_defaults_are_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(shown(run, monkeypatch, 80, "serve").split())
    for part in (
        "--port PORT REST port; 0 picks a free one. [default: 8000]",
        "--grpc / --no-grpc Serve gRPC too. [default: grpc]",
        "--grace SECONDS Seconds for requests in progress to finish at shutdown. [default: 30]",
        "FOLDER A folder of models, or one .onnx file. [required]",
        "-h, --help Show this message and exit.",
    ):
        assert part in text


def test_the_overview_has_a_line_for_each_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    overview = shown(run, monkeypatch, 80).partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in overview] == list(COMMANDS)


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    done = run()
    assert done.code == 2
    assert done.out.startswith("Usage: mlpx [OPTIONS] COMMAND [ARGS]...")


def test_help_and_version(run: Run) -> None:
    assert run("--version").out.startswith("mlpx ")
    text = run("--help").out
    assert all(name in text for name in ("build", "export", "inspect", "predict", "schema", "doctor"))


@pytest.mark.parametrize("command", ["predict", "inspect", "bench", "tune", "verify", "build", "export"])
def test_the_help_lists_every_format(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    suffixes = re.findall(r"\.[a-z]+(?:\.gz)?\b", run(command, "--help").out)
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
