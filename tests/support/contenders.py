"""Contenders of a benchmark that go wrong, each in its way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from runtime.timing.contenders import plain
from runtime.timing.timer import Call
from runtime.timing.worker import Feed, MakeCall


def wrong_weights(path: str) -> MakeCall:
    """The right file, with one weight that is not."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[3] *= np.float32(1.01)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, model.graph.initializer[0].name))
    (Path(path).parent / "wrong.onnx").write_bytes(model.SerializeToString())
    return plain(str(Path(path).parent / "wrong.onnx"))


def other_shape(path: str) -> MakeCall:
    right = plain(path)
    return lambda feed: lambda: [right(feed)()[0].T]


def not_a_number(path: str) -> MakeCall:
    right = plain(path)
    return lambda feed: lambda: [right(feed)()[0] * np.float32(np.nan)]


def one_too_many(path: str) -> MakeCall:
    right = plain(path)
    return lambda feed: lambda: [*right(feed)(), np.zeros(1)]


def chatty(path: str) -> MakeCall:
    right = plain(path)

    def make_call(feed: Feed) -> Call:
        os.write(1, b"a library that prints\n")
        return right(feed)

    return make_call


def crashing(path: str) -> MakeCall:  # noqa: ARG001 - as all contenders
    os.write(2, b"a library's last words\n")
    os._exit(9)


def raising(path: str) -> MakeCall:  # noqa: ARG001 - as all contenders
    raise RuntimeError("it does not like the file\n\nand has more to say")
