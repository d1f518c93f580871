"""ONNX Runtime's sessions, opened on exactly what was asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.errors import ModelError, ProviderError
from runtime.model.annotate_ports import described
from runtime.model.port import Port
from runtime.model.summary import summary_of

Providers = tuple[tuple[str, dict[str, str]], ...]
_FATAL = 4
SPIN_DURATION = "session.intra_op.spin_duration_us"
"""ONNX Runtime has it from 1.26 on."""


def open_session(
    path: str | Path | bytes, providers: Providers, threads: int | None, config: Mapping[str, str] | None = None
) -> Any:
    """ONNX Runtime's session on exactly these providers, with its log off. Raises ModelError and ProviderError.

    ``config`` are entries of ONNX Runtime's session configuration.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # pyright: ignore[reportAttributeAccessIssue]

    name = "the model" if isinstance(path, bytes) else str(path)
    if not isinstance(path, bytes) and not Path(path).is_file():
        raise ModelError(f"{name}: no such file" if not Path(path).exists() else f"{name}: not a file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    for key, value in (config or {}).items():
        if key == SPIN_DURATION and _version(onnxruntime.__version__) < (1, 26):
            key, value = "session.intra_op.allow_spinning", "0"  # it would wait for milliseconds there
        options.add_session_config_entry(key, value)
    if len(providers) > 1:
        # The provider logs through the process's logger while it loads; its errors come back as exceptions anyway.
        onnxruntime.set_default_logger_severity(_FATAL)
    # Through links: ONNX Runtime looks for external data beside the name that it is given.
    source = path if isinstance(path, bytes) else os.path.realpath(path)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=list(providers), enable_fallback=0)
    except (state.NoSuchFile, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument) as error:
        raise ModelError(f"{name}: not a whole ONNX file: {reason(error)}") from error
    except (state.Fail, state.NotImplemented, state.RuntimeException, state.EPFail, RuntimeError, ValueError) as error:
        if len(providers) > 1:
            raise ProviderError(f"{providers[0][0]} did not start: {reason(error)}") from error
        raise ModelError(f"{name}: ONNX Runtime cannot run it: {reason(error)}") from error
    finally:
        if len(providers) > 1:
            onnxruntime.set_default_logger_severity(2)
    asked, got = [provider for provider, _ in providers], session.get_providers()
    if got[: len(asked)] != asked:
        raise ProviderError(f"{asked[0]} was asked for, and ONNX Runtime gave {', '.join(got)}")
    return session


def run_options() -> Any:
    """ONNX Runtime's options of a call, to be used for all: it takes longer where it makes its own for each."""
    import onnxruntime

    return onnxruntime.RunOptions()


_BEYOND_A_TABLE = "indices element out of data bounds", "Out of range value in index tensor", "invalid index found"
"""What ONNX Runtime says where Gather, GatherElements or GatherND gets an index that its table does not have."""


def beyond_a_table(error: BaseException) -> str | None:
    """ONNX Runtime's words for an index that a table does not have; None for any other error."""
    text = str(error)
    return next((text[text.index(words) :] for words in _BEYOND_A_TABLE if words in text), None)


def reason(error: BaseException) -> str:
    """ONNX Runtime's message without its codes."""
    return str(error).rpartition(" : ")[2].strip() or str(error)


def ports_of(session: Any, path: str | Path | bytes) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of the session of a file, inputs with the limits that the file sets for their indices.

    Raises ModelError for those that mlpx does not run, or whose metadata describe others.
    """
    inputs = tuple(_port(value, _INPUT_TYPES) for value in session.get_inputs())
    outputs = tuple(_port(value, _OUTPUT_TYPES) for value in session.get_outputs())
    if not inputs:
        raise ModelError(f"{'the model' if isinstance(path, bytes) else path} has no input")
    metadata = session.get_modelmeta().custom_metadata_map
    if '"indices"' in metadata.get("mlpx.inputs", ""):  # else the record is not worth reading yet
        summary = summary_of(metadata)
        file = None if isinstance(path, bytes) else Path(path)
        said = described(None if summary is None else summary.inputs, inputs, file)
        pairs = zip(inputs, said, strict=True)
        inputs = tuple(replace(p, shape=(p.shape[0], *o.shape[1:]), indices=o.indices) for p, o in pairs)
    return inputs, outputs


_INPUT_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}
_OUTPUT_TYPES = {**_INPUT_TYPES, "tensor(bool)": "bool"}


def _port(value: Any, types: Mapping[str, str]) -> Port:
    if not value.shape and types is _INPUT_TYPES:
        raise ModelError(f"'{value.name}' has no batch dimension (shape {value.shape}); rows in batches are expected")
    shape = tuple(dim if isinstance(dim, int | str) else "?" for dim in value.shape)
    if value.type not in types:
        raise ModelError(f"'{value.name}' is {value.type}; models of {', '.join(types)} are supported there")
    return Port(value.name, shape, dtype=types[value.type])


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
