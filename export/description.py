"""The summary that a file has of its network: inputs and outputs as the spec declares them, blocks, and remarks.

A spec goes into the file, and readers rely on it, so it is checked against the module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from builder import MLPSpec
from builder.assembly import network_of
from runtime import BlockSummary, Port, Summary
from runtime.version import VERSION

from .declarations import Said, declared, refuse_misfits, with_scores
from .errors import ExportError
from .folding import block_name, blocks, is_foldable, multiply_adds
from .graph import Graph, Node, Shape, row_of
from .operators.movement import MOVES
from .trace import signature_of, trace
from .versions import Versions


def describe(
    name: str,
    traced: Graph,
    folded: Graph,
    spec: MLPSpec | None,
    said: Said,
    versions: Versions,
    weights_hash: str,
    external: bool,
) -> Summary:
    """The summary of the graph ``folded``, which was ``traced`` before passes changed it; ``said`` is of its ports.

    Raises ExportError: what is said does not fit the network.
    """
    shapes, dtypes = folded.shapes, folded.dtypes
    inputs = tuple(
        Port(name, _sizes(port.shape), dtype=port.dtype, indices=port.indices) for name, port in folded.inputs.items()
    )
    outputs = tuple(Port(name, _sizes(shapes[value]), dtype=dtypes[value]) for name, value in folded.outputs.items())
    said = with_scores(said, traced)
    refuse_misfits(said, inputs, outputs)
    inputs, outputs = (tuple(declared(port, said) for port in each) for each in (inputs, outputs))
    return Summary(
        name=name,
        inputs=inputs,
        outputs=outputs,
        blocks=tuple(_block(group, shapes) for group in blocks(folded.nodes)),
        opset=versions.opset,
        ir_version=versions.ir_version,
        target=versions.target,
        folded=folded.folded,
        remarks=_remarks(traced, folded, spec),
        weights_sha256=weights_hash,
        external_data=external,
        spec=spec.model_dump(exclude_none=True) if spec is not None else None,
        mlpx_version=VERSION,
        rows_depend=folded.rows_depend,
    )


def _sizes(shape: Shape) -> tuple[int | str, ...]:
    return tuple(size if isinstance(size, int) else str(size) for size in shape)


def _block(group: Sequence[Node], shapes: Mapping[str, Shape]) -> BlockSummary:
    before = next((shapes[name] for node in group for name in node.inputs), None)
    return BlockSummary(
        path=group[0].home,
        op=block_name(group),
        input_shape=None if before is None else row_of(before),
        output_shape=group[-1].row,
        parameters=sum(tensor.values.size for node in group for tensor in node.tensors.values()),
        multiply_adds=multiply_adds(group),
    )


def _remarks(traced: Graph, folded: Graph, spec: MLPSpec | None) -> tuple[str, ...]:
    """What a user may want to know about a network that is exported correctly."""
    remarks: list[str] = []
    producers = {node.output: node for node in folded.nodes}
    for node in folded.nodes:
        before = producers.get(node.inputs[0]) if node.inputs else None
        if before is not None and {before.op, node.op} == {"linear"} and folded.consumers(before.output) == 1:
            message = f"linear '{before.path}' and linear '{node.path}' stand in a row without an activation between"
            remarks.append(f"{message}: together they are one affine map (--fold-affine makes them one)")
    for path, p in traced.inactive:
        known = "" if spec is not None else f" (p {p:g})"  # a spec in the file says it
        remarks.append(f"dropout '{path}'{known} is not in the file: in evaluation mode it does nothing")
    if traced.rows_depend:
        remarks.append("a row's result depends on the rows beside it: batches are never cut or joined")
    sums = {node.output for node in folded.nodes if node.op in ("add", "sub") and len(node.inputs) == 2}
    if all(is_foldable(node) or node.op in (*MOVES, "_to_copy") or node.output in sums for node in folded.nodes):
        remarks.append("no activation at all: the whole network is one affine map")
    return tuple(remarks)


def refuse_another_network(graph: Graph, spec: MLPSpec) -> None:
    """Raise ExportError, naming the first difference, where the traced module is not the chain of ``spec``."""
    difference = next(_differences(graph, spec), None)
    if difference is not None:
        in_spec, in_module = difference
        message = f"the spec '{spec.name}' is not of this module: it says {in_spec}, where the module is {in_module}"
        raise ExportError(message)


def _differences(graph: Graph, spec: MLPSpec) -> Iterator[tuple[str, str]]:
    """What the spec says, and what the module is instead; differences after the first may follow from it.

    The spec's own module is traced too, without computing its values, and the two graphs are compared.
    """
    count = {1: "one input"}.get(len(spec.inputs), f"{len(spec.inputs)} inputs")
    if len(graph.inputs) != len(spec.inputs) or len(graph.outputs) != 1:
        yield f"{count} and one output", f"with {len(graph.inputs)} and {len(graph.outputs)}"
    expected = _graph_of(spec)
    values = dict(zip(expected.inputs, graph.inputs, strict=True))
    for name, port in expected.inputs.items():
        own = graph.inputs[values[name]]
        if (own.row, own.dtype) != (port.row, port.dtype):
            rows = (f"rows of {list(each.row)}, {each.dtype}" for each in (port, own))
            said, found = (f"an input '{name}' with {row}" for row in rows)
            yield said, found
    for node, own in zip(expected.nodes, graph.nodes, strict=False):
        block, own_block = block_name([node]), f"{block_name([own])} '{own.home}'"
        inputs = tuple(values.get(value) for value in node.inputs)
        if node.op != own.op or node.shape != own.shape or inputs != own.inputs:
            yield f"{block} to rows of shape {list(node.row)}", f"{own_block} to rows of shape {list(own.row)}"
        for option, value in node.attributes.items():
            own_value = own.attributes.get(option, value)
            if own_value != value and option not in ("training", "momentum"):
                yield f"{block} with {option} {value}", f"{own_block} with {own_value}"
        for role in ("weight", "bias"):
            if (role in node.tensors) != (role in own.tensors):
                yield f"{block} with {role} {role in node.tensors}", f"{own_block} with {role in own.tensors}"
        if node.op in ("maximum", "minimum") and node.tensors:  # the limits of a clip, which are the spec's
            limits, own_limits = ([list(map(float, t.values.flat)) for t in n.tensors.values()] for n in (node, own))
            if limits != own_limits:
                yield f"{block} with limits {limits[0]}", f"{own_block} with {own_limits[0] if own_limits else 'none'}"
        values[node.output] = own.output
    missing, surplus = expected.nodes[len(graph.nodes) :], graph.nodes[len(expected.nodes) :]
    if missing:
        yield block_name(missing[:1]), "at its end"
    if surplus:
        yield "nothing more", f"{block_name(surplus[:1])} '{surplus[0].home}'"
    if [values[value] for value in expected.outputs.values()] != list(graph.outputs.values()):
        yield "the last block's output", f"'{next(iter(graph.outputs.values()))}'"


def _graph_of(spec: MLPSpec) -> Graph:
    """The operators of the spec's own module, whose weights have shapes and no values."""
    with torch.device("meta"):
        module = network_of(spec).eval()
    ones = {name: torch.ones(()).expand(tensor.shape) for name, tensor in module.state_dict().items()}
    module.load_state_dict(ones, assign=True)
    for part in module.modules():
        for name, values in part.named_buffers(recurse=False):
            if values.is_meta:  # is in no state dict
                part.register_buffer(name, torch.ones(()).expand(values.shape), persistent=False)
    shapes = {port.name: port.row_shape for port in spec.inputs}
    dtypes = {port.name: port.dtype for port in spec.inputs}
    signature = signature_of(module, input_shape=shapes, input_dtype=dtypes, input_name=tuple(shapes))
    return trace(module, signature, computing=False)
