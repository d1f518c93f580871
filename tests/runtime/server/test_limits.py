"""A server that has enough to do: full queues, deadlines, and requests in progress when it is told to stop."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.serving import Server, serving, until
from tests.support.stress.checker import Checker
from tests.support.stress.models import SLOW, Proved, copied, proved
from tests.support.stress.requests import asked, why_wrong
from tests.support.stress.wire import answered, connected, request

ROWS = 16_000
"""Of which a call of the slow model takes a good part of a second."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Proved, Proved]:
    """A small model, and one that takes its time, in one folder."""
    folder = tmp_path_factory.mktemp("models")
    return proved(folder), proved(folder, "slow", blocks=SLOW)


@pytest.fixture
def service(models: tuple[Proved, Proved]) -> Iterator[Server]:
    folder = models[0].file.parent
    with serving(folder, "--queue-rows", 2 * ROWS, "--threads", 1, "--max-batch", ROWS) as service:
        yield service
        assert not service.unexpected()


def many_rows(rows: int = ROWS, **parameters: object) -> bytes:
    """A request to the slow model, in bytes."""
    data = bytes(4 * 5 * rows)
    entry = {"name": "input", "shape": [rows, 5], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [entry], "parameters": parameters}).encode()
    return request("/v2/models/slow/infer", head + data, {"Inference-Header-Content-Length": str(len(head))})


def waiting(service: Server) -> int:
    """Rows in the slow model's queue."""
    lines = service.ask("GET", "/metrics")[1].decode().splitlines()
    (line,) = [line for line in lines if line.startswith("mlpx_") and "waiting" in line and 'model="slow"' in line]
    return int(float(line.split()[-1]))


def sent(stack: ExitStack, service: Server, content: bytes) -> socket.socket:
    connection = stack.enter_context(connected(service.address))
    connection.sendall(content)
    return connection


def test_a_full_queue_says_when_to_come_again_and_other_models_answer(
    service: Server, models: tuple[Proved, Proved]
) -> None:
    with ExitStack() as stack, Checker(service.address, "arm", models[0].answers) as checker:
        running = sent(stack, service, many_rows())
        statuses = []
        connections = [sent(stack, service, many_rows()) for _ in range(8)]
        checker.progress(5)
        for connection in connections:
            status, body, headers = answered(connection)
            statuses.append(status)
            if status == 429:
                assert int(headers["retry-after"]) >= 1
                assert "queue" in json.loads(body)["error"]
        assert set(statuses) == {200, 429}
        assert answered(running)[0] == 200
    until(lambda: waiting(service) == 0, "the queue is empty again")


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(service: Server) -> None:
    with ExitStack() as stack:
        assert answered(sent(stack, service, many_rows(3 * ROWS)))[0] == 200


def test_a_deadline_that_passes_is_504_and_those_before_it_are_answered(service: Server) -> None:
    with ExitStack() as stack:
        before = [sent(stack, service, many_rows()) for _ in range(2)]
        until(lambda: waiting(service) > 0, "one runs and one waits")
        late = sent(stack, service, many_rows(1, timeout=1000))
        status, body, _ = answered(late)
        assert status == 504
        assert "deadline" in json.loads(body)["error"]
        assert [answered(one)[0] for one in before] == [200, 200]


def test_whoever_hangs_up_while_waiting_is_left_out(service: Server) -> None:
    with ExitStack() as stack:
        first = sent(stack, service, many_rows())
        second = sent(stack, service, many_rows())
        until(lambda: waiting(service) > 0, "one runs and one waits")
        second.close()
        assert answered(first)[0] == 200
        until(lambda: waiting(service) == 0, "nothing waits")
        assert answered(sent(stack, service, many_rows(1)))[0] == 200


def test_requests_in_progress_are_finished_when_it_stops(models: tuple[Proved, Proved], tmp_path: Path) -> None:
    """Those that run, those that wait, and none twice."""
    own = copied(models[1], tmp_path / "models")
    with (
        serving(own.file.parent, "--threads", 1, "--max-batch", 1000) as service,
        ExitStack() as stack,
    ):
        busy = [sent(stack, service, many_rows()) for _ in range(6)]
        each = [asked(own.answers, i, 1, binary=i % 2 == 0, name=str(i)) for i in range(8)]
        connections = [sent(stack, service, request("/v2/models/slow/infer", one.body, one.headers)) for one in each]
        until(lambda: waiting(service) % ROWS == len(each), "all wait")
        service.process.terminate()
        for one, connection in zip(each, connections, strict=True):
            status, body, headers = answered(connection)
            assert status == 200
            assert why_wrong(own.answers, one, body, headers) is None
            assert connection.recv(1) == b""
        assert [answered(one)[0] for one in busy] == [200] * len(busy)
        assert service.process.wait(60) == 0
        assert not service.unexpected()


def test_grace_ends(models: tuple[Proved, Proved]) -> None:
    """Whoever takes longer than the grace period does not keep the server."""
    with serving(models[1].file, "--threads", 1, "--grace", 1) as service, ExitStack() as stack:
        whole = many_rows(1)
        sent(stack, service, whole[:-5])  # its end never comes
        sent(stack, service, many_rows(40_000))
        until(lambda: service.ask("GET", "/v2/health/live")[0] == 200, "it answers")
        service.process.terminate()
        assert service.process.wait(60) == 0
