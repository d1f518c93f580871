"""What several files of these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.session.session import Session
from tests.support.frames import Client
from tests.support.servers.planted import Planted
from tests.support.servers.planted_serve import plant_sessions
from tests.support.servers.planting import prepare
from tests.support.stress.models import Proved


@pytest.fixture
def plan(arm: Proved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that turns faults of ``arm`` on, which every session of this process obeys."""
    folder = prepare(tmp_path / "plan", arm.file, arm.answers)
    for name in ("run", "predict"):
        monkeypatch.setattr(Session, name, getattr(Session, name))  # given back at the end
    plant_sessions(Planted(folder))
    return folder


@pytest.fixture
def closed_clients() -> Iterator[None]:
    """Clients of frames are closed after the test."""
    yield
    while Client.all:
        Client.all.pop().end.close()
