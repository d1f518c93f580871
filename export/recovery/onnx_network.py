"""From an ONNX file of a dense network to its spec and weights: a chain of blocks, read from start to end."""

from __future__ import annotations

from math import prod
from pathlib import Path

from onnx import NodeProto
from pydantic import ValidationError

from builder.block import MAX_FEATURES as MOST
from builder.block import Shape
from builder.blocks import BLOCKS as SPECS
from builder.errors import RecoveryError, SpecError
from export.onnxfile.model import OF_SIZES, Model, label
from export.onnxfile.tensors import MOST_DIMENSIONS

from .onnx_checks import IN_WORDS, read_graph
from .onnx_operators import BLOCKS, MOVES, Place
from .onnx_patterns import find_spelling, spelling_operators
from .recovered import Recovered, Step, fitted_name, joined, network_of
from .row_layout import Layout, Unfit

_DEEPEST = 32
"""Residuals in residuals, more than any network has."""
_SUMS = ("Add", "Sum")


def read_onnx(path: str | Path, *, keep_shape: bool = False, name: str | None = None) -> Recovered:
    """The spec and the weights of the dense network in an ONNX file: float32, opset 7 or later.

    The module takes (batch, features), the entries of a row in their order; ``keep_shape`` keeps the file's shape of a
    row and flattens it first. ``name`` is the model's, by default the file's. No weight is changed or rounded, and
    nothing in the file is run.

    Raises RecoveryError: a missing, damaged or hostile file, or the first operator that is none of a dense network's.
    """
    path = Path(path)
    model, notes = read_graph(path, _known_operators())
    layout, row = _rows(model, notes)
    steps, after = _Chain(model, notes).read(layout)
    if not steps:
        raise RecoveryError(f"{path}: it gives its input back; there is no block in it")
    kept = keep_shape and len(row) > 1
    if kept:
        steps.insert(0, Step("flatten"))
    elif len(row) > 1:
        notes.append(f"the file takes rows of shape {list(row)}, and the network {prod(row)} features in their order")
    if not after.leading:
        raise RecoveryError(
            f"{path}: not a dense network: its output has the shape {after}; rows of a batch are expected"
        )
    if after.dims not in ((None, after.size), (1, after.size)):
        notes.append(f"the file gives {after}, and the network [batch, {after.size}]")
    source = {"name": model.inputs[0].name} | ({"shape": list(row)} if kept else {"features": prod(row)})
    try:
        name = fitted_name(path) if name is None else name
        spec, weights = network_of(steps, name, source, model.proto.graph.output[0].name)
    except SpecError as error:
        raise RecoveryError(f"{path}: what it computes is no spec: {error}") from None
    for key, value in weights.items():
        if not all(bound.isfinite() for bound in value.aminmax()):
            notes.append(f"{key} holds NaN or infinite values")
    return Recovered(spec, weights, tuple(notes), None if kept or len(row) == 1 else row)


def _rows(model: Model, notes: list[str]) -> tuple[Layout, Shape]:
    """How the input lies in rows, and the shape of one."""
    (source,) = model.inputs
    given = source.type.tensor_type.shape.dim
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in given)
    shown = ", ".join("?" if size is None else str(size) for size in dims)
    if not 1 <= len(dims) <= MOST_DIMENSIONS:
        message = f"the input '{source.name}' has {len(dims)} dimensions; rows of features are expected"
        raise RecoveryError(f"{model.path}: {message}")
    batch, row = (dims[0], dims[1:]) if len(dims) > 1 else (1, dims)
    fixed = tuple(size for size in row if size is not None and 0 < size <= MOST)
    if fixed != row or prod(fixed) > MOST:
        hint = "What to do: write the shape into the file, as with onnx.tools.update_model_dims"
        message = (
            f"the input '{source.name}' has the shape [{shown}]; sizes of 1 to {MOST:,} after the batch are expected"
        )
        raise RecoveryError(f"{model.path}: {message}. {hint}")
    if len(dims) == 1:
        notes.append("the file takes one row without a batch dimension, and the network a batch of rows")
        return Layout(fixed), fixed
    if batch == 1:
        # A single row, and whatever its dimensions do to each other, it stays one.
        notes.append("the file takes one row at a time, and the network a batch of any size")
        return Layout((1, *fixed)), fixed
    if batch is not None and batch > 1:
        notes.append(f"the file takes batches of {batch} rows, and the network a batch of any size")
    return Layout((None, *fixed), max(batch or 0, 0)), fixed


def _known_operators() -> frozenset[str]:
    """The operators that may stand in the file of a dense network."""
    return spelling_operators() | BLOCKS.keys() | MOVES.keys() | {*OF_SIZES, "Constant"}


class _Chain:
    """Reads the blocks of a file's graph. ``notes`` gets what was decided on the way, a line each."""

    def __init__(self, model: Model, notes: list[str]):
        self.model = model
        self.notes = notes
        self.path = model.path
        graph = model.proto.graph
        self.output = graph.output[0].name
        other = model.constants.keys() | model.shape_values
        self.nodes = [node for node in graph.node if node.output[0] not in other]
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.used: set[int] = set()

    def read(self, layout: Layout) -> tuple[list[Step], Layout]:
        """The blocks from the graph's input to its output, and the layout of the output.

        Raises RecoveryError naming the first operator that is none of a dense network's.
        """
        idle = next((node for node in self.nodes if not any(map(self._depends, node.input))), None)
        if idle is not None:
            raise self._unfit(idle, f"is a computation on constants alone (it reads {_read_by(idle)})")
        start = self.model.inputs[0].name
        if (self.output != start and self.output in self.model.constants) or not self.readers.get(start):
            raise RecoveryError(f"{self.path}: the output does not depend on the input, it is '{self.output}'")
        return self._between(start, self.output, layout, 0)

    def _depends(self, name: str) -> bool:
        return bool(name) and name not in self.model.constants

    def _between(self, start: str, end: str, layout: Layout, depth: int) -> tuple[list[Step], Layout]:
        steps: list[Step] = []
        value = start
        while readers := [node for node in self.readers.get(value, ()) if id(node) not in self.used]:
            read, value, layout = self._next(readers, value, layout, depth)
            steps += read
        if value != end:
            where = f"'{value}' is read by no further operator, and '{end}' does not follow from it"
            raise RecoveryError(f"{self.path}: not a dense network: {where}")
        return joined(steps), layout

    def _next(self, readers: list[NodeProto], value: str, layout: Layout, depth: int) -> tuple[list[Step], str, Layout]:
        """The blocks that all of a value's readers are part of, the value that they give, and its layout."""
        node = readers[0]
        try:
            if len(readers) == 1 and node.op_type in MOVES and self._alone(node):
                nodes, steps = (node,), list[Step]()
                layout = MOVES[node.op_type](Place(self.model, node, value, layout, self.notes))
            elif (spelling := find_spelling(self.model, value, layout, self.used)) is not None:
                nodes, node = spelling.nodes, spelling.nodes[-1]
                steps, layout = spelling.read(self.model, layout)
            elif len(readers) == 1 and node.op_type in BLOCKS and self._alone(node):
                nodes = (node,)
                steps, layout = BLOCKS[node.op_type](Place(self.model, node, value, layout, self.notes))
            else:
                node = self._sum(readers, value)
                nodes = (node,)
                self.used.add(id(node))
                steps, layout = self._residual(node, value, layout, depth)
            for step in steps:
                _check(step)
        except Unfit as reason:
            raise self._unfit(node, str(reason)) from None
        self.used |= {id(each) for each in nodes}
        return steps, node.output[0], layout

    def _alone(self, node: NodeProto) -> bool:
        """Whether an operator reads one value of the network once."""
        return sum(map(self._depends, node.input)) == 1 or node.op_type in ("Gemm", "Clip", "Reshape")

    def _sum(self, readers: list[NodeProto], value: str) -> NodeProto:
        """The sum that ends a residual. Raises RecoveryError: there is none, naming what is no part of a block."""
        sums = [node for node in readers if node.op_type in _SUMS and sum(map(self._depends, node.input)) == 2]
        if sums:
            return sums[-1]
        if len(readers) == 1:
            raise self._unknown(readers[0])
        reached = {value}
        for node in self.nodes:
            if id(node) not in self.used and reached.intersection(node.input):
                reached.update(node.output)
                if sum(map(self._depends, node.input)) > 1:
                    raise self._unknown(node)
        raise self._unknown(readers[0])

    def _residual(self, node: NodeProto, value: str, layout: Layout, depth: int) -> tuple[list[Step], Layout]:
        if depth == _DEEPEST:
            raise RecoveryError(f"{self.path}: {label(node)} is in more than {_DEEPEST} residual sums in each other")
        other = node.input[1] if node.input[0] == value else node.input[0]
        inner, after = self._between(value, other, layout, depth + 1)
        rank = max(len(layout.dims), len(after.dims))
        if layout.padded(rank) != after.padded(rank):
            raise Unfit(f"adds values of shapes {layout} and {after}; they must be equal")
        return [Step("residual", blocks=tuple(inner) or (Step("identity"),))], after.padded(rank)

    def _unfit(self, node: NodeProto, reason: str) -> RecoveryError:
        return RecoveryError(f"{self.path}: not a dense network: {label(node)} {reason}")

    def _unknown(self, node: NodeProto) -> RecoveryError:
        dependent = sum(map(self._depends, node.input))
        computed = [name for name in node.input[1:] if self._depends(name)]
        words = IN_WORDS.get(node.op_type, "in a place where no block has it")
        if dependent > 1 and node.op_type in _SUMS:
            words = "a sum of two branches, and neither ends where the other starts"
        elif dependent > 1 and node.op_type in ("MatMul", "Mul", "Div"):
            words = "a product or quotient of two values that both depend on the input"
        elif dependent > 1 and node.op_type in ("Gemm", "Clip"):
            words = f"given '{computed[-1]}', which is no constant"
        return self._unfit(node, f"is {words} (it reads {_read_by(node)})")


def _read_by(node: NodeProto) -> str:
    return ", ".join(f"'{name}'" for name in node.input if name) or "nothing"


def _check(step: Step) -> None:
    """Whether a block takes the options. Raises Unfit."""
    if step.options:
        try:
            SPECS[step.kind](**step.options)
        except ValidationError as error:
            (first, *_) = error.errors(include_url=False)
            option = ".".join(map(str, first["loc"]))
            raise Unfit(f"has an option that {step.kind} does not take: {option} {first['msg']}") from None
