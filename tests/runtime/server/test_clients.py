"""Clients that hang up, trickle, crowd or send heads without end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.serving import Server, serving, until
from tests.support.stress.checker import Checker
from tests.support.stress.models import Proved, proved
from tests.support.stress.requests import asked, why_wrong
from tests.support.stress.wire import answered, connected, ended, request

INFER = "/v2/models/arm/infer"
CROWD = 10_000


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return proved(tmp_path_factory.mktemp("arm"))


@pytest.fixture(scope="module")
def service(arm: Proved) -> Iterator[Server]:
    with serving(arm.file.parent, "--device", "auto", "--read-timeout", 1) as service:
        yield service


@pytest.fixture(autouse=True)
def beside(service: Server, arm: Proved) -> Iterator[None]:
    """Another client, whose answers stay right, and a log without a defect."""
    with Checker(service.address, "arm", arm.answers) as checker:
        yield
        checker.progress()
    assert not service.unexpected()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_whoever_hangs_up_is_forgotten(service: Server, arm: Proved, share: float) -> None:
    one = asked(arm.answers, 0, 3)
    whole = request(INFER, one.body, one.headers)
    for _ in range(20):
        with connected(service.address) as connection:
            connection.sendall(whole[: int(share * len(whole))])


def test_a_reset_while_the_answer_is_written_harms_nobody(service: Server, arm: Proved) -> None:
    one = asked(arm.answers, 0, 1)
    for _ in range(20):
        with connected(service.address) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(request(INFER, one.body, one.headers) * 50)


def test_a_body_in_single_bytes_is_read(service: Server, arm: Proved) -> None:
    one = asked(arm.answers, 2, 2, binary=True)
    with connected(service.address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request(INFER, one.body, one.headers):
            connection.sendall(bytes([byte]))
        status, body, headers = answered(connection)
    assert status == 200
    assert why_wrong(arm.answers, one, body, headers) is None


def test_a_body_in_chunks_is_read(service: Server, arm: Proved) -> None:
    one = asked(arm.answers, 1, 4)
    pieces = [one.body[i : i + 7] for i in range(0, len(one.body), 7)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = f"POST {INFER} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with connected(service.address) as connection:
        connection.sendall(head + chunks + b"0\r\n\r\n")
        status, body, headers = answered(connection)
    assert status == 200
    assert why_wrong(arm.answers, one, body, headers) is None


@pytest.mark.parametrize("there", [0, 10, 60, -3], ids=["nothing", "in the line", "in the head", "in the body"])
def test_a_request_that_does_not_arrive_is_408_and_the_connection_is_closed(
    service: Server, arm: Proved, there: int
) -> None:
    one = asked(arm.answers, 0, 1)
    with connected(service.address) as connection:
        connection.sendall(request(INFER, one.body, one.headers)[: there or 0])
        status, _, headers = answered(connection)
        assert (status, headers["connection"]) == (408, "close")
        assert ended(connection)


def test_a_slow_head_after_a_good_request_is_408_too(service: Server, arm: Proved) -> None:
    one = asked(arm.answers, 0, 1)
    whole = request(INFER, one.body, one.headers)
    with connected(service.address) as connection:
        connection.sendall(whole + whole[:40])
        assert answered(connection)[0] == 200
        assert answered(connection)[0] == 408
        assert ended(connection)


def test_pipelined_requests_are_answered_once_each_and_in_order(service: Server, arm: Proved) -> None:
    """Bodies larger than a head may be, so that what is read holds the end of one and the next one's head."""
    each = [asked(arm.answers, i % 8, 3, binary=i % 2 == 0, name=f"{i:020000}") for i in range(30)]
    with connected(service.address) as connection:
        connection.sendall(b"".join(request(INFER, one.body, one.headers) for one in each))
        stream = connection.makefile("rb")
        for one in each:
            status, body, headers = next_answer(stream)
            assert status == 200
            assert why_wrong(arm.answers, one, body, headers) is None
        connection.shutdown(socket.SHUT_WR)
        assert stream.read() == b""


def next_answer(stream) -> tuple[int, bytes, dict[str, str]]:  # type: ignore[no-untyped-def]
    """Of several on one connection."""
    status = int(stream.readline().split()[1])
    headers = {}
    while (line := stream.readline().decode().strip()) != "":
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return status, stream.read(int(headers["content-length"])), headers


BOMBS = {
    "one long header": lambda: request(INFER, b"{}", {"X": "a" * 100_000}),
    "many headers": lambda: request(INFER, b"{}", {f"X-{i}": "a" for i in range(20_000)}),
    "a long path": lambda: request("/" + "a" * 100_000, b"{}"),
    "a header without end": lambda: b"POST / HTTP/1.1\r\nX: " + b"a" * 5_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_head_without_end_is_431(service: Server, bomb: str) -> None:
    with connected(service.address) as connection:
        try:
            connection.sendall(BOMBS[bomb]())
            status, _, headers = answered(connection)
        except (BrokenPipeError, ConnectionResetError):
            return  # it closed the connection while the rest was still on its way
        assert (status, headers["connection"]) == (431, "close")


NO_HTTP = {
    "noise": bytes(range(256)) * 4,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    "length and chunks": b"POST /v2 HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is none": b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc",
    "a huge length": b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
    "a chunk that lies": b"POST /v2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
}


@pytest.mark.parametrize("kind", NO_HTTP)
def test_what_is_no_http_gets_an_error_or_a_closed_connection(service: Server, kind: str) -> None:
    with connected(service.address) as connection:
        connection.sendall(NO_HTTP[kind])
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


def test_a_body_that_is_announced_too_large_is_413_before_it_comes(service: Server) -> None:
    with connected(service.address) as connection:
        connection.sendall(request(INFER, b"", {"Content-Length": str(2**40)}))
        status, _, headers = answered(connection)
        assert (status, headers["connection"]) == (413, "close")


def test_a_body_in_chunks_without_end_is_413(arm: Proved) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with (
        serving(arm.file.parent, "--max-body", 100_000) as service,
        connected(service.address) as connection,
    ):
        connection.sendall(head)
        try:
            for _ in range(1000):
                connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return
        assert answered(connection)[0] == 413


def test_ten_thousand_connections(arm: Proved) -> None:
    resource = pytest.importorskip("resource", reason="limits as POSIX has them")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may have {hard} files here, and {CROWD} connections need more")
    one = asked(arm.answers, 3, 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        with serving(arm.file.parent, "--connections", CROWD - 50) as service, ExitStack() as stack:
            crowd = [stack.enter_context(connected(service.address)) for _ in range(CROWD)]
            statuses = []
            for connection in [*crowd[:100], *crowd[-100:]]:
                connection.sendall(request(INFER, one.body, one.headers))
                status, body, headers = answered(connection)
                statuses.append(status)
                assert status != 200 or why_wrong(arm.answers, one, body, headers) is None
            # All that it takes, and a word to those beyond.
            assert statuses[:150] == [200] * 150
            assert statuses[150:] == [503] * 50
            for connection in crowd:
                connection.close()
            until(lambda: service.ask("GET", "/v2/health/ready")[0] == 200, "it takes new ones")
            assert not service.unexpected()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
