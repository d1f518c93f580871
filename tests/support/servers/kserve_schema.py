"""The JSON Schema of KServe's InferenceService, from the models of the installed KServe SDK: run it in its environment.

The SDK's classes are generated from the API that the published CRD is generated from. Only what an InferenceService
reaches is written, without descriptions, and a name that the API does not have is refused.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import inspect
import json
import re
from importlib.metadata import version
from typing import Any

import kserve.models
import kubernetes.client.models

_PLAIN: dict[str, Any] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string"},
    "object": {},
    "ResourceQuantity": {"type": ["string", "number"]},
    "V1beta1MetricQuantity": {"type": ["string", "number"]},  # the SDK names it and lacks it
}
_LEFT_OUT = {"V1beta1InferenceServiceStatus"}
"""What a cluster writes, never a user."""


def schema() -> dict[str, Any]:
    """Of a whole InferenceService."""
    found: dict[str, Any] = {}
    top = _reference("V1beta1InferenceService", found)
    title = f"InferenceService of serving.kserve.io/v1beta1, as the KServe SDK {version('kserve')} has it"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **top, "$defs": found}


def _reference(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type by its name in ``openapi_types``; those of classes are added to ``found``."""
    if name in _PLAIN:
        return _PLAIN[name]
    if inner := re.fullmatch(r"[lL]ist\[(.+)\]", name):
        return {"type": "array", "items": _reference(inner[1], found)}
    if inner := re.fullmatch(r"dict\(str, (.+)\)|Dict\[str, (.+)\]", name):
        return {"type": "object", "additionalProperties": _reference(inner[1] or inner[2], found)}
    if name not in found:
        found[name] = {}  # a class may hold itself
        found[name] = _of_class(name, found)
    return {"$ref": f"#/$defs/{name}"}


def _of_class(name: str, found: dict[str, Any]) -> dict[str, Any]:
    short = re.sub(r"^K8sIoApi[A-Z][a-z]+(?=V\d)", "", name)
    held = getattr(kserve.models, name, None) or getattr(kubernetes.client.models, short)
    properties = {
        held.attribute_map[key]: _reference(kind, found)
        for key, kind in held.openapi_types.items()
        if kind not in _LEFT_OUT
    }
    refusing = [key for key in held.openapi_types if _refuses_none(held, key)]
    record = {"type": "object", "additionalProperties": False, "properties": properties}
    return record | ({"required": [held.attribute_map[key] for key in refusing]} if refusing else {})


def _refuses_none(held: type, key: str) -> bool:
    if hasattr(held, "model_fields"):  # the Kubernetes client's are pydantic's
        fields = {field.serialization_alias or name: field for name, field in held.model_fields.items()}  # type: ignore[attr-defined]
        return fields[held.attribute_map[key]].is_required()  # type: ignore[attr-defined]
    return "must not be `None`" in inspect.getsource(getattr(held, key).fset)


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, sort_keys=True))
