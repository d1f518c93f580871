"""Other ways to compute an MLP, as factories of contenders: each is called in a process of its own.

Every call gets a numpy array and gives one, without a copy where the package can. Everything is at its defaults.
"""

from __future__ import annotations

import ctypes
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime.timing.timer import Call
from runtime.timing.worker import Feed, MakeCall, Unsuitable

EAGER, COMPILED, SKLEARN, NUMPY = "PyTorch eager", "torch.compile", "scikit-learn", "numpy"


def eager(name: str, compiled: bool = False) -> MakeCall:
    """The module in inference mode, which is entered once; with ``compiled``, by ``torch.compile``."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # or it would start processes of its own
    import torch

    from benchmarks.subjects import described

    mode = torch.inference_mode()
    mode.__enter__()
    module: Any = described(name)[1]
    run = torch.compile(module) if compiled else module

    def make_call(feed: Feed) -> Call:
        (x,) = feed.values()

        def call() -> np.ndarray:
            assert mode is not None  # it ends when nothing refers to it
            return run(torch.from_numpy(x)).numpy()

        return call

    return make_call


def by_numpy(steps: str) -> MakeCall:
    """One expression per step, in place where it can be."""
    known = pickle.loads(Path(steps).read_bytes())

    def run(x: np.ndarray) -> np.ndarray:
        for op, *values in known:
            if op == "linear":
                x = x @ values[0]
                x += values[1]
            elif op == "affine":
                x = x * values[0] + values[1]
            elif op == "relu":
                np.maximum(x, 0, out=x)
            elif op == "leaky_relu":
                x = np.maximum(x, x * values[0])
            elif op == "elu":
                x = np.maximum(x, 0) + np.expm1(np.minimum(x, 0))
            else:
                x = 1 / (1 + np.exp(-x))
        return x

    return lambda feed: partial(run, *feed.values())


def by_sklearn(steps: str) -> MakeCall:
    """``MLPRegressor.predict`` with the module's weights; a leading Standardize goes into the first layer."""
    from sklearn.neural_network import MLPRegressor

    known = pickle.loads(Path(steps).read_bytes())
    if known[0][0] == "affine":
        (_, factor, offset), (_, weight, bias), *rest = known
        weight = weight.astype(np.float64)
        factor, offset = (np.broadcast_to(v, len(weight)).astype(np.float64) for v in (factor, offset))
        first = ("linear", factor[:, None] * weight, bias + offset @ weight)
        known = [tuple(np.asarray(v, np.float32) if not isinstance(v, str) else v for v in first), *rest]
    linear, between = known[0::2], known[1::2]
    if {op for op, *_ in linear} != {"linear"} or {op for op, *_ in between} != {"relu"} or len(known) % 2 == 0:
        raise Unsuitable("MLPRegressor has one kind of activation and a linear output, and this model has others")
    weights, biases = [step[1] for step in linear], [step[2] for step in linear]
    model: Any = MLPRegressor(hidden_layer_sizes=tuple(w.shape[1] for w in weights[:-1]), activation="relu")
    model.coefs_, model.intercepts_ = weights, biases
    model.n_layers_, model.n_outputs_, model.out_activation_ = len(weights) + 1, weights[-1].shape[1], "identity"
    model.n_features_in_ = weights[0].shape[0]

    def make_call(feed: Feed) -> Call:
        (x,) = feed.values()
        return lambda: model.predict(x).reshape(len(x), -1)

    return make_call


def by_ctypes(library: str, function: str, outputs: int) -> MakeCall:
    """A C function of an input and an output row, called for each row by ctypes with pointers that are made once."""
    infer = getattr(ctypes.CDLL(library), function)

    def make_call(feed: Feed) -> Call:
        (x,) = feed.values()
        y = np.empty((len(x), outputs), np.float32)
        pairs = [[ctypes.c_void_p(rows[row].ctypes.data) for rows in (x, y)] for row in range(len(x))]

        def call(_kept: np.ndarray = x) -> np.ndarray:
            for pair in pairs:
                infer(*pair)
            return y

        return call

    return make_call


def nothing() -> MakeCall:
    """A call that does nothing: the cost of measuring."""
    return lambda feed: lambda: next(iter(feed.values()))
