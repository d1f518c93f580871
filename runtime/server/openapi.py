"""The OpenAPI document of the server, with the models that it has now."""

from __future__ import annotations

from typing import Any

from runtime.version import VERSION

from .options import Options
from .repository import Repository
from .signature import FP32, INT64, Signature

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}
_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": _TEXT,
        "datatype": {"enum": [FP32, INT64]},
        "shape": {"type": "array", "items": {"type": "integer"}},
    },
}
_METADATA = {
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
_SERVER = {
    "type": "object",
    "required": ["name", "version", "extensions"],
    "properties": {"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}},
}
_INDEX = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "version", "state", "reason"],
        "properties": {
            "name": _TEXT,
            "version": _TEXT,
            "state": {"enum": ["READY", "UNAVAILABLE", "LOADING"]},
            "reason": _TEXT,
        },
    },
}
_STATISTICS = {
    "type": "object",
    "required": ["model_stats"],
    "properties": {"model_stats": {"type": "array", "items": {"type": "object"}}},
}
_OBJECT = {"type": "object"}
_CONTROL = {"type": "object", "properties": {"parameters": {"type": "object", "maxProperties": 0}}}
_READY = {"type": "object", "properties": {"ready": {"type": "boolean"}}}


def document(repository: Repository, options: Options) -> dict[str, Any]:
    """OpenAPI 3.1. Paths name the models that are loaded, so that their tensors are described."""
    paths: dict[str, Any] = {
        "/v2": _path("get", "What the server is.", _SERVER, {}),
        "/v2/health/live": _path("get", "Whether the server runs.", None, {}, free=True),
        "/v2/health/ready": _path("get", "Whether every model can answer.", None, {503: "not yet"}, free=True),
        "/v2/repository/index": _path("post", "The models and their states.", _INDEX, _BODY, body=_READY, needed=False),
        "/v2/models/stats": _path("get", "Statistics of every model.", _STATISTICS, {}),
        "/metrics": _path("get", "Counters in Prometheus' format.", None, {}, kind="text/plain"),
        "/openapi.json": _path("get", "This document.", _OBJECT, {}),
    }
    for name, model in repository.models.items():
        if options.control:
            for action in ("load", "unload"):
                words = f"{action.capitalize()} {name}, in all workers."
                place = f"/v2/repository/models/{name}/{action}"
                paths[place] = _path("post", words, None, _BODY | {404: "no such model"}, body=_CONTROL, needed=False)
        if model.default is not None:
            paths |= _model(f"/v2/models/{name}", model.default.signature)
        for number, version in model.versions.items():
            if version.served is not None:
                place = f"/v2/models/{name}/versions/{number}"
                paths |= _model(place, version.served.signature)
                paths[f"{place}/certificate"] = _path("get", "Its certificate.", _OBJECT, {404: "it has none"})
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "mlpx", "version": VERSION, "description": "The Open Inference Protocol, version 2."},
        "paths": paths,
    }
    if options.token is not None:
        found["components"] = {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}}
        found["security"] = [{"bearer": []}]
    return found


_BODY = {400: "the body is no JSON, or asks for what cannot be", 413: "the body is too large", 415: "its encoding"}
_MODEL = {404: "no such model or version", 503: "it is not loaded"}


def _model(place: str, signature: Signature) -> dict[str, Any]:
    own = _MODEL | _BODY | {429: "the queue is full", 504: "the deadline passed"}
    return {
        place: _path("get", "Its inputs and outputs.", _METADATA, _MODEL),
        f"{place}/ready": _path("get", "Whether it can answer.", None, _MODEL),
        f"{place}/config": _path("get", "Its configuration, as Triton tells it.", _OBJECT, _MODEL),
        f"{place}/stats": _path("get", "Its statistics, as Triton tells them.", _STATISTICS, _MODEL),
        f"{place}/infer": _path("post", "Outputs for rows of inputs.", _answer(), own, body=_request(signature)),
    }


_DATA = {
    FP32: "numbers in C order, flat or nested",
    INT64: "whole numbers in C order, flat or nested; the limits of indices are in the metadata, under parameters",
}


def _request(signature: Signature) -> dict[str, Any]:
    inputs = [
        {
            "type": "object",
            "required": ["name", "shape", "datatype", "data"],
            "properties": {
                "name": {"const": tensor.name},
                "datatype": {"enum": list(tensor.datatypes)},
                "shape": {"prefixItems": [_COUNT if s == -1 else {"const": s} for s in tensor.shape], "type": "array"},
                "data": {"type": "array", "description": _DATA[tensor.datatype]},
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


def _answer() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "id": _TEXT,
            "outputs": {"type": "array", "items": _TENSOR},
        },
    }


def _path(
    method: str,
    words: str,
    schema: dict[str, Any] | None,
    errors: dict[int, str],
    *,
    body: dict[str, Any] | None = None,
    needed: bool = True,
    kind: str = "application/json",
    free: bool = False,
) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "done"}
    if schema is not None or kind != "application/json":
        good["content"] = {kind: {} if schema is None else {"schema": schema}}
    failed = errors if free else errors | {401: "the token is missing or another"}
    wrong = {"content": {"application/json": {"schema": _ERROR}}}
    answers = {"200": good} | {str(status): {"description": said, **wrong} for status, said in failed.items()}
    operation: dict[str, Any] = {"summary": words, "responses": answers}
    if body is not None:
        operation["requestBody"] = {"required": needed, "content": {"application/json": {"schema": body}}}
    if free:
        operation["security"] = []
    return {method: operation}
