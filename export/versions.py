"""The opset and the IR version that a file is written in: those requested, or those that its server reads."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cache

import onnx
from onnx import TensorProto, helper

from runtime import ModelError, Session

from .errors import ExportError
from .servers import Server, server


@dataclass(frozen=True)
class Versions:
    """The opset and the IR version of a file, and the server that they were chosen for.

    Opset 17 is the lowest that has a LayerNormalization; IR 8 is read by every inference server since 2022.
    """

    opset: int = 17
    ir_version: int = 8
    target: str | None = None


@dataclass(frozen=True)
class _Kind:
    """A kind of version: its name, the field of ``Versions`` and the CLI option for it, and the oldest supported."""

    name: str
    field: str
    option: str
    oldest: int


USUAL = Versions()
_OPSET = _Kind("opset", "opset", "--opset", 7)
"""ONNX Runtime guarantees to run models from opset 7 on."""
_IR = _Kind("IR version", "ir_version", "--ir-version", 4)
"""Before IR 4 weights are inputs, which a caller may replace."""


def choose_versions(opset: int | None = None, ir_version: int | None = None, target: str | None = None) -> Versions:
    """The requested versions; one that is left out is the nearest to opset 17 and IR 8 that fits the rest.

    Raises ExportError: a version that does not exist, that the installed onnx or ONNX Runtime lacks, or that is above
    what the server reads; an opset that needs a newer IR version; a server that is not in the table.
    """
    limits = Server(USUAL.opset, int(onnx.IR_VERSION), "") if target is None else server(target)
    opset, ir_version = _checked(_OPSET, opset), _checked(_IR, ir_version)
    for kind, number in ((_OPSET, opset), (_IR, ir_version)) if target is not None else ():
        limit = getattr(limits, kind.field)
        if number is not None and number > limit:
            message = f"{kind.name} {number} was asked for, and {target} is known to take {kind.name} {limit} at most"
            hint = f"leave {kind.option} out, or give {limit} or less ({kind.option} {limit})"
            raise ExportError(f"{message} ({limits.source}). What to do: {hint}")
    highest, most = ir_version or limits.ir_version, opset or min(USUAL.opset, limits.opset)
    fitting = [number for number in range(_OPSET.oldest, most + 1) if needed_ir_version(number) <= highest]
    opset = opset or fitting[-1]
    needed = needed_ir_version(opset)
    if needed > highest:
        why = f"IR version {highest} was asked for" if ir_version else f"{target} takes IR version {highest} at most"
        hint = f"give opset {fitting[-1]} or less (--opset {fitting[-1]})"
        raise ExportError(f"opset {opset} needs IR version {needed}, and {why}. What to do: {hint}")
    return Versions(opset, ir_version or max(needed, min(USUAL.ir_version, highest)), target)


def needed_ir_version(opset: int) -> int:
    """The IR version that ONNX released together with an opset: the lowest for a file of that opset."""
    return helper.OP_SET_ID_VERSION_MAP["ai.onnx", opset]


@cache
def newest() -> Versions:
    """The highest opset and IR version that the installed onnx knows and the installed ONNX Runtime opens.

    ONNX Runtime does not report what it opens, so a model of one operator is tried in each version, newest first.
    """
    opsets = range(onnx.defs.onnx_opset_version(), USUAL.opset, -1)
    irs = range(int(onnx.IR_VERSION), USUAL.ir_version, -1)
    return Versions(
        next((number for number in opsets if _opens(number, USUAL.ir_version)), USUAL.opset),
        next((number for number in irs if _opens(USUAL.opset, number)), USUAL.ir_version),
    )


def _opens(opset: int, ir_version: int) -> bool:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    try:
        Session(model.SerializeToString(), "cpu").close()
    except ModelError:
        return False
    return True


def _checked(kind: _Kind, value: int | None) -> int | None:
    """A requested version. Raises ExportError: it cannot be written or proved with what is installed."""
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        hint = f"give one ({kind.option} {kind.oldest})"
        raise ExportError(f"the {kind.name} is a whole number, not {value!r}. What to do: {hint}") from None
    if number < kind.oldest:
        message = f"{kind.name} {number} is older than {kind.oldest}, the oldest that is written"
        raise ExportError(f"{message}. What to do: give {kind.oldest} or more ({kind.option} {kind.oldest})")
    if number > getattr(USUAL, kind.field) and number > (most := getattr(newest(), kind.field)):
        message = f"{kind.name} {number} is newer than {most}, the newest that the installed onnx and ONNX Runtime know"
        raise ExportError(f"{message}. What to do: give {most} or less ({kind.option} {most}), or upgrade them")
    return number
