"""What a file says of its network: its inputs and outputs as the spec declares them, its blocks, and remarks.

A spec goes into the file, and readers believe it: it must be the spec of the module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from builder import InputSpec, MLPSpec
from builder.block import modules_of
from builder.spec import FeatureSpec
from runtime import BlockSummary, Port, Summary
from runtime.version import VERSION

from .errors import ExportError
from .folding import block_name, blocks, is_foldable, multiply_adds
from .graph import Graph, Node, Shape, row_of
from .operators.movement import MOVES
from .trace import signature_of, trace
from .versions import Versions


def describe(
    name: str, traced: Graph, folded: Graph, spec: MLPSpec | None, versions: Versions, weights_hash: str, external: bool
) -> Summary:
    """The summary of a graph as it is exported, which was traced as ``traced``."""
    shapes, dtypes = folded.shapes, folded.dtypes
    sources = tuple(
        Port(source, _sizes(given.shape), dtype=given.dtype, indices=given.indices)
        for source, given in folded.inputs.items()
    )
    sinks = tuple(Port(sink, _sizes(shapes[v]), dtype=dtypes[v]) for sink, v in folded.outputs.items())
    if spec is not None:  # it has one of each
        sources, sinks = (declared_input(sources[0], spec.input),), (declared_output(sinks[0], spec),)
    return Summary(
        name=name,
        inputs=sources,
        outputs=sinks,
        blocks=tuple(_block(group, shapes) for group in blocks(folded.nodes)),
        opset=versions.opset,
        ir_version=versions.ir_version,
        target=versions.target,
        folded=folded.folded,
        remarks=_remarks(traced, folded),
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


def declared_input(port: Port, given: InputSpec) -> Port:
    """The port with the features, units and ranges that the spec gives it, and nothing else of its own."""
    limits = (given.range[0], given.range[1]) if given.range else None
    return replace(port, range=limits, **_features(given.listed))


def declared_output(port: Port, spec: MLPSpec) -> Port:
    """The port with the labels, or the features, units and ranges, that the spec gives it."""
    labels = tuple(spec.output.labels) if spec.output.labels else None
    scores = spec.scores if labels else None
    return replace(port, labels=labels, scores=scores, **_features(spec.output.listed))


def _features(listed: Sequence[FeatureSpec] | None) -> dict[str, Any]:
    units = tuple(feature.unit for feature in listed or ())
    ranges = tuple((feature.range[0], feature.range[1]) if feature.range else None for feature in listed or ())
    return {
        "features": tuple(feature.name for feature in listed) if listed else None,
        "units": units if any(units) else None,
        "ranges": ranges if any(ranges) else None,
    }


def _remarks(traced: Graph, folded: Graph) -> tuple[str, ...]:
    """What a user may want to know about a network that is otherwise right."""
    found = []
    producers = {node.output: node for node in folded.nodes}
    for node in folded.nodes:
        before = producers.get(node.inputs[0]) if node.inputs else None
        if before is not None and {before.op, node.op} == {"linear"} and folded.consumers(before.output) == 1:
            message = f"linear '{before.path}' and linear '{node.path}' stand in a row without an activation between"
            found.append(f"{message}: together they are one affine map (--fold-affine makes them one)")
    found += [f"{words} is not in the file: in evaluation mode it does nothing" for words in traced.inactive]
    if traced.rows_depend:
        found.append("a row's result depends on the rows beside it: batches are never cut or joined")
    sums = {node.output for node in folded.nodes if node.op in ("add", "sub") and len(node.inputs) == 2}
    if all(is_foldable(node) or node.op in (*MOVES, "_to_copy") or node.output in sums for node in folded.nodes):
        found.append("no activation at all: the whole network is one affine map")
    return tuple(found)


def refuse_another_network(graph: Graph, spec: MLPSpec) -> None:
    """Raise ExportError, naming the first difference, where the traced module is not the chain of ``spec``."""
    for wanted, found in _differences(graph, spec):
        message = f"the spec '{spec.name}' is not of this module: it says {wanted}, where the module is {found}"
        raise ExportError(message)


def _differences(graph: Graph, spec: MLPSpec) -> Iterator[tuple[str, str]]:
    """What the spec says, and what the module is instead; what comes after a first difference may follow from it.

    What the spec says is traced too, without its values, and the two are held against each other.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        yield "one input and one output", f"with {len(graph.inputs)} and {len(graph.outputs)}"
    with torch.device("meta"):
        said = nn.Sequential(*modules_of(spec.blocks, spec.input.row_shape)).eval()
    ones = {name: torch.ones(()).expand(tensor.shape) for name, tensor in said.state_dict().items()}
    said.load_state_dict(ones, assign=True)
    signature = signature_of(said, input_shape=spec.input.row_shape, input_dtype="float32")
    wanted = trace(said, signature, computing=False)
    places = dict(zip(wanted.inputs, graph.inputs, strict=True))
    for one, other in zip(wanted.nodes, graph.nodes, strict=False):
        name, found = block_name([one]), f"{block_name([other])} '{other.home}'"
        inputs = tuple(places.get(value) for value in one.inputs)
        if one.op != other.op or one.shape != other.shape or inputs != other.inputs:
            yield f"{name} to rows of shape {list(one.row)}", f"{found} to rows of shape {list(other.row)}"
        for option, value in one.attributes.items():
            held = other.attributes.get(option, value)
            if held != value and option not in ("training", "momentum"):
                yield f"{name} with {option} {value}", f"{found} with {held}"
        for role in ("weight", "bias"):
            if (role in one.tensors) != (role in other.tensors):
                yield f"{name} with {role} {role in one.tensors}", f"{found} with {role in other.tensors}"
        places[one.output] = other.output
    missing, more = wanted.nodes[len(graph.nodes) :], graph.nodes[len(wanted.nodes) :]
    if missing:
        yield block_name(missing[:1]), "at its end"
    if more:
        yield "nothing more", f"{block_name(more[:1])} '{more[0].home}'"
    if [places[value] for value in wanted.outputs.values()] != list(graph.outputs.values()):
        yield "the last block's output", f"'{next(iter(graph.outputs.values()))}'"
