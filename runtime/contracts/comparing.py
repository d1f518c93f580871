"""Names what differs between two contracts: the order of features, what is applied to them, the layers, the period."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from .description import Contract
from .features import Interface, meaning_of, without_age
from .layers import CONSTANTS, OPTIONS, STRUCTURE, WEIGHED, Layer, differing, in_order
from .orders import Order, order_of_names, order_of_weights
from .steps import CALLED, DEFAULTS, Step
from .wiring import in_words
from .wording import chain, declaration, joined, label, listed, summary


@dataclass(frozen=True)
class Difference:
    """One difference, and what each of the two has."""

    kind: str
    """names, features, order, history, unit, range, categories, normaliser, scale, clip, layers, weights or period."""
    where: str
    """The input, the output or the layer."""
    words: str
    """The difference in a line."""
    features: tuple[str, ...] = ()
    """The features that it concerns, by name or index."""
    first: tuple[Any, ...] = ()
    """What the first has for each of them."""
    second: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What differs, and what could not be compared.

    Examples:
        >>> from mlpx import compare
        >>> comparison = compare("comfort.onnx", "comfort.onnx")
        >>> comparison.equal, comparison.differences
        (True, ())
    """

    first: str
    second: str
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs of what could be compared."""
        return not self.differences

    def to_record(self) -> dict[str, Any]:
        """For JSON."""
        return {"equal": self.equal, **asdict(self)}


def compare(first: Contract, second: Contract) -> Comparison:
    """What differs between two contracts, each named once: features in another order are first put into one order."""
    comparing = _Comparing(first, second)
    differences = tuple(comparing.differences())
    told = [f"the {which}: {line}" for which, each in (("first", first), ("second", second)) for line in each.notes]
    return Comparison(first.source or first.name, second.source or second.name, differences, (*told, *comparing.notes))


class _Comparing:
    def __init__(self, first: Contract, second: Contract):
        self.first, self.second = first, second
        self.notes: list[str] = []

    def differences(self) -> Iterator[Difference]:
        first, second = self.first, self.second
        orders: dict[str, Order | None] = {"input": None, "output": None}
        for kind in orders:
            ours, theirs = getattr(first, f"{kind}s"), getattr(second, f"{kind}s")
            if len(ours) != len(theirs):
                words = f"the first has {len(ours)} {kind}s, and the second {len(theirs)}"
                yield Difference("names", kind, words)
                continue
            called = [tuple(each.port.name for each in interfaces) for interfaces in (ours, theirs)]
            if called[0] != called[1] and sorted(called[0]) == sorted(called[1]):
                words = f"the {kind}s are {listed(called[0])}, and in the second {listed(called[1])}"
                yield Difference("order", kind, words, (), *called)
            for one, other in zip(ours, theirs, strict=True):
                if one.width != other.width:
                    words = f"{kind} '{one.port.name}': {one.width} features, and {other.width} in the second"
                    yield Difference("features", one.port.name, words, first=(one.width,), second=(other.width,))
                    continue
                yield from _rows(kind, one, other)
                order, found = self._order(kind, one, other, alone=len(ours) == 1)
                yield from found
                yield from self._declared(one, other, order)
                yield from self._applied(kind, one, other, order)
                orders[kind] = order if len(ours) == 1 else None
        yield from self._layers(orders["input"], orders["output"])
        if first.period is not None and second.period is not None:
            if first.period != second.period:
                words = f"the period is {first.period!r} s, and {second.period!r} s in the second"
                yield Difference("period", "", words, first=(first.period,), second=(second.period,))
        elif first.period != second.period:
            which = "second" if second.period is None else "first"
            self.notes.append(f"the {which} does not say its period, so it was not compared")

    def _order(self, kind: str, one: Interface, other: Interface, alone: bool) -> tuple[Order | None, list[Difference]]:
        """The order of the second's features in terms of the first's, and what is to be said of it."""
        name = one.port.name
        if one.names is not None and other.names is not None:
            missing = [each for each in one.names if each not in other.names]
            surplus = [each for each in other.names if each not in one.names]
            if missing or surplus:
                words = f"{kind} '{name}': the first has {listed(missing)}, the second {listed(surplus)}"
                found = Difference("names", name, f"{words} in their place", (), tuple(missing), tuple(surplus))
                return None, [found]
            order = order_of_names(one.names, other.names)
            found = [] if order is None else [self._moved(kind, one, other, order)]
            return None if _same_weights(self.first.layers, self.second.layers, kind) else order, found
        if one.names is not None or other.names is not None:
            which = "second" if other.names is None else "first"
            self.notes.append(f"the {which} does not name the features of the {kind} '{name}'")
        if not alone:
            return None, []
        order = order_of_weights(self.first.layers, self.second.layers, kind)
        return order, [] if order is None else [self._moved(kind, one, other, order, by_weights=True)]

    def _moved(self, kind: str, one: Interface, other: Interface, order: Order, by_weights: bool = False) -> Difference:
        """``order`` has the index in the second of each feature of the first."""
        name, names = one.port.name, one.names or other.names
        moved = [index for index, place in enumerate(order) if index != place]
        if other.names is not None and one.names is None:
            labels = [other.names[order[index]] for index in moved]
        else:
            labels = [names[index] if names is not None else str(index) for index in moved]
        moves = joined([f"{name} {index} -> {order[index]}" for name, index in zip(labels, moved, strict=True)])
        count = f"{len(moved)} of {len(order)} features are in another order"
        what = "order"
        if names is not None and not by_weights:
            terms = {meaning_of(each).term for each in labels}
            ages = [meaning_of(names[index]).age for index in moved]
            same = all(without_age(names[index]) == without_age((other.names or names)[index]) for index in moved)
            if any(ages) and same:
                what = "history"
                count = f"the history of {joined(sorted(terms))} is in another order: {len(moved)} features"
        how = ""
        if by_weights:
            mixed = "columns" if kind == "input" else "rows"
            layer = "first" if kind == "input" else "last"
            how = f", by the weights: the {layer} layer has the same {mixed} in another order"
        elif (weights := order_of_weights(self.first.layers, self.second.layers, kind)) is not None:
            how = ", and the weights moved with them" if weights == order else ", and the weights moved otherwise"
        elif _same_weights(self.first.layers, self.second.layers, kind):
            how = ", and the weights did not move with them: the names alone differ"
        words = f"{kind} '{name}': {count}{how}: {moves}"
        return Difference(what, name, words, tuple(labels), tuple(moved), tuple(order[index] for index in moved))

    def _declared(self, one: Interface, other: Interface, order: Order | None) -> Iterator[Difference]:
        """Units, ranges and categories."""
        if one.port.name != other.port.name:
            self.notes.append(f"'{one.port.name}' is called '{other.port.name}' in the second")
        theirs = [other.features[index] for index in (order or range(other.width))]
        for kind in ("unit", "range", "categories"):
            values = [(getattr(a, kind), getattr(b, kind)) for a, b in zip(one.features, theirs, strict=True)]
            differing = [i for i, (a, b) in enumerate(values) if None not in (a, b) and a != b]
            unknown = sum((a is None) != (b is None) for a, b in values)
            if unknown:
                self.notes.append(f"{unknown} features of '{one.port.name}' have a {kind} in only one of the two")
            if differing:
                labels = [label(one, index) for index in differing]
                pairs = [
                    f"{label} {declaration(values[i][0])} and {declaration(values[i][1])}"
                    for label, i in zip(labels, differing, strict=True)
                ]
                words = f"'{one.port.name}': another {kind} of {joined(pairs)}"
                both = zip(*(values[index] for index in differing), strict=True)
                yield Difference(kind, one.port.name, words, tuple(labels), *both)

    def _applied(self, kind: str, one: Interface, other: Interface, order: Order | None) -> Iterator[Difference]:
        """What is applied to each feature."""
        ours = [step for step in one.steps if not step.is_identity]
        theirs = [step if order is None else step.taken(order) for step in other.steps if not step.is_identity]
        place = "first" if kind == "input" else "last"
        matcher = SequenceMatcher(None, [each.kind for each in ours], [each.kind for each in theirs], autojunk=False)
        for tag, i, j, k, m in matcher.get_opcodes():
            if tag == "equal":
                for a, b in zip(ours[i:j], theirs[k:m], strict=True):
                    if a.values and b.values:
                        yield from _values(one, a, b)
                    else:
                        called = CALLED.get(a.kind, a.kind)
                        which = "second" if a.values else "first"
                        self.notes.append(
                            f"the {which} does not hold the constants of its {called}, so they were not compared"
                        )
                continue
            for which, steps in (("first", ours[i:j]), ("second", theirs[k:m])):
                without = "second" if which == "first" else "first"
                for step in steps:
                    called = CALLED.get(step.kind, step.kind)
                    words = f"'{one.port.name}': the {which} applies a {called} {place}, and the {without} does not"
                    values = f" ({summary(step)})"
                    yield Difference(called, one.port.name, words + values)

    def _layers(self, inputs: Order | None, outputs: Order | None) -> Iterator[Difference]:
        ours, theirs = self.first.layers, list(self.second.layers)
        if not ours or not theirs:
            self.notes.append(f"the {'second' if ours else 'first'} does not say its layers, so they were not compared")
            return
        if len(ours) != len(theirs):
            words = f"the layers are {chain(ours)}; in the second {chain(theirs)}"
            yield Difference("layers", "", words, (), tuple(map(str, ours)), tuple(map(str, theirs)))
            return
        unknown: list[str] = []
        for index, (one, other) in enumerate(zip(ours, in_order(theirs, inputs, outputs), strict=True)):
            where = f"layer {index + 1}"
            if (one.kind, one.inputs, one.outputs) != (other.kind, other.inputs, other.outputs):
                yield Difference(
                    "layers", str(index), f"{where} is {one}, and {other} in the second", (), *_named(one, other)
                )
                continue
            if (words := self._options(one, other, where)) is not None:
                yield Difference("layers", str(index), words, (), *_named(one, other))
            if None not in (one.reads, other.reads) and one.reads != other.reads:
                ends = in_words(one.reads or ()), in_words(other.reads or ())
                words = f"{where}, {one}, reads {ends[0]}, and {ends[1]} in the second"
                yield Difference("layers", str(index), words, (), *((each,) for each in ends))
            if None in (one.digest, other.digest) and one.kind in WEIGHED:
                unknown.append("one of the two" if one.digest != other.digest else "both")
                continue
            if one.digest == other.digest:
                continue
            if one.weights and other.weights:
                if (words := _weights(one, other)) is not None:
                    yield Difference("weights", str(index), f"{where}, {one}: {words}")
            else:
                yield Difference("weights", str(index), f"{where}, {one}: other weights")
        for one, other in zip(self.first.outputs, self.second.outputs, strict=False):
            if None not in (one.source, other.source) and one.source != other.source:
                words = f"the output '{one.port.name}' is of {one.source}, and of {other.source} in the second"
                yield Difference("layers", one.port.name, words, (), (one.source,), (other.source,))
        if unknown:
            self.notes.append(f"the weights of {unknown[0]} are not known, so they were not compared")

    def _options(self, one: Layer, other: Layer, where: str) -> str | None:
        """How the options of two layers of the same kind differ, in words; None if they do not."""
        lists: list[str] = []
        scalar = False
        for name in {**one.options, **other.options}:
            if name not in one.options or name not in other.options:
                if name not in (*OPTIONS.get(one.kind, ()), *CONSTANTS.get(one.kind, ()), *STRUCTURE):
                    scalar = True  # an operator's: what is left out is the default
                elif name not in STRUCTURE:  # the weights are not known either, or say it
                    which = "second" if name in one.options else "first"
                    self.notes.append(
                        f"the {which} does not say the {name} of {where} ({one.kind}): it was not compared"
                    )
                continue
            a, b = one.options[name], other.options[name]
            if count := differing(a, b):
                if isinstance(a, tuple) or isinstance(b, tuple):
                    lists.append(f"another {name} of {count:,} feature{'' if count == 1 else 's'}")
                else:
                    scalar = True
        if not scalar and not lists:
            return None
        if scalar and str(one) != str(other):
            return f"{where} is {one}, and {other} in the second" + "".join(f"; {each}" for each in lists)
        return f"{where}, {one}: {'; '.join(lists)}"


def _rows(kind: str, one: Interface, other: Interface) -> Iterator[Difference]:
    """Rows of another shape, or numbers of another type."""
    shapes = [tuple(size if isinstance(size, int) else 1 for size in each.port.shape[1:]) for each in (one, other)]
    vectors = [each.port.shape for each in (one, other) if len(each.port.shape) == 1 and each.port.shape[0] != "batch"]
    if len(vectors) == 2:
        shapes = vectors
    for what, a, b in (("shape", *map(list, shapes)), ("type", one.port.dtype, other.port.dtype)):
        if a != b:
            words = f"{kind} '{one.port.name}': rows of the {what} {a}, and {b} in the second"
            yield Difference("features", one.port.name, words, first=(a,), second=(b,))


def _named(one: Layer, other: Layer) -> tuple[tuple[str], tuple[str]]:
    return (str(one),), (str(other),)


def _same_weights(ours: Sequence[Layer], theirs: Sequence[Layer], kind: str) -> bool:
    """Whether the first linear layers, or the last for an output, have the very same weights."""
    both = [[each for each in layers if each.kind == "linear"] for layers in (ours, theirs)]
    if not all(both):
        return False
    a, b = (layers[0 if kind == "input" else -1].digest for layers in both)
    return a is not None and a == b


def _weights(one: Layer, other: Layer) -> str | None:
    """How far the weights of two layers of the same kind are apart; None if they are equal."""
    if {role: values.shape for role, values in one.weights.items()} != {
        role: values.shape for role, values in other.weights.items()
    }:
        shapes = [[f"{role} {list(v.shape)}" for role, v in each.weights.items()] for each in (one, other)]
        names = (", ".join(each) or "no weights" for each in shapes)
        return "{}; in the second {}".format(*names)
    parts: list[str] = []
    for role, values in one.weights.items():
        differing = values != other.weights[role]
        if differing.any():
            apart = np.abs(values.astype(np.float64) - other.weights[role]).max()
            parts.append(f"{differing.sum():,} of {differing.size:,} values of {role} differ, by up to {apart:.3g}")
    return "; ".join(parts) or None


def _values(interface: Interface, one: Step, other: Step) -> Iterator[Difference]:
    """Constants of two steps of the same kind that differ."""
    width = interface.width or 1
    for role in DEFAULTS[one.kind]:
        a, b = one.value(role, width), other.value(role, width)
        if not len(differing := np.flatnonzero(a != b)):
            continue
        labels = [label(interface, index) for index in differing]
        pairs = [f"{label} {a[i]!s} and {b[i]!s}" for label, i in zip(labels, differing, strict=True)]
        called = CALLED.get(one.kind, one.kind)
        name = interface.port.name
        if len(differing) == width and width > 1 and len({*zip(a.tolist(), b.tolist(), strict=True)}) == 1:
            pairs = [f"every feature, {a[0]!s} and {b[0]!s}"]
        words = f"'{name}': another {role} of the {called} of {joined(pairs)}"
        values = (tuple(float(each) for each in array[differing]) for array in (a, b))
        yield Difference(called, name, words, tuple(labels), *values)
