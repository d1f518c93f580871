"""Orders of joints and of history that frameworks differ in, as orders of a policy's features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from runtime.contracts import Contract
from runtime.contracts.features import Interface, meaning_of, without_age

Order = tuple[int, ...]
Renamed = dict[str, str]
"""Of each joint the one whose values are in its place."""
_MOST_JOINTS = 32
"""Up to which every pair is exchanged."""


def input_orders(policy: Contract) -> Iterator[tuple[str, str, Order, Renamed]]:
    """In words, the input, of each feature the index of the one whose value takes its place, and the joints moved."""
    for each in policy.inputs:
        if each.names is None:
            continue
        for words, renamed in _joint_orders(_joints(each)):
            told = f"the joints of '{each.port.name}' are in another order ({words})"
            yield told, each.port.name, _moved(each, renamed), renamed
        if (turned := _turned(each)) is not None:
            yield f"'{each.port.name}': the history is in the opposite order", each.port.name, turned, {}


def output_orders(policy: Contract, renamed: Renamed) -> Iterator[tuple[str, Order]]:
    """The same order of joints for the outputs."""
    for each in policy.outputs:
        if each.names is not None and (order := _moved(each, renamed)) != tuple(range(each.width)):
            yield each.port.name, order


def _joints(interface: Interface) -> list[str]:
    """The joints in their order."""
    joints = [meaning_of(name).joint for name in interface.names or ()]
    return list(dict.fromkeys(joint for joint in joints if joint is not None))


def _joint_orders(joints: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """In words, and of each joint the one whose values are in its place."""
    count = len(joints)
    if count < 2:
        return
    if count <= _MOST_JOINTS:
        for one, other in combinations(joints, 2):
            yield f"{one} and {other} exchanged", {one: other, other: one}
    if list(joints) != sorted(joints):
        yield "by the alphabet", dict(zip(joints, sorted(joints), strict=True))
    for parts in range(2, count // 2 + 1):
        if count % parts == 0:
            grouped = [joints[index] for start in range(parts) for index in range(start, count, parts)]
            yield f"in steps of {parts}", dict(zip(joints, grouped, strict=True))


def _moved(interface: Interface, renamed: Renamed) -> Order:
    """The order of features that an order of joints gives."""
    names = list(interface.names or ())
    places = {name: index for index, name in enumerate(names)}
    order: list[int] = []
    for index, name in enumerate(names):
        meaning = meaning_of(name)
        wanted = renamed.get(meaning.joint or "")
        age = f"@-{meaning.age}" if meaning.age else ""
        order.append(index if wanted is None else places.get(f"{meaning.term}:{wanted}{age}", index))
    return tuple(order) if len(set(order)) == len(order) else tuple(range(len(order)))


def _turned(interface: Interface) -> Order | None:
    """The order of features with the history of each from the other end; None without history."""
    names = list(interface.names or ())
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(without_age(name), []).append(index)
    order = list(range(len(names)))
    for places in groups.values():
        for place, other in zip(places, reversed(places), strict=True):
            order[place] = other
    return None if order == list(range(len(names))) else tuple(order)
