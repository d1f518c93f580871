"""Exporting a module to an ONNX file: a copy is traced, its graph folded and lowered to ONNX operators."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper
from torch import nn

from builder import MLPSpec
from runtime import through_link

from .artifact import Artifact, check, is_external, weights_hashing, write
from .declarations import FeaturesArgument, Said, ports_said, said_by, said_of
from .description import describe, refuse_another_network
from .emitter import Emitter
from .errors import ExportError
from .folding import fold
from .graph import ELEMENT_TYPES, Graph, Shape, rewired
from .operators import OPERATORS
from .trace import named_inputs, signature_of, trace
from .trace.isolation import computed_weights, is_plain, without_exit
from .trace.signature import Example
from .versions import Versions, choose_versions

_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


def export(
    module: nn.Module,
    path: str | Path,
    *,
    spec: MLPSpec | None = None,
    features: FeaturesArgument | None = None,
    name: str | None = None,
    example: Example | None = None,
    input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None,
    input_dtype: str | Mapping[str, str] | None = None,
    input_name: str | Sequence[str] = (),
    output_name: str | Sequence[str] = (),
    method: str = "forward",
    fold_affine: bool = False,
    dtype: str | None = None,
    external_data: bool | None = None,
    opset: int | None = None,
    ir_version: int | None = None,
    target: str | None = None,
) -> Artifact:
    """Write ``module``, as it computes in evaluation mode, to an ONNX file with a symbolic batch dimension.

    The file maps float32 or int64 (batch, *input_shape) to (batch, ...). The module is not changed: a copy is put into
    evaluation mode and run on a few rows, and the operators that it calls are written.

    Args:
        module: the network.
        path: of the file, which ends in ``.onnx``.
        spec: names the model, its input and output, and goes into the file's metadata.
        features: where there is no spec: what is said of the inputs and outputs by their names, as a list of features
            (names, or mappings of name, unit, range, description and categories), or as a mapping with ``features``,
            ``range``, ``missing`` and, of an output, ``labels`` and ``scores``; one list alone is of the only input.
        name: of the model, where there is no spec; by default the file's stem.
        example: tensors (batch, *row) to call it with: one, a tuple of arguments or a dict of them by name, which may
            be nested. Other values are passed on as they are.
        input_shape: of one row, without the batch dimension; by the input's name where there are several. Left out, it
            is that of the example, or found by trying the widths of the module's own weights.
        input_dtype: "float32" or "int64", in the same way; left out, what the example is, or the module runs on.
        input_name: one name, or one for each input, where there is no spec; by default several inputs have the names of
            the forward's parameters.
        output_name: in the same way; by default several outputs have the names of the dict or record that it returns.
        method: the method to call in place of ``forward``.
        fold_affine: compose affine blocks that follow each other, in float64, rounded once.
        dtype: "float32" exports a module of another dtype, rounded to float32.
        external_data: weights into ``NAME.onnx.data``; None does so only above 2 GB.
        opset: of the file, from 7 on; 17 unless given, or less where ``ir_version`` or ``target`` asks for it.
        ir_version: of the file, from 4 on; 8 unless given, or what the opset and ``target`` ask for.
        target: the server that the file is for, such as "triton:23.10"; see ``export.servers``.

    Returns: the artifact, unproved.
    Raises ExportError: see ``export.trace`` and ``export.versions``, and dtypes; SpecError: features that are not
    described as they should be; OutputError: the file cannot be written.

    Examples:
        >>> from torch import nn
        >>> from mlpx import export
        >>> artifact = export(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), "tanh.onnx", input_name="obs")
        >>> artifact.summary.inputs[0].name, artifact.summary.inputs[0].shape
        ('obs', ('batch', 4))
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ExportError(f"the file's name ends in .onnx, not '{path.name}'")
    if spec is not None:
        if features is not None:
            raise ExportError("features are given beside a spec, which says them itself. What to do: leave one out")
        name, input_name, output_name = spec.name, tuple(port.name for port in spec.inputs), spec.output.name
        input_shape = {port.name: port.row_shape for port in spec.inputs}
        input_dtype = {port.name: port.dtype for port in spec.inputs}
    path = through_link(path)  # external data goes beside the file itself
    versions = choose_versions(opset, ir_version, target)
    copied, hashing = evaluated_copy(module, dtype), weights_hashing(module)
    said: Said = {} if spec is None else said_by(spec)
    if features is not None:
        names = named_inputs(copied, input_name, example, method)
        said = said_of(features, names)
        if example is None:
            input_shape, input_dtype = ports_said(said, names, input_shape, input_dtype)
    signature = signature_of(
        copied, example=example, input_shape=input_shape, input_dtype=input_dtype, input_name=input_name, method=method
    )
    outputs = (output_name,) if isinstance(output_name, str) else tuple(output_name)
    traced = trace(copied, signature, outputs)
    if spec is not None:
        refuse_another_network(traced, spec)
    folded = fold(traced, affine=fold_affine)
    model, weights = lower(folded, name or path.stem, versions)
    check(model, weights)
    external = is_external(weights, external_data)
    summary = describe(name or path.stem, traced, folded, spec, said, versions, hashing.result(), external)
    model.producer_name, model.producer_version = "mlpx", summary.mlpx_version or ""
    for key, value in summary.to_metadata().items():
        model.metadata_props.add(key=key, value=value)
    return Artifact(path, write(model, weights, path, external=external), summary)


def evaluated_copy(module: object, dtype: str | None = None) -> nn.Module:
    """A copy in evaluation mode and in float32.

    It shares the caller's tensors where only building blocks and plain containers use them; code of the caller's (a
    forward, a ``train()`` that merges weights) gets tensors of its own. Raises ExportError: not a module, a tensor of
    another dtype without ``dtype="float32"``, or a module that cannot be copied.
    """
    if not isinstance(module, nn.Module):
        raise ExportError(f"expected an nn.Module, not a {type(module).__name__}")
    inner = next((name for kind, name in _WRAPPERS.items() if type(module).__name__ == kind), None)
    if inner is not None:
        raise ExportError(f"a {type(module).__name__} wraps another module. What to do: export its .{inner}")
    if dtype not in (None, "float32"):
        raise ExportError(f"dtype is 'float32' or left out, not {dtype!r}: the file computes in float32")
    tensors = dict(chain(module.named_parameters(), module.named_buffers()))
    meta = next((key for key, tensor in tensors.items() if tensor.is_meta), None)
    if meta is not None:
        raise ExportError(f"'{meta}' is on the meta device and has no values; load weights first")
    other = {key: t.dtype for key, t in tensors.items() if t.is_floating_point() and t.dtype != torch.float32}
    other |= {key: t.dtype for key, t in tensors.items() if t.is_complex()}
    if other and (dtype is None or any(kind.is_complex for kind in other.values())):
        key, kind = next(iter(other.items()))
        message = f"'{key}' is {kind} and the file computes in float32 ({len(other)} of {len(tensors)} tensors)"
        raise ExportError(f"{message}. What to do: round it on export with dtype='float32' (--dtype float32)")
    shared = list(tensors.values()) if is_plain(module) and not other else []
    try:
        memo = {id(tensor): tensor for tensor in shared} | computed_weights(module)
        with without_exit():
            copied = copy.deepcopy(module, memo).cpu().eval()
    except Exception as error:  # the caller's classes may define how they are copied
        raise ExportError(f"the module cannot be copied: {error}") from error
    if other:
        copied = copied.float()
        for key, values in copied.state_dict().items():
            if key in other and bool((values.isinf() & ~tensors[key].isinf()).any()):
                raise ExportError(f"'{key}' has values that float32 cannot hold: they would become infinite")
    return copied


def lower(graph: Graph, name: str, versions: Versions) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The graph as an ONNX model without initialisers, and their values by name.

    Raises ExportError: nothing is computed, or the opset lacks an operator.
    """
    _refuse_identity(graph)
    names = {value: output for output, value in reversed(list(graph.outputs.items())) if value not in graph.inputs}
    emit = Emitter(graph, versions.opset)
    for node in graph.nodes:
        renamed = replace(rewired(node, names), output=names.get(node.output, node.output))
        OPERATORS[node.op].lower(emit, renamed)
        names |= emit.renamed
    for output, value in graph.outputs.items():  # a value returned twice, or an input
        if names.get(value) != output:
            emit("Identity", [names.get(value, value)], output, f"{output}/Identity")
    proto = helper.make_graph(
        emit.nodes,
        name,
        [_port(value, port.shape, port.dtype) for value, port in graph.inputs.items()],
        [_port(output, graph.shapes[value], graph.dtypes[value]) for output, value in graph.outputs.items()],
    )
    opset = helper.make_opsetid("", versions.opset)
    model = helper.make_model(proto, opset_imports=[opset], ir_version=versions.ir_version)
    return model, emit.initialisers


def _refuse_identity(graph: Graph) -> None:
    if all(node.op == "reshape" for node in graph.nodes):
        what = "the output is the input itself" if len(graph.outputs) == 1 else "every output is an input itself"
        hint = "give the model at least one block that acts in evaluation mode"
        raise ExportError(f"nothing is left to compute: {what}. What to do: {hint}")


def _port(name: str, shape: Shape, dtype: str) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) else str(size) for size in shape]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[dtype], sizes)
