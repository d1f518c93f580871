"""Requests over gRPC, good and malformed, by the name of their kind, for the models of ``oracle``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from tests.support.oracle import Rng, numbers

pb: Any = import_module("tritonclient.grpc.service_pb2")
Kind = Callable[[Rng], tuple[str, Any]]
"""The method and its message."""


def call(method: str, message: str, **fields: Any) -> Kind:
    """A request that is always the same."""
    return lambda _: (method, getattr(pb, message)(**fields))


def one(change: Callable[[Any], Any] = lambda _: None) -> Kind:
    """An inference of ``one`` with raw contents, changed."""

    def kind(rng: Rng) -> tuple[str, Any]:
        x = numbers(rng)
        message = pb.ModelInferRequest(model_name="one")
        message.inputs.add(name="x", datatype="FP32", shape=x.shape)
        message.raw_input_contents.append(x.tobytes())
        change(message)
        return "ModelInfer", message

    return kind


def entry(**more: Any) -> Kind:
    """An inference of ``one`` with another name, datatype or shape of its input."""

    def change(message: Any) -> None:
        for name, value in more.items():
            if name == "shape":
                message.inputs[0].ClearField("shape")
                message.inputs[0].shape.extend(value)
            else:
                setattr(message.inputs[0], name, value)

    return one(change)


def typed(message: Any) -> None:
    """The values as fp32_contents."""
    values = np.frombuffer(message.raw_input_contents[0], "<f4")
    message.ClearField("raw_input_contents")
    message.inputs[0].contents.fp32_contents.extend(values)


def typed_too_short(message: Any) -> None:
    typed(message)
    del message.inputs[0].contents.fp32_contents[-1:]


def typed_otherwise(message: Any) -> None:
    message.ClearField("raw_input_contents")
    message.inputs[0].contents.int_contents.extend([0] * int(np.prod(message.inputs[0].shape)))


def parameter(name: str, **value: Any) -> Callable[[Any], None]:
    """A parameter of the request."""

    def change(message: Any) -> None:
        for kind, held in value.items():
            setattr(message.parameters[name], kind, held)

    return change


def cut(message: Any) -> None:
    message.raw_input_contents[0] = message.raw_input_contents[0][:-4]


def without(*fields: str) -> Callable[[Any], None]:
    """Some fields are not there."""

    def change(message: Any) -> None:
        for name in fields:
            message.ClearField(name)

    return change


def twice(message: Any) -> None:
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])


KINDS: dict[str, Kind] = {
    "gRPC server live": call("ServerLive", "ServerLiveRequest"),
    "gRPC server ready": call("ServerReady", "ServerReadyRequest"),
    "gRPC server metadata": call("ServerMetadata", "ServerMetadataRequest"),
    "gRPC model ready": call("ModelReady", "ModelReadyRequest", name="one"),
    "gRPC ready of an unknown model": call("ModelReady", "ModelReadyRequest", name="none"),
    "gRPC ready of an unknown version": call("ModelReady", "ModelReadyRequest", name="one", version="7"),
    "gRPC metadata": call("ModelMetadata", "ModelMetadataRequest", name="several"),
    "gRPC metadata of an unknown model": call("ModelMetadata", "ModelMetadataRequest", name="none"),
    "gRPC configuration": call("ModelConfig", "ModelConfigRequest", name="one"),
    "gRPC configuration of an unknown model": call("ModelConfig", "ModelConfigRequest", name="none"),
    "gRPC statistics": call("ModelStatistics", "ModelStatisticsRequest", name="one"),
    "gRPC statistics of an unknown model": call("ModelStatistics", "ModelStatisticsRequest", name="none"),
    "gRPC repository index": call("RepositoryIndex", "RepositoryIndexRequest"),
    "gRPC index of a named repository": call("RepositoryIndex", "RepositoryIndexRequest", repository_name="r"),
    "gRPC load": call("RepositoryModelLoad", "RepositoryModelLoadRequest", model_name="one"),
    "gRPC load of an unknown model": call("RepositoryModelLoad", "RepositoryModelLoadRequest", model_name="none"),
    "gRPC unload of an unknown model": call("RepositoryModelUnload", "RepositoryModelUnloadRequest", model_name="none"),
    "gRPC log settings": call("LogSettings", "LogSettingsRequest"),
    "gRPC raw contents": one(),
    "gRPC typed contents": one(typed),
    "gRPC id": one(lambda message: setattr(message, "id", "käse 7")),
    "gRPC version": one(lambda message: setattr(message, "model_version", "1")),
    "gRPC asked output": one(lambda message: message.outputs.add(name="y")),
    "gRPC long timeout": one(parameter("timeout", int64_param=20_000_000)),
    "gRPC unknown parameter": one(parameter("mine", string_param="x")),
    "gRPC unknown model": one(lambda message: setattr(message, "model_name", "none")),
    "gRPC unknown version": one(lambda message: setattr(message, "model_version", "7")),
    "gRPC no inputs": one(without("inputs", "raw_input_contents")),
    "gRPC input without contents": one(without("raw_input_contents")),
    "gRPC contents without inputs": one(without("inputs")),
    "gRPC input given twice": one(twice),
    "gRPC input named otherwise": entry(name="z"),
    "gRPC datatype FP64": entry(datatype="FP64"),
    "gRPC datatype unknown": entry(datatype="FLOAT"),
    "gRPC shape negative": entry(shape=[-1, 4]),
    "gRPC shape too long": entry(shape=[10**6, 4]),
    "gRPC shape too narrow": entry(shape=[2, 2]),
    "gRPC shape flat": entry(shape=[4]),
    "gRPC raw contents cut": one(cut),
    "gRPC raw contents twice": one(lambda message: message.raw_input_contents.append(b"1234")),
    "gRPC raw and typed contents": one(lambda message: message.inputs[0].contents.fp32_contents.append(1)),
    "gRPC typed contents too short": one(typed_too_short),
    "gRPC typed contents of integers": one(typed_otherwise),
    "gRPC output unknown": one(lambda message: message.outputs.add(name="z")),
    "gRPC output asked for twice": one(lambda message: (message.outputs.add(name="y"), message.outputs.add(name="y"))),
    "gRPC timeout is text": one(parameter("timeout", string_param="soon")),
    "gRPC timeout negative": one(parameter("timeout", int64_param=-1)),
}
