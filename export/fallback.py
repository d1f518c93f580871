"""The way out for operators that the table of blocks does not have: torch's own exporter, marked as unproved."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import onnx
import torch
from torch import nn

from runtime import write_whole

from .artifact import Artifact
from .calls import inputs_of
from .errors import ExportError
from .graph import Shape
from .lowering import BATCH
from .naming import input_names


def export_unproved(
    module: nn.Module,
    path: Path,
    input_shape: Shape | Mapping[str, Shape] | None,
    inputs: Sequence[str],
    outputs: Sequence[str],
    reason: str,
) -> Artifact:
    """``torch.onnx.export(dynamo=True)`` into ``NAME.unproved.onnx``, without the source paths it leaves in the file.

    ``module`` is in evaluation mode; ``reason`` is why the table could not express it. Raises ExportError.
    """
    parameters = inputs_of(module)
    names = input_names(tuple(parameters), inputs)
    shapes = input_shape if isinstance(input_shape, Mapping) else dict.fromkeys(names, input_shape)
    if any(shapes.get(name) is None for name in names):
        raise ExportError(f"{reason}. The fallback needs to know the shape of a row: give input_shape (--features)")
    target = path.with_name(f"{path.stem}.unproved.onnx")
    examples = {own: torch.zeros(2, *(shapes[name] or ())) for own, name in zip(parameters, names, strict=True)}
    rows = torch.export.Dim(BATCH)
    silenced = logging.root.manager.disable
    logging.disable(max(silenced, logging.WARNING))
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(examples.values()),
                dynamo=True,
                input_names=list(names),
                output_names=list(outputs) or None,
                dynamic_shapes=tuple({0: rows} for _ in examples),
                verbose=False,
            )
    except Exception as error:  # torch.onnx raises whatever its many passes raise
        message = str(error).strip().partition("\n")[0]
        raise ExportError(f"{reason}. The fallback did not work either: {message}") from error
    finally:
        logging.disable(silenced)
    assert program is not None
    model = _cleaned(program.model_proto)
    write_whole(target, model.SerializeToString(deterministic=True))
    return Artifact(target, target.stat().st_size, None, reason=reason)


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without documentation strings and metadata of nodes and values: they hold paths of the machine."""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        graph.ClearField("doc_string")
        graph.ClearField("metadata_props")
        parts = [graph.node, graph.value_info]
        if isinstance(graph, onnx.GraphProto):
            parts += [graph.initializer, graph.input, graph.output]
        for part in (item for group in parts for item in group):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    model.ClearField("metadata_props")
    return model
