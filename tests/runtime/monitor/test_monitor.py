"""A check in turns: what its endpoint says after each, without waiting."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from runtime import Finding, InputError, OutputError, check_device
from runtime.monitor.endpoint import endpoint
from runtime.monitor.monitor import Monitor
from tests.support.cases import network
from tests.support.live import with_certificate


@dataclass
class Report:
    proved: bool = True
    findings: tuple[Finding, ...] = ()
    causes: tuple[str, ...] = ()


WRONG = Report(False, (Finding("bound", "row 3 is wrong"),), ("another file",))


class Clock:
    """Seconds that pass only when a test says so."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def of(*results: Report | Exception, clock: Clock | None = None, takes: float = 0.5) -> Monitor:
    """A monitor every 60 seconds of a check with these results in turn."""
    clock = clock or Clock()
    waiting = list(results)

    def check() -> Report:
        clock.seconds += takes
        result = waiting.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return Monitor(check, 60.0, clock=clock, now=lambda: 1e9 + clock.seconds)


def get(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def value(metrics: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    assert found is not None, metrics
    return float(found[1])


def test_it_is_ready_only_while_the_last_check_holds() -> None:
    monitor = of(Report(), WRONG, InputError("no such file"), Report())
    with endpoint(monitor, "127.0.0.1", 0) as url:
        assert get(f"{url}/ready") == (503, "not checked yet\n")
        seen: list[tuple[int, str]] = []
        for _ in range(4):
            monitor.turn()
            seen.append(get(f"{url}/ready"))
            assert get(f"{url}/health")[0] == 200
    assert seen == [
        (200, "proved\n"),
        (503, "failed: row 3 is wrong; cause: another file\n"),
        (503, "error: no such file\n"),
        (200, "proved\n"),
    ]


def test_a_result_that_is_too_old_is_not_ready() -> None:
    clock = Clock()
    monitor = of(Report(), clock=clock)
    monitor.turn()
    clock.seconds += 120
    assert monitor.state == (True, "proved")
    clock.seconds += 1
    is_ready, words = monitor.state
    assert not is_ready
    assert words == "the last check is 121 s old, and one is due every 60 s"
    assert value(monitor.metrics(), "mlpx_verify_ready") == 0
    assert value(monitor.metrics(), "mlpx_verify_proved") == 1


def test_a_check_that_takes_longer_than_the_interval_stays_ready() -> None:
    clock = Clock()
    monitor = of(Report(), clock=clock, takes=300)
    monitor.turn()
    clock.seconds += 360
    assert monitor.state[0]


def test_the_counters() -> None:
    monitor = of(Report(), WRONG, WRONG, OSError("gone"))
    before = monitor.metrics()
    assert value(before, 'mlpx_verify_checks_total{result="proved"}') == 0
    assert "mlpx_verify_last_success_timestamp_seconds" not in before
    for _ in range(4):
        monitor.turn()
    with endpoint(monitor, "127.0.0.1", 0) as url, urlopen(f"{url}/metrics?all=1", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.read().decode()
    results = "proved", "failed", "error"
    counts = {result: value(text, f'mlpx_verify_checks_total{{result="{result}"}}') for result in results}
    assert counts == {"proved": 1, "failed": 2, "error": 1}
    assert value(text, "mlpx_verify_last_success_timestamp_seconds") == 1e9 + 100.5
    assert value(text, "mlpx_verify_seconds") == 0.5
    assert value(text, "mlpx_verify_proved") == 0
    names = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert names == set(re.findall(r"^# HELP (\S+)", text, re.MULTILINE))
    assert names == {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line[0] != "#"}


def test_what_changes_on_the_disk_is_noticed_at_the_next_turn(tmp_path: Path) -> None:
    _, module = network([{"linear": 4}], features=3)
    certificate, path = with_certificate(module, tmp_path)
    monitor = Monitor(lambda: check_device(path, certificate.path, "cpu"), 60.0)
    content, proof = path.read_bytes(), certificate.path.read_bytes()
    results: list[str] = []
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: path.write_bytes(content + b"\x00"),
        lambda: path.unlink(),
        lambda: path.write_bytes(content),
        lambda: certificate.path.write_bytes(proof.replace(b'"verdict": "proved"', b'"verdict": "failed"')),
        lambda: certificate.path.write_bytes(b"{"),
        lambda: certificate.path.write_bytes(proof),
    ]
    for change in changes:
        change()
        results.append(monitor.turn().result)
    assert results == ["proved", "failed", "error", "proved", "failed", "error", "proved"]


def test_paths_and_methods() -> None:
    with endpoint(of(), "127.0.0.1", 0) as url:
        status, words = get(f"{url}/")
        assert status == 404
        assert "/metrics, /ready and /health" in words
        host, _, port = url.removeprefix("http://").partition(":")
        for request, part in ((b"HEAD /health HTTP/1.0", b" 200 "), (b"POST /ready HTTP/1.0", b" 501 ")):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(request + b"\r\n\r\n")
                with connection.makefile("rb") as answer:
                    assert part in answer.readline()


def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = pytest.raises(OutputError, match=f"127.0.0.1:{port} cannot be listened on")
        with told, endpoint(of(), "127.0.0.1", port):
            pass
    with pytest.raises(OutputError, match="cannot be listened on"), endpoint(of(), "no.such.host.invalid", 0):
        pass


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with endpoint(of(), "::1", 0) as url:
        assert url.startswith("http://[::1]:")
        assert get(f"{url}/health") == (200, "alive\n")
