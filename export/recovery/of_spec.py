"""The network of a file of several inputs, or of words: that of the spec which the file carries.

The operators of such a file are no chain from one input. The spec only says which network to expect: its weights come
from the file, and ``recover`` and ``bound`` hold the file's operators against it, so a wrong spec is an error there.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import torch
from onnx import ModelProto, TensorProto, ValueInfoProto

from builder.assembly import network_of
from builder.errors import RecoveryError, SpecError
from builder.spec import MLPSpec
from builder.values import is_dict
from export.onnxfile.model import Model
from export.onnxfile.reading import read_model
from runtime.model.summary import summary_of

from .recovered import DEFAULTS, Recovered, tensor_of

_FOLDED = ("batch_norm", "standardize", "scale")
"""Blocks that become part of a linear."""


def inputs_of(proto: ModelProto) -> list[ValueInfoProto]:
    """The inputs of a file that are no constants."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in stored]


def is_of_several(proto: ModelProto) -> bool:
    """Whether a file has several inputs, or takes whole numbers."""
    inputs = inputs_of(proto)
    return len(inputs) > 1 or any(each.type.tensor_type.elem_type == TensorProto.INT64 for each in inputs)


def read_of_spec(path: Path, proto: ModelProto, name: str | None) -> Recovered:
    """The network of the spec in the file's metadata, with the weights of the file, under its name or ``name``.

    Raises RecoveryError: no spec, a damaged one, or one whose weights the file does not hold.
    """
    summary = summary_of({entry.key: entry.value for entry in proto.metadata_props})
    if summary is None or not is_dict(summary.spec):
        names = [f"'{value.name}'" for value in inputs_of(proto)]
        message = "a chain of blocks with one input is recovered, or a network whose spec the file carries"
        hint = "make the file of a spec that lists its inputs, with mlpx build, or take the module that it was made of"
        has = f"the file has {len(names)}: {', '.join(names)}, and carries no spec"
        raise RecoveryError(f"{message}; {has}. What to do: {hint}")
    try:
        spec = MLPSpec(**summary.spec)
    except (SpecError, TypeError) as error:
        raise RecoveryError(f"the spec that it carries is damaged: {error}") from None
    if name is not None:
        spec = spec.model_copy(update={"name": name})
    model = read_model(path, recovering=True)
    spec, sources = _without_folded(spec, model.constants)
    return Recovered(spec, _weights(spec, sources, model), (_note(summary.folded),))


def _note(folded: Collection[str]) -> str:
    note = "the spec is the one that the file carries"
    return note + (f", without what was folded: {'; '.join(folded)}" if folded else "")


def _without_folded(spec: MLPSpec, stored: Collection[str]) -> tuple[MLPSpec, dict[str, str]]:
    """The spec without the blocks whose constants the file lacks; and the paths of the others, by their new ones."""
    paths: dict[str, str] = {}

    def kept(blocks: list[Any], before: str, after: str) -> list[Any]:
        result: list[Any] = []
        for index, block in enumerate(blocks):
            kind: str = block if isinstance(block, str) else next(iter(block))
            options: Any = None if isinstance(block, str) else block[kind]
            path, new = f"{before}{index}", f"{after}{len(result)}"
            if kind in _FOLDED and not any(name.startswith(f"{path}.") for name in stored):
                continue
            paths[new] = path
            if kind == "linear" and f"{path}.bias" in stored:  # of a batch_norm that was folded into it
                block = {kind: options | {"bias": True}}
            result.append({kind: kept(options["blocks"], f"{path}.", f"{new}.")} if kind == "residual" else block)
        return result

    record = spec.model_dump(exclude_none=True)
    for index, port in enumerate(record.get("inputs", [record.get("input")])):
        if "blocks" in port:
            port["blocks"] = kept(port["blocks"], f"inputs.{index}.", f"inputs.{index}.")
    record["blocks"] = kept(record["blocks"], "", "")
    return MLPSpec(**record), paths


def _weights(spec: MLPSpec, sources: dict[str, str], model: Model) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        expected = cast("dict[str, torch.Tensor]", network_of(spec).state_dict())
    weights: dict[str, torch.Tensor] = {}
    for key, like in expected.items():
        path, _, role = key.rpartition(".")
        name = f"{sources.get(path, path)}.{role}"
        stored = model.constants.get(name, DEFAULTS.get(role))
        value = None if stored is None else tensor_of(stored).to(like.dtype)
        if value is None or value.numel() not in (1, like.numel()):
            found = "lacks it" if value is None else f"has {list(value.shape)} there"
            message = f"its spec has the weight '{name}' of shape {list(like.shape)}, and the file {found}"
            raise RecoveryError(f"{message}. What to do: recover it from the weights that it was made of")
        weights[key] = value.reshape(-1).expand(like.numel()).reshape(like.shape).clone()
    return weights
