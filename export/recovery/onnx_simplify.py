"""The graph in fewer spellings: what inference sees through goes, and options stand in one place in every opset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from builder.errors import RecoveryError

from .onnx_graph import Attribute, OnnxGraph, Operator
from .onnx_layout import Layout, Unfit

_INPUTS = {"Clip": ("", "min", "max"), "Gemm": ("", "", "")}
"""Operators that are given all their inputs, "" where there is none; an attribute becomes the input of its name."""
_AXES = ("ReduceMean", "ReduceSum", "ReduceMax", "Squeeze", "Unsqueeze")
"""Operators whose axes are an attribute in one opset and a constant input in another."""
_OTHER_NAMES = {"Sum": "Add"}
SEEN_THROUGH = frozenset({"Constant", "Identity", "Dropout", "Cast", "Sum"})
"""Operators that are read here."""
_NUMBERS = {
    TensorProto.FLOAT: "<f4",
    TensorProto.DOUBLE: "<f8",
    TensorProto.INT64: "<i8",
    TensorProto.INT32: "<i4",
}


def simplify(graph: OnnxGraph) -> OnnxGraph:
    """The same graph without Identity, Dropout and what only moves constants, and without what its output ignores.

    Raises RecoveryError: a Dropout that drops in inference, or a conversion to another type of number.
    """
    pass_ = _Pass(graph)
    operators = [kept for operator in graph.operators if (kept := pass_.read(operator)) is not None]
    output = pass_.names.get(graph.output, graph.output)
    live = _live(operators, output)
    notes = list(graph.notes)
    if pass_.dropouts:
        notes.append(f"{pass_.dropouts} Dropout left out: it does nothing in inference")
    if len(live) < len(operators):
        kept = {id(operator) for operator in live}
        gone = next(operator for operator in operators if id(operator) not in kept)
        notes.append(f"{len(operators) - len(live)} operators that the output does not depend on left out: {gone}, ...")
    return replace(graph, operators=tuple(live), constants=pass_.constants, output=output, notes=tuple(notes))


class _Pass:
    def __init__(self, graph: OnnxGraph):
        self.graph = graph
        self.constants = dict(graph.constants)
        self.names: dict[str, str] = {}
        self.dropouts = 0

    def read(self, operator: Operator) -> Operator | None:
        """The operator in the usual spelling, None where it gives its input or a constant."""
        operator = replace(operator, inputs=tuple(self.names.get(name, name) for name in operator.inputs))
        operator = self._in_one_spelling(operator)
        source = operator.inputs[0] if operator.inputs else ""
        if operator.kind == "Dropout":
            self._refuse_training(operator)
            self.dropouts += 1
        if source in self.constants and operator.kind in _MOVES:
            try:
                value = _MOVES[operator.kind](operator, self.constants)
            except Unfit as reason:
                raise RecoveryError(f"{self.graph.path}: {operator} {reason}") from None
            if value is not None:
                self.constants[operator.outputs[0]] = value
                return None
        value = _computed(operator, self.constants)
        if value is not None:
            self.constants[operator.outputs[0]] = value
            return None
        to_float = operator.kind == "Cast" and operator.attributes.get("to") == TensorProto.FLOAT
        if operator.kind in ("Identity", "Dropout") or to_float:
            # What is not constant is float32 here: the input is, and no other type is let in.
            self.names[operator.outputs[0]] = source
            return None
        return operator

    def _in_one_spelling(self, operator: Operator) -> Operator:
        kind = _OTHER_NAMES.get(operator.kind, operator.kind)
        inputs, attributes = list(operator.inputs), dict(operator.attributes)
        if kind in _INPUTS:
            inputs += [""] * (len(_INPUTS[kind]) - len(inputs))
            for i, name in enumerate(_INPUTS[kind]):
                if name in attributes and not inputs[i]:
                    inputs[i] = self._unused(f"{operator.outputs[0]}, its {name}")
                    self.constants[inputs[i]] = np.asarray(attributes[name], "<f4")
        if kind in _AXES and len(inputs) == 2:
            axes = self.constants.get(inputs.pop())
            if axes is None or axes.dtype.kind != "i":
                raise RecoveryError(f"{self.graph.path}: {operator} takes its axes from no constant of integers")
            attributes["axes"] = tuple(axes.reshape(-1).tolist())
        return replace(operator, kind=kind, inputs=tuple(inputs), attributes=attributes)

    def _unused(self, name: str) -> str:
        while name in self.constants or name in self.graph.places:
            name += "'"
        return name

    def _refuse_training(self, operator: Operator) -> None:
        training = self.constants.get(operator.inputs[2]) if len(operator.inputs) > 2 and operator.inputs[2] else None
        unknown = len(operator.inputs) > 2 and bool(operator.inputs[2]) and training is None
        if unknown or (training is not None and training.any()):
            hint = "What to do: export the network in evaluation mode"
            raise RecoveryError(f"{self.graph.path}: {operator} drops entries in inference too. {hint}")


def _live(operators: list[Operator], output: str) -> list[Operator]:
    needed, kept = {output}, []
    for operator in reversed(operators):
        if needed.intersection(operator.outputs):
            needed.update(operator.inputs)
            kept.append(operator)
    return kept[::-1]


def _layout(value: np.ndarray) -> Layout:
    return Layout(value.shape)


def _reshape(operator: Operator, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    value, wanted = constants[operator.inputs[0]], constants.get(operator.inputs[1])
    if wanted is None or wanted.dtype.kind != "i" or operator.attributes.get("allowzero"):
        return None
    return value.reshape(_sizes(_layout(value).reshaped(tuple(wanted.reshape(-1).tolist()))))


def _transpose(operator: Operator, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    value, order = constants[operator.inputs[0]], operator.integers("perm")
    if order is not None and sorted(order) != list(range(value.ndim)):
        raise Unfit(f"puts the axes of a constant of shape {list(value.shape)} in the order {list(order)}")
    return value.transpose(order)


def _cast(operator: Operator, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    to = _number(operator.attributes.get("to"))
    with np.errstate(all="ignore"):
        return constants[operator.inputs[0]].astype(to) if to else None


def _number(to: Attribute | None) -> str | None:
    return _NUMBERS.get(to) if isinstance(to, int) else None  # type: ignore[arg-type]


def _squeeze(operator: Operator, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    value = constants[operator.inputs[0]]
    return value.reshape(_sizes(_layout(value).squeezed(operator.integers("axes"))))


def _unsqueeze(operator: Operator, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    value = constants[operator.inputs[0]]
    return value.reshape(_sizes(_layout(value).unsqueezed(operator.integers("axes") or ())))


def _sizes(layout: Layout) -> tuple[int, ...]:
    return tuple(size for size in layout.dims if size is not None)


def _computed(operator: Operator, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The value of an operator that reads nothing but float32 constants, rounded as a runtime rounds it."""
    compute = _COMPUTED.get(operator.kind)
    given = [constants.get(name) for name in operator.inputs if name]
    if compute is None or not given or any(value is None or value.dtype != np.float32 for value in given):
        return None
    with np.errstate(all="ignore"):
        try:
            return np.asarray(compute(operator, constants), np.float32)
        except (ValueError, TypeError):  # constants that do not fit each other, or a missing input
            return None


def _elementwise(function: Callable[..., np.ndarray]) -> Callable[[Operator, Mapping[str, np.ndarray]], np.ndarray]:
    return lambda operator, constants: function(*(constants[name] for name in operator.inputs))


def _clipped(operator: Operator, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    value, low, high = (constants.get(name) for name in operator.inputs)
    return np.clip(np.asarray(value), low, high)


_COMPUTED: dict[str, Callable[[Operator, Mapping[str, np.ndarray]], np.ndarray]] = {
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(np.divide),
    "Max": _elementwise(np.maximum),
    "Min": _elementwise(np.minimum),
    "Sqrt": _elementwise(np.sqrt),
    "Abs": _elementwise(np.abs),
    "Neg": _elementwise(np.negative),
    "Reciprocal": _elementwise(lambda x: np.float32(1) / x),
    "Clip": _clipped,
}
"""What computes the entries of a constant with one rounding at most, such as the root of a normaliser's variance."""

_MOVES: dict[str, Callable[[Operator, Mapping[str, np.ndarray]], np.ndarray | None]] = {
    "Identity": lambda operator, constants: constants[operator.inputs[0]],
    "Dropout": lambda operator, constants: constants[operator.inputs[0]],
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
}
"""What moves the entries of a constant and computes nothing."""
