"""What happens to requests when processes die, files break, models are replaced, and the server is told to stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.serving import serving, until
from tests.support.stress.checker import Checker
from tests.support.stress.models import Proved, copied, proved

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and process groups as POSIX has them")


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return proved(tmp_path_factory.mktemp("arm"))


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    """Other weights under the same name."""
    return proved(tmp_path_factory.mktemp("another"), seed=1)


def test_a_killed_worker_is_replaced_and_no_answer_is_wrong(arm: Proved) -> None:
    with serving(arm.file.parent, "--workers", "2") as service:
        before = until(lambda: len(w := service.workers()) == 2 and w, "two workers")
        until(lambda: len(service.events("model_loaded")) == 2, "both have the model")
        with Checker(service.address, "arm", arm.answers, clients=4, may_break=True) as checker:
            for _ in range(2):
                checker.progress()
                victim = service.workers()[0]
                os.kill(victim, signal.SIGKILL)
                until(lambda victim=victim: victim not in service.workers(), "the worker is gone")
                until(lambda: len(service.workers()) == 2, "another worker")
                checker.progress()
        # At most what was on its way to a worker that died: one request of each client.
        assert checker.broken <= 2 * 4
        assert len(service.events("worker_died")) == 2
        assert set(service.workers()) != set(before)
        assert service.stop() == 0


def test_the_only_worker_that_is_killed_comes_back(arm: Proved) -> None:
    """Clients wait for its successor on the same port: none is refused."""
    with serving(arm.file.parent) as service:
        (victim,) = service.workers()
        with Checker(service.address, "arm", arm.answers, clients=3, may_break=True) as checker:
            os.kill(victim, signal.SIGKILL)
            checker.progress()
            assert checker.broken <= 3
        assert service.workers() not in ([], [victim])


def test_no_worker_outlives_a_killed_supervisor(arm: Proved) -> None:
    with serving(arm.file.parent, "--workers", "2") as service:
        workers = until(lambda: len(w := service.workers()) == 2 and w, "two workers")
        until(lambda: len(service.events("model_loaded")) == 2, "both have the model")
        service.process.kill()
        service.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers end")


@pytest.mark.parametrize("workers", [1, 2])
def test_models_are_reloaded_without_dropping_a_request(
    arm: Proved, another: Proved, tmp_path: Path, workers: int
) -> None:
    own = copied(arm, tmp_path / "models")
    with serving(own.file.parent, "--workers", workers) as service:
        until(lambda: len(service.events("model_loaded")) == workers, "every worker has the model")
        with Checker(service.address, "arm", arm.answers, clients=3) as checker:
            for number in range(2, 5):
                assert service.ask("POST", "/v2/repository/models/arm/load")[0] == 200
                assert len(service.events("model_loaded")) == workers * number
                checker.progress()
            service.process.send_signal(signal.SIGUSR1)  # nothing changed, so nothing is loaded
            checker.progress()
        assert len(service.events("model_loaded")) == workers * 4
        replace(another, own.file.parent)
        service.process.send_signal(signal.SIGUSR1)
        until(lambda: len(service.events("model_loaded")) == workers * 5, "the new file is loaded")
        with Checker(service.address, "arm", another.answers, clients=3) as checker:
            checker.progress()
        assert not service.unexpected()


def replace(one: Proved, folder: Path) -> None:
    """Put a model's file and certificate in the place of others, each by a rename."""
    for path in (one.file.with_suffix(".parity.json"), one.file):
        shutil.copy2(path, folder / "arriving")
        (folder / "arriving").rename(folder / path.name)


BROKEN = {
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "text": lambda _: b"no model at all\n" * 50,
    "flipped bits": lambda content: bytes(255 - byte for byte in content),
}


@pytest.mark.parametrize("by", ["SIGUSR1", "load"])
def test_a_broken_file_leaves_the_old_one_serving(arm: Proved, tmp_path: Path, by: str) -> None:
    own = copied(arm, tmp_path / "models")
    with serving(own.file.parent) as service:
        with Checker(service.address, "arm", arm.answers) as checker:
            for number, broken in enumerate(BROKEN.values(), 1):
                own.file.write_bytes(broken(arm.file.read_bytes()))
                if by == "load":
                    status, body, _ = service.ask("POST", "/v2/repository/models/arm/load")
                    assert status == 400
                    assert b"arm" in body
                else:
                    service.process.send_signal(signal.SIGUSR1)
                until(lambda n=number: len(service.events("model_refused")) == n, "the file is refused")
                checker.progress()
        assert service.ask("GET", "/v2/health/ready")[0] == 200
        (entry,) = json.loads(service.ask("POST", "/v2/repository/index")[1])
        assert entry["state"] == "READY"
        assert entry["reason"] == service.events("model_refused")[-1]["reason"] != ""
        copied(arm, own.file.parent)
        assert service.ask("POST", "/v2/repository/models/arm/load")[0] == 200
        assert json.loads(service.ask("POST", "/v2/repository/index")[1])[0]["reason"] == ""
        assert not service.unexpected()


def test_a_model_that_is_deleted_is_not_there_and_the_others_go_on(arm: Proved, tmp_path: Path) -> None:
    own = copied(arm, tmp_path / "models" / "arm")
    copied(arm, tmp_path / "models" / "leg").file.rename(tmp_path / "models" / "leg" / "leg.onnx")
    with serving(tmp_path / "models", "--poll", "0.1") as service:
        with Checker(service.address, "leg", arm.answers) as checker:
            assert service.ask("GET", "/v2/models/arm/ready")[0] == 200
            own.file.unlink()
            until(lambda: service.ask("GET", "/v2/models/arm/ready")[0] == 404, "the model is gone")
            checker.progress()
            copied(arm, own.file.parent)
            until(lambda: service.ask("GET", "/v2/models/arm/ready")[0] == 200, "the model is back")
        assert not service.unexpected()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_without_breaking_a_request(arm: Proved, number: int) -> None:
    """A connection that is kept open is closed between two requests, which its answer says."""
    with serving(arm.file.parent) as service:
        with Checker(service.address, "arm", arm.answers, may_break=True, allowed=frozenset({503})) as checker:
            checker.progress()
            service.process.send_signal(number)
            assert service.process.wait(60) == 0
            checker.end()
        assert [event["event"] for event in service.events()][-1] == "stopped"
        assert not service.unexpected()
