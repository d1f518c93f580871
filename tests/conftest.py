"""Fixtures that every test may use."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from mlpx.cli import main
from runtime import choose, this_machine
from runtime.errors import ProviderError
from tests.support import ROOT
from tests.support.commands import Done, Run
from tests.support.repeats import EVERYTHING

settings.register_profile(EVERYTHING, deadline=None)
settings.register_profile("ordinary", deadline=None)  # how long an example takes says more of the machine
settings.load_profile("ordinary")

CLUSTER = "runtime/ray/test_ray.py"
SERVERS = (CLUSTER, "export/targets/test_live_servers.py", "mlpx/mlflow/", "runtime/live/test_live.py")
SERVERS += ("runtime/server/",)
"""Tests that start a cluster or servers."""


def pytest_configure() -> None:
    """Let commands that tests start be interrupted: a shell's background job, and what it starts, ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start servers or a cluster."""
    for item in items:
        path = item.nodeid.removeprefix("tests/")
        if path.startswith(SERVERS):
            item.add_marker(pytest.mark.server)
        if path.startswith(CLUSTER):
            item.add_marker(pytest.mark.cluster)


def _why_no_cuda() -> str | None:
    try:
        choose("cuda", this_machine())
    except ProviderError as error:
        return str(error)
    return None


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)], scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Every provider that the machine has."""
    if request.param == "cuda" and (reason := _why_no_cuda()) is not None:
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="session")
def cuda() -> str:
    """The device of tests that only a GPU has anything for."""
    if (reason := _why_no_cuda()) is not None:
        pytest.skip(reason)
    return "cuda"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """A command in this process: ``run("build", "spec.yaml")``."""

    def command(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["mlpx", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        printed = capfd.readouterr()
        return Done(code, printed.out, printed.err)

    return command
