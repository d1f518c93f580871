"""The spec and the weights of a dense network in an ONNX file: a chain of blocks, read from the input to the output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from onnx import NodeProto
from torch import nn

from builder.block import MAX_FEATURES, Shape
from builder.errors import RecoveryError
from export.onnxfile.model import Model, label
from export.onnxfile.shapes import OF_SIZES
from export.onnxfile.tensors import MOST_DIMENSIONS

from .of_spec import is_of_several, read_of_spec
from .onnx_checks import FOREIGN_OPERATORS, parsed, read_graph
from .onnx_operators import ONNX_BLOCKS, SHAPE_CHANGES, Operation
from .onnx_patterns import find_block, pattern_operators
from .output_cut import SELECT, computed, cut, selecting
from .recovered import NotABlock, Recovered, Step, joined, network_of, refusals_of
from .row_form import RowForm, in_row_form
from .row_layout import Layout

_MAX_DEPTH = 32
"""Of residuals within residuals; more than any network has."""
_SUMS = ("Add", "Sum")


_IMPUTING = ("IsNaN", "Where")
"""The operators of an impute."""


@dataclass(frozen=True)
class OnnxNetwork:
    """The network in an ONNX file, and what is needed to prove that it is."""

    recovered: Recovered
    uncut: nn.Sequential | None = None
    """What the file computes, where the network computes only the features that the file keeps."""
    form: RowForm | None = None
    """The file in the form in which it was read, where that is another."""
    rounded: bool = False
    """Whether the file holds float64 numbers, which the network has rounded to float32."""
    unproved: str = ""
    """Why the file is compared with the network on rows, and not proved to be it."""


def read_onnx(
    path: str | Path, *, keep_shape: bool = False, name: str | None = None, dtype: str | None = None
) -> Recovered:
    """The spec and the weights of the dense network in an ONNX file: float32, opset 7 or later.

    The module takes (batch, features), the entries of a row in their order; ``keep_shape`` keeps the file's shape of a
    row and flattens it first. ``name`` is the model's, by default the file's. No weight is changed or rounded, unless
    ``dtype="float32"`` allows it for a file of float64, and nothing in the file is run.

    A file of several inputs, or of words, has the network of the spec that it carries, with the weights of the file.

    Raises RecoveryError: a missing, damaged or hostile file, or the first operator that is not one of a dense network.

    Examples:
        >>> from export import read_onnx
        >>> read_onnx("comfort.onnx").weights["1.weight"].shape
        torch.Size([8, 2])
    """
    return read_onnx_network(path, keep_shape=keep_shape, name=name, dtype=dtype).recovered


def read_onnx_network(
    path: str | Path, *, keep_shape: bool = False, name: str | None = None, dtype: str | None = None
) -> OnnxNetwork:
    """As ``read_onnx``, with what the proof of the file needs."""
    path = Path(path)
    with refusals_of(path):
        known = pattern_operators() | ONNX_BLOCKS.keys() | SHAPE_CHANGES.keys()
        known |= {*OF_SIZES, *_IMPUTING, "Constant", "Split"}
        if dtype not in (None, "float32"):
            raise RecoveryError(f"dtype is 'float32' or left out, not {dtype!r}")
        proto = parsed(path)
        if is_of_several(proto):
            return OnnxNetwork(read_of_spec(path, proto, name))
        file, notes = read_graph(path, proto, known, rounding=dtype is not None)
        layout, row = _input_layout(file, notes)
        try:
            form = in_row_form(file)
        except NotABlock as reason:
            raise RecoveryError(f"not a dense network: {reason}") from None
        model = form.model if form is not None else file
        if form is not None and form.one_row:
            layout = Layout((1, prod(row)))
        steps, after = _ChainReader(model, notes).read(layout)
        if not steps:
            raise RecoveryError("it returns its input; there is no block in it")
        kept = keep_shape and len(row) > 1
        if kept:
            steps.insert(0, Step("flatten"))
        elif len(row) > 1:
            size = prod(row)
            notes.append(f"the file takes rows of shape {list(row)}, and the network {size} features in their order")
        if not after.leading:
            message = f"its output has the shape {after}; rows of a batch are expected"
            raise RecoveryError(f"not a dense network: {message}")
        if after.dims not in ((None, after.size), (1, after.size)):
            notes.append(f"the file gives {after}, and the network [batch, {after.size}]")
        source = {"name": model.inputs[0].name} | ({"shape": list(row)} if kept else {"features": prod(row)})
        flattened = None if kept or len(row) == 1 else row
        output = {"name": file.proto.graph.output[0].name}
        try:
            blocks = cut(steps)
        except NotABlock as reason:
            raise RecoveryError(f"not a dense network: an operator {reason}") from None
        recovered = network_of(blocks, path, name, source, output, notes, flattened)
        not_finite = [key for key, value in recovered.weights.items() if not value.isfinite().all()]
        further = [f"{key} holds NaN or infinite values" for key in not_finite]
        further += [
            f"the file gives the features {step.options[0]} to {step.options[1] - 1} of what it computes, and the"
            " network computes these alone"
            for step in steps
            if step.kind == SELECT
        ]
        recovered = replace(recovered, notes=(*recovered.notes, *further))
        uncut = computed(steps, path, prod(row)) if len(blocks) < len(steps) else None
        unproved = ""
        if any(node.op_type == "Softsign" for node in model.nodes):
            unproved = "the file has the operator Softsign, whose kernels compute x / (1 + |x|) in ways no rule bounds"
        if dtype is not None:
            unproved = "the file computes in float64, and the network in float32 with rounded weights"
        return OnnxNetwork(recovered, uncut, form, dtype is not None, unproved)


def _input_layout(model: Model, notes: list[str]) -> tuple[Layout, Shape]:
    """The layout of the input, and the shape of one row."""
    (source,) = model.inputs
    shape = source.type.tensor_type.shape.dim
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in shape)
    if not 1 <= len(dims) <= MOST_DIMENSIONS:
        raise RecoveryError(f"the input '{source.name}' has {len(dims)} dimensions; rows of features are expected")
    batch, row = (dims[0], dims[1:]) if len(dims) > 1 else (1, dims)
    fixed = tuple(size for size in row if size is not None and 0 < size <= MAX_FEATURES)
    if fixed != row or prod(fixed) > MAX_FEATURES:
        shown = ", ".join("?" if size is None else str(size) for size in dims)
        message = f"the input '{source.name}' has the shape [{shown}]"
        expected = f"sizes of 1 to {MAX_FEATURES:,} after the batch are expected"
        hint = "What to do: write the shape into the file, as with onnx.tools.update_model_dims"
        raise RecoveryError(f"{message}; {expected}. {hint}")
    if len(dims) == 1:
        notes.append("the file takes one row without a batch dimension, and the network a batch of rows")
        return Layout(fixed), fixed
    if batch == 1:
        # A single row stays one, whatever is done to its dimensions.
        notes.append("the file takes one row at a time, and the network a batch of any size")
        return Layout((1, *fixed)), fixed
    if batch is not None and batch > 1:
        notes.append(f"the file takes batches of {batch} rows, and the network a batch of any size")
    return Layout((None, *fixed), max(batch or 0, 0)), fixed


class _ChainReader:
    """Reads the blocks of a file's graph. ``notes`` gets the decisions that are made, a line each."""

    def __init__(self, model: Model, notes: list[str]):
        self.model = model
        self.notes = notes
        graph = model.proto.graph
        self.output = graph.output[0].name
        other = model.constants.keys() | model.shape_operands
        self.nodes = [node for node in graph.node if node.output[0] not in other]
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.used: set[int] = set()

    def read(self, layout: Layout) -> tuple[list[Step], Layout]:
        """The blocks from the graph's input to its output, and the layout of the output.

        Raises RecoveryError naming the first operator that is not one of a dense network.
        """
        constant = next((node for node in self.nodes if not any(map(self._depends, node.input))), None)
        if constant is not None:
            raise _refused(constant, f"computes with constants alone (it reads {_format_inputs(constant)})")
        start = self.model.inputs[0].name
        if (self.output != start and self.output in self.model.constants) or not self.readers.get(start):
            raise RecoveryError(f"the output '{self.output}' does not depend on the input")
        return self._between(start, self.output, layout, 0)

    def _depends(self, name: str) -> bool:
        return bool(name) and name not in self.model.constants

    def _values(self, node: NodeProto) -> int:
        """How many inputs of an operator depend on the network's input."""
        return sum(map(self._depends, node.input))

    def _between(self, value: str, end: str, layout: Layout, depth: int) -> tuple[list[Step], Layout]:
        steps: list[Step] = []
        while readers := [node for node in self.readers.get(value, ()) if id(node) not in self.used]:
            following, value, layout = self._next(readers, value, layout, depth)
            steps += following
        if value != end:
            message = f"no further operator reads '{value}', and '{end}' does not follow from it"
            raise RecoveryError(f"not a dense network: {message}")
        return joined(steps), layout

    def _next(self, readers: list[NodeProto], value: str, layout: Layout, depth: int) -> tuple[list[Step], str, Layout]:
        """The blocks that all of a value's readers are part of, their result, and its layout."""
        node = readers[0]
        single = len(readers) == 1 and (self._values(node) == 1 or node.op_type in ("Gemm", "Clip", "Reshape"))
        operation = Operation(self.model, node, value, layout, self.notes)
        try:
            if single and node.op_type in SHAPE_CHANGES:
                nodes, steps = (node,), list[Step]()
                layout = SHAPE_CHANGES[node.op_type](operation)
            elif single and node.op_type == "Slice" and depth == 0:
                nodes, (steps, layout) = (node,), _selected(operation)
            elif (imputing := self._imputing(readers, value)) is not None:
                nodes, node = imputing, imputing[-1]
                values, layout = layout.per_feature(self.model.constants[node.input[1]], "what stands for NaN")
                steps = [Step("impute", {"value": values})]
            elif (match := find_block(self.model, value, layout, self.used)) is not None:
                nodes, node = match.operators, match.operators[-1]
                steps, layout = match.read(self.model, layout)
            elif single and node.op_type in ONNX_BLOCKS:
                nodes = (node,)
                steps, layout = ONNX_BLOCKS[node.op_type](operation)
            else:
                node = self._sum(readers, value)
                nodes = (node,)
                self.used.add(id(node))
                steps, layout = self._residual(node, value, layout, depth)
            for step in steps:
                if step.kind != SELECT:
                    step.check()
        except NotABlock as reason:
            raise _refused(node, str(reason)) from None
        self.used |= {id(reader) for reader in nodes}
        return steps, node.output[0], layout

    def _imputing(self, readers: list[NodeProto], value: str) -> tuple[NodeProto, NodeProto] | None:
        """The IsNaN and the Where of an impute, if these two are all that read the value."""
        by_type = {node.op_type: node for node in readers}
        if len(readers) != 2 or by_type.keys() != {*_IMPUTING}:
            return None
        test, choice = (by_type[name] for name in _IMPUTING)
        chooses = list(choice.input[::2]) == [test.output[0], value] and not self._depends(choice.input[1])
        return (test, choice) if chooses and len(self.readers[test.output[0]]) == 1 else None

    def _sum(self, readers: list[NodeProto], value: str) -> NodeProto:
        """The sum that ends a residual. Raises RecoveryError naming the first operator that is not part of a block."""
        sums = [node for node in readers if node.op_type in _SUMS and self._values(node) == len(node.input) == 2]
        if sums:
            return sums[-1]
        if len(readers) > 1:
            reached = {value}
            for node in self.nodes:
                if id(node) not in self.used and reached.intersection(node.input):
                    reached.update(node.output)
                    if self._values(node) > 1:
                        raise self._unknown(node)
        raise self._unknown(readers[0])

    def _residual(self, node: NodeProto, value: str, layout: Layout, depth: int) -> tuple[list[Step], Layout]:
        if depth == _MAX_DEPTH:
            raise RecoveryError(f"{label(node)} is nested in more than {_MAX_DEPTH} residual sums")
        other = node.input[1] if node.input[0] == value else node.input[0]
        inner, after = self._between(value, other, layout, depth + 1)
        rank = max(len(layout.dims), len(after.dims))
        if layout.padded(rank) != after.padded(rank):
            raise NotABlock(f"adds values of shapes {layout} and {after}; they must be equal")
        return [Step("residual", blocks=tuple(inner) or (Step("identity"),))], after.padded(rank)

    def _unknown(self, node: NodeProto) -> RecoveryError:
        several = self._values(node) > 1
        kind = FOREIGN_OPERATORS.get(node.op_type, "in a combination that no block has")
        if several and node.op_type in _SUMS and len(node.input) > 2:
            kind = "a sum of more than two operands"
        elif several and node.op_type in _SUMS:
            kind = "a sum of two branches, and neither ends where the other starts"
        elif several and node.op_type in ("MatMul", "Mul", "Div"):
            kind = "a product or quotient of two values that both depend on the input"
        elif several and node.op_type in ("Gemm", "Clip"):
            computed = [name for name in node.input[1:] if self._depends(name)]
            kind = f"given '{computed[-1]}', which is not a constant"
        return _refused(node, f"is {kind} (it reads {_format_inputs(node)})")


def _selected(operation: Operation) -> tuple[list[Step], Layout]:
    """The step of a Slice in the row form: neighbours among the features. Raises NotABlock."""
    numbers = [operation.integers(name, index) for index, name in enumerate(("starts", "ends", "axes"), 1)]
    start, end, axis = (each[0] if each is not None and len(each) == 1 else -1 for each in numbers)
    first, size = operation.layout.dims[:1], operation.layout.size
    if operation.layout.dims != (*first, size) or axis != 1 or not 0 <= start < end <= size:
        raise NotABlock(f"is {FOREIGN_OPERATORS['Slice']} of {operation.layout}")
    return [selecting(start, end)], replace(operation.layout, dims=(*first, end - start))


def _refused(node: NodeProto, reason: str) -> RecoveryError:
    return RecoveryError(f"not a dense network: {label(node)} {reason}")


def _format_inputs(node: NodeProto) -> str:
    return ", ".join(f"'{name}'" for name in node.input if name) or "nothing"
