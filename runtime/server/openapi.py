"""JSON Schemas of requests and answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from .signature import BYTES, FP32, INT64, Signature

Schema = dict[str, Any]
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}
_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": _TEXT,
        "datatype": {"enum": [FP32, INT64, BYTES]},
        "shape": {"type": "array", "items": {"type": "integer"}},
    },
}
METADATA: Schema = {
    "type": "object",
    "required": ["name", "versions", "platform", "inputs", "outputs", "parameters"],
    "properties": {
        "name": _TEXT,
        "versions": {"type": "array", "items": _TEXT},
        "platform": _TEXT,
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {"type": "array", "items": _TENSOR},
        "parameters": {"type": "object"},
    },
}
SERVER: Schema = {
    "type": "object",
    "required": ["name", "version", "extensions"],
    "properties": {"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}},
}
INDEX: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "version", "state", "reason"],
        "properties": {
            "name": _TEXT,
            "version": _TEXT,
            "state": {"enum": ["READY", "UNAVAILABLE", "LOADING"]},
            "reason": _TEXT,
            "proved": {"type": ["boolean", "null"]},
        },
    },
}
STATISTICS: Schema = {
    "type": "object",
    "required": ["model_stats"],
    "properties": {"model_stats": {"type": "array", "items": {"type": "object"}}},
}
OBJECT = {"type": "object"}
CONTROL: Schema = {"type": "object", "properties": {"parameters": {"type": "object", "maxProperties": 0}}}
READY: Schema = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
OUTPUTS: Schema = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "id": _TEXT,
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_DATA = {
    FP32: "numbers in C order, flat or nested",
    INT64: "whole numbers in C order, flat or nested; the limits of indices are in the metadata, under parameters",
    BYTES: "words, with the datatype BYTES; they are in the metadata, under parameters",
}


def infer_request(signature: Signature) -> Schema:
    """The schema of a request for outputs of a model."""
    inputs = [
        {
            "type": "object",
            "required": ["name", "shape", "datatype", "data"],
            "properties": {
                "name": {"const": tensor.name},
                "datatype": {"enum": list(tensor.datatypes)},
                "shape": {"prefixItems": [_COUNT if s == -1 else {"const": s} for s in tensor.shape], "type": "array"},
                "data": {
                    "type": "array",
                    "description": "; ".join(_DATA[kind] for kind in tensor.datatypes if kind in _DATA),
                },
            },
        }
        for tensor in signature.inputs.values()
    ]
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": _TEXT,
            "inputs": {"type": "array", "items": {"anyOf": inputs}, "minItems": len(inputs), "maxItems": len(inputs)},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"enum": list(signature.outputs)}},
                },
            },
            "parameters": {"type": "object", "properties": {"timeout": {"type": "integer", "minimum": 0}}},
        },
    }
