"""A contract as a YAML file, in the form of LEAPP's pipeline files.

LEAPP's keys are ``models`` with ``inputs``, ``outputs`` (``name``, ``dtype``, ``shape``, ``type``, ``element_names``)
and ``parameters`` (``model_path``, ``md5sum``, ``sha256sum``, ``backend``), ``pipeline`` (``configs.frequency``,
``inputs``, ``outputs``, ``data_flow``, ``feedback_flow``) and ``system information``. The others are mlpx's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import yaml

from .features import Feature, Interface
from .layers import Layer, Option


class _Line(dict[str, Any]):
    """A mapping that is written in one line."""


class _Row(list[Any]):
    """A list that is written in one line."""


class _Dumper(yaml.SafeDumper):
    """Writes mappings and lists that are marked so in one line."""


_Dumper.add_representer(_Line, lambda d, data: d.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True))
_Dumper.add_representer(_Row, lambda d, data: d.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True))


def shortest(value: Any) -> float:
    """A float32 number as the float with the fewest digits that is it again once it is rounded to float32."""
    exact = np.float32(value)
    short = float(str(exact))
    return short if np.float32(short).tobytes() == exact.tobytes() else float(exact)


def as_yaml(record: dict[str, Any]) -> str:
    """The text of the file, with one line for each feature and layer."""
    return yaml.dump(record, Dumper=_Dumper, sort_keys=False, width=2**20, allow_unicode=True)


def row(values: Iterable[Any]) -> list[Any]:
    """A list that is written in one line."""
    return _Row(values)


def interface_record(interface: Interface) -> dict[str, Any]:
    """An input or output."""
    port = interface.port
    shape = [size if isinstance(size, int) else 1 for size in port.shape]
    record: dict[str, Any] = {"name": port.name, "dtype": port.dtype, "shape": _Row(shape), "type": "tensor"}
    if interface.names is not None and len(port.shape) == 2:
        record["element_names"] = _Row([None, _Row(interface.names)])
    if port.labels is not None:
        record["labels"], record["scores"] = _Row(port.labels), port.scores
    if interface.source is not None:
        record["source"] = interface.source
    record["features"] = [_feature(feature) for feature in interface.features]
    return record


def _feature(feature: Feature) -> _Line:
    record: dict[str, Any] = {"index": feature.index, "name": feature.name}
    if feature.meaning is not None:
        meaning = feature.meaning
        record |= {"term": meaning.term, "joint": meaning.joint, "age": meaning.age or None}
    record |= {"unit": feature.unit, "range": None if feature.range is None else _Row(feature.range)}
    record |= {"description": feature.description}
    if feature.categories is not None:
        record |= {"categories": _Row(feature.categories.words), "unknown_code": feature.categories.unknown}
    applied = [
        _Line({kind: _Line({role: shortest(value) for role, value in values.items()})})
        for kind, values in feature.applied
    ]
    record |= {"applied": _Row(applied) if applied else None, "bound": feature.bound}
    return _Line({key: value for key, value in record.items() if value is not None})


def layer_record(layer: Layer) -> dict[str, Any]:
    """A layer."""
    record: dict[str, Any] = {"block": layer.kind, "inputs": layer.inputs, "outputs": layer.outputs}
    options = {name: _option(value) for name, value in layer.options.items()}
    record |= {"options": _Line(options) if options else None, "weights_sha256": layer.digest}
    record["reads"] = None if layer.reads is None else _Row(layer.reads)
    return _Line({key: value for key, value in record.items() if value is not None})


def _option(value: Option) -> Any:
    if isinstance(value, tuple):
        return _Row(map(shortest, value))
    return shortest(value) if isinstance(value, float) else value
