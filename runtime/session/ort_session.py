"""ONNX Runtime's sessions, opened on exactly the requested providers, and what they say of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import ModelError, ProviderError
from runtime.model.port import Port, annotate_ports
from runtime.model.summary import rows_depend, summary_of, widest_layer

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg, RunOptions

Providers = tuple[tuple[str, dict[str, str]], ...]
SPIN_DURATION = "session.intra_op.spin_duration_us"
"""ONNX Runtime has it from 1.26 on."""
_FATAL = 4
_DIGITS = 18
"""Of a number of multiply-adds; what has more is no such number."""
_INPUT_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}
_OUTPUT_TYPES = {**_INPUT_TYPES, "tensor(bool)": "bool"}
_INDEX_ERRORS = "indices element out of data bounds", "Out of range value in index tensor", "invalid index found"
"""ONNX Runtime's messages where Gather, GatherElements or GatherND gets an index outside its table."""


def open_session(
    path: str | Path | bytes, providers: Providers, threads: int | None, config: Mapping[str, str] | None = None
) -> InferenceSession:
    """ONNX Runtime's session on exactly these providers, with its log off. Raises ModelError and ProviderError.

    ``config`` are entries of ONNX Runtime's session configuration.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    name = "the model" if isinstance(path, bytes) else str(path)
    if not isinstance(path, bytes) and not Path(path).is_file():
        raise ModelError(f"{name}: no such file" if not Path(path).exists() else f"{name}: not a file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    for key, value in (config or {}).items():
        if key == SPIN_DURATION and _major_minor(onnxruntime.__version__) < (1, 26):
            key, value = "session.intra_op.allow_spinning", "0"  # it would spin for milliseconds there
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
    requested, active = [provider for provider, _ in providers], session.get_providers()
    if active[: len(requested)] != requested:
        raise ProviderError(f"{requested[0]} was requested, and ONNX Runtime gave {', '.join(active)}")
    return session


def run_options() -> RunOptions:
    """One RunOptions for all calls; creating one per call is slower."""
    import onnxruntime

    return onnxruntime.RunOptions()


def index_error(error: BaseException) -> str | None:
    """ONNX Runtime's message for an index outside a table; None for any other error."""
    text = str(error)
    return next((text[text.index(message) :] for message in _INDEX_ERRORS if message in text), None)


def reason(error: BaseException) -> str:
    """ONNX Runtime's message without its codes."""
    return str(error).rpartition(" : ")[2].strip() or str(error)


@dataclass(frozen=True)
class ModelInfo:
    """What an open session and the file's metadata say of a model."""

    inputs: tuple[Port, ...]
    """With the limits that the file sets for their indices."""
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str]
    multiply_adds: int
    """Per row."""
    widest: int | None
    """Values per row of the widest layer; None where the file does not say."""
    bindable: bool
    """The shapes of the outputs follow from the number of rows."""
    divisible: bool
    """A batch may be cut into pieces that are run separately."""


def model_info(
    session: InferenceSession, path: str | Path | bytes, *, estimate: int = 0, divided: bool = False
) -> ModelInfo:
    """What the session of the file at ``path`` says of its model.

    ``estimate`` is the number of multiply-adds where the file does not say; ``divided`` says that the rows of a file
    that mlpx did not write are independent. Raises ModelError: a model that mlpx does not run, or metadata that
    describe another one.
    """
    name = "the model" if isinstance(path, bytes) else path
    try:
        inputs = tuple(_port(value, _INPUT_TYPES) for value in session.get_inputs())
        outputs = tuple(_port(value, _OUTPUT_TYPES) for value in session.get_outputs())
        metadata = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ModelError(f"{name}: not a whole ONNX file: a name or text in it is not UTF-8: {error}") from None
    if not inputs:
        raise ModelError(f"{name} has no input")
    if '"indices"' in metadata.get("mlpx.inputs", ""):  # otherwise the record need not be parsed yet
        inputs = _with_index_limits(inputs, metadata, None if isinstance(path, bytes) else Path(path))
    declared = metadata.get("mlpx.multiply_adds", "")
    bindable = _shapes_follow_rows(inputs, outputs)
    independent = (divided or bool(declared)) and not rows_depend(metadata)
    return ModelInfo(
        inputs,
        outputs,
        metadata,
        multiply_adds=int(declared) if declared.isdecimal() and len(declared) <= _DIGITS else estimate,
        widest=widest_layer(metadata),
        bindable=bindable,
        divisible=bindable and independent and not isinstance(inputs[0].shape[0], int),
    )


def _with_index_limits(inputs: tuple[Port, ...], metadata: Mapping[str, str], path: Path | None) -> tuple[Port, ...]:
    summary = summary_of(metadata)
    annotated = annotate_ports(None if summary is None else summary.inputs, inputs, path)
    return tuple(
        replace(port, shape=(port.shape[0], *other.shape[1:]), indices=other.indices)
        for port, other in zip(inputs, annotated, strict=True)
    )


def _shapes_follow_rows(inputs: Sequence[Port], outputs: Sequence[Port]) -> bool:
    batch, ports = inputs[0].shape[0], (*inputs, *outputs)
    return batch != "?" and all(
        port.shape[:1] == (batch,) and all(isinstance(size, int) for size in port.shape[1:]) for port in ports
    )


def _port(value: NodeArg, types: Mapping[str, str]) -> Port:
    if not value.shape and types is _INPUT_TYPES:
        raise ModelError(f"'{value.name}' has no batch dimension (shape {value.shape}); rows in batches are expected")
    shape = tuple(dim if isinstance(dim, int | str) else "?" for dim in value.shape)
    if value.type not in types:
        raise ModelError(f"'{value.name}' is {value.type}; models of {', '.join(types)} are supported there")
    return Port(value.name, shape, dtype=types[value.type])


def _major_minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
