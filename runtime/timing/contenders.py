"""The contenders that run an ONNX file as it is: ours, plain ONNX Runtime, and other runtimes that are installed.

Each is a factory of a ``worker.MakeCall``, called in the contender's own process.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .contest import Contender
from .timer import Call
from .worker import Feed, MakeCall, Unsuitable

PREDICT, INTO, PLAIN = "Session.predict", "Session.predict_into", "InferenceSession.run"
ONE_THREAD, OPENVINO, TRACT = "InferenceSession.run, 1 thread", "OpenVINO", "tract"
_MODULE = __name__


def contenders_of(path: Path, device: str, settings: dict[str, Any]) -> list[Contender]:
    """Those that can run a file on this device; the first is ours, with these settings of ``Session``."""
    ours = {"path": str(path), "device": device, "settings": settings}
    contenders = [
        Contender(PREDICT, f"{_MODULE}:predict", ours),
        Contender(INTO, f"{_MODULE}:predict_into", ours),
        Contender(PLAIN, f"{_MODULE}:plain", {"path": str(path), "device": device}),
    ]
    if device == "cpu":
        contenders.append(Contender(ONE_THREAD, f"{_MODULE}:plain", {"path": str(path), "threads": 1}))
        contenders += others(path)
    return contenders


def others(path: Path, folders: Sequence[str] = ()) -> list[Contender]:
    """OpenVINO and tract, where they are installed here or in one of the ``folders``."""
    factories = {OPENVINO: ("openvino", "openvino_cpu"), TRACT: ("tract", "tract_cpu")}
    return [
        Contender(name, f"{_MODULE}:{factory}", {"path": str(path)}, tuple(folders))
        for name, (package, factory) in factories.items()
        if find_spec(package) is not None or any((Path(folder) / package).is_dir() for folder in folders)
    ]


def predict(path: str, device: str = "auto", settings: dict[str, Any] | None = None) -> MakeCall:
    """``Session.predict``, or ``Session.run`` for a file of several outputs."""
    from runtime.session.session import Session

    session = Session(path, device, **(settings or {}))
    method = session.predict if len(session.outputs) == 1 else session.run
    return lambda feed: partial(method, _rows(feed))


def predict_into(path: str, device: str = "auto", settings: dict[str, Any] | None = None) -> MakeCall:
    """``Session.predict_into`` with one output array for all calls."""
    from runtime.session.session import Session

    session = Session(path, device, **(settings or {}))
    if len(session.inputs) != 1 or len(session.outputs) != 1:
        raise Unsuitable("it takes files of one input and one output")

    def make_call(feed: Feed) -> Call:
        x = _rows(feed)
        out = np.empty_like(session.predict(x))

        def call() -> np.ndarray:
            session.predict_into(x, out)
            return out

        return call

    return make_call


def plain(path: str, device: str = "cpu", threads: int | None = None) -> MakeCall:
    """What users of ONNX Runtime write: a session on the provider, everything else at its default, and ``run``."""
    import onnxruntime

    from runtime.session.providers import choose, this_machine

    choice = choose(device, this_machine(cuda=device != "cpu"))
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=list(choice.providers))
    return lambda feed: partial(session.run, None, feed)


def openvino_cpu(path: str) -> MakeCall:
    """OpenVINO's compiled model, in float32 like the others, everything else at its default."""
    openvino: Any = import_module("openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda feed: lambda: compiled(feed).to_tuple()


def tract_cpu(path: str) -> MakeCall:
    """A runnable of tract, optimised for the batch."""
    tract: Any = import_module("tract")

    def make_call(feed: Feed) -> Call:
        model = tract.onnx().load(path)
        arrays = [feed[model.input_name(index)] for index in range(model.input_count())]
        for index, array in enumerate(arrays):
            dtype = {"float32": "f32", "int64": "i64"}[array.dtype.name]
            model.set_input_fact(index, ",".join([*map(str, array.shape), dtype]))
        run = model.into_model().into_runnable().run
        return lambda: [output.to_numpy() for output in run(arrays)]

    return make_call


def _rows(feed: Feed) -> Any:
    """The array of the only input, or all by name."""
    return next(iter(feed.values())) if len(feed) == 1 else feed
