"""Messages between the supervisor and its workers, and counters of several workers added up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runtime.server.refusals import Unknown
from runtime.server.statistics import Statistics, add_up, triton_statistics
from runtime.server.worker_sync import Channel


async def answer(action: str, argument: Any) -> Any:
    """What the other end does: give back what it gets, refuse, or never answer."""
    if action == "refuse":
        raise Unknown(argument)
    if action == "hang":
        await asyncio.Event().wait()
    return argument


def connected(talk: Callable[[Channel, Channel], Awaitable[None]]) -> None:
    """Run ``talk`` with the two ends of a connection, which both listen."""

    async def run() -> None:
        ends = socket.socketpair()
        one, other = [await Channel.open(end, answer) for end in ends]
        listening = asyncio.gather(one.listen(), other.listen())
        async with asyncio.timeout(60):
            await talk(one, other)
            await one.close()
            await listening

    asyncio.run(run())


def test_both_ends_ask_and_answers_of_any_size_go_to_who_asked() -> None:
    async def talk(one: Channel, other: Channel) -> None:
        values = [b"x" * size for size in (0, 1, 70_000, 30_000_000)]
        asked = [channel.ask("give", value) for value in values for channel in (one, other)]
        assert await asyncio.gather(*asked) == [value for value in values for _ in range(2)]

    connected(talk)


def test_a_refusal_is_raised_where_it_was_asked() -> None:
    async def talk(one: Channel, _other: Channel) -> None:
        with pytest.raises(Unknown, match="no such model"):
            await one.ask("refuse", "no such model")
        assert await one.ask("give", 7) == 7

    connected(talk)


def test_whoever_waits_is_told_of_the_end() -> None:
    async def talk(one: Channel, other: Channel) -> None:
        waiting = asyncio.create_task(one.ask("hang"))
        await one.ask("give")
        await other.close()
        with pytest.raises(ConnectionError):
            await waiting
        with pytest.raises(ConnectionError):
            await one.ask("give")

    connected(talk)


def test_an_answer_that_nobody_waits_for_is_dropped_and_the_first_of_two_counts() -> None:
    async def talk(one: Channel, other: Channel) -> None:
        given_up = asyncio.create_task(one.ask("give", 1))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await one.ask("give", 2) == 2
        waiting = asyncio.create_task(one.ask("hang"))
        await asyncio.sleep(0)
        one._receive(2, "first")
        one._receive(2, "second")
        assert await waiting == "first"
        await other.close()
        other.tell("give", "to nobody")

    connected(talk)


def test_an_end_that_does_not_read_blocks_nobody() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        channel = await Channel.open(ours, answer)
        for _ in range(100):
            channel.tell("give", b"x" * 1_000_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await channel.ask("give")
        theirs.close()
        await channel.listen()

    asyncio.run(run())


def test_counters_of_workers_are_added_up() -> None:
    def counted(*calls: tuple[int, float], last: float) -> Statistics:
        statistics = Statistics(last=last)
        for rows, seconds in calls:
            statistics.count_call(rows, seconds)
            statistics.requests.add(seconds)
        statistics.count_refusal("NOT_FOUND")
        return statistics

    one, other = counted((1, 0.25), (8, 0.5), last=3.0), counted((8, 1.0), last=2.0)
    other.count_refusal("UNAVAILABLE")
    total = add_up([{("m", "10"): one}, {("m", "10"): other, ("m", "2"): one}])
    assert list(total) == [("m", "2"), ("m", "10")]
    both = total["m", "10"]
    assert (both.rows, both.last, both.refused) == (17, 3.0, {"NOT_FOUND": 2, "UNAVAILABLE": 1})
    assert both.batches == {1: [1, 0.25], 8: [2, 1.5]}
    assert both.requests.count == 3
    assert both.requests.sum == 1.75
    assert one.batches == {1: [1, 0.25], 8: [1, 0.5]}, "the counters of a worker stay its own"
    record = triton_statistics(total)[1]
    assert record["inference_stats"]["fail"]["count"] == 3
    assert record["execution_count"] == 3
    assert [(part["batch_size"], part["compute_infer"]) for part in record["batch_stats"]] == [
        (1, {"count": 1, "ns": 250_000_000}),
        (8, {"count": 2, "ns": 1_500_000_000}),
    ]
