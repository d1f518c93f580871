"""What hooks do, of one module or of all, is in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from torch import Tensor, nn

from export import ExportError, export
from tests.support.cases import network
from tests.support.hand_written import proved


def doubling(_part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(2 * x for x in inputs)


def raising(_part: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + 1


@pytest.mark.parametrize("place", [0, 1, None], ids=["layer", "container", "root"])
def test_what_hooks_do_is_in_the_file(place: int | None, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh()))
    part = module if place is None else module[place]
    part.register_forward_pre_hook(doubling)
    part.register_forward_hook(raising)
    artifact = proved(module, tmp_path)
    operators = [node.op_type for node in onnx.load(str(artifact.path)).graph.node]
    assert sorted(operators) == ["Add", "Gemm", "Mul", "Tanh"]


def test_a_hooked_block_is_not_that_of_a_spec(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "tanh"], 4)
    module[0].register_forward_hook(raising)
    with pytest.raises(ExportError, match="the spec 'case' is not of this module"):
        export(module, tmp_path / "m.onnx", spec=spec)


def test_what_a_global_hook_does_is_in_the_file(tmp_path: Path) -> None:
    def negating(part: nn.Module, _inputs: Any, output: Tensor) -> Any:
        return -output if isinstance(part, nn.Linear) else None

    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    handle = nn.modules.module.register_module_forward_hook(negating)
    try:
        proved(module, tmp_path)
    finally:
        handle.remove()
