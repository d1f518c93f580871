"""The networks of one package in one process, which may crash: ``python -m benchmarks.zoo.worker JSON``.

The JSON says what to do: the package, and for each network its steps. Before and after each step a line of JSON goes
to the standard output; whatever the packages print goes to the standard error.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.zoo.entries import Entry, Example, called, tensors
from benchmarks.zoo.exporters import STEPS
from benchmarks.zoo.networks import ENTRIES


class Recorded(TorchDispatchMode):
    """The operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.add(str(func).removeprefix("aten."))
        return func(*args, **(kwargs or {}))


def built(entry: Entry) -> dict[str, Any]:
    """The network in figures: parameters, the shapes of the outputs, its operators, and whether rows are independent.

    The operators are those that a call under ``torch.inference_mode`` dispatches.
    """
    module, example, recorded = entry.module(), entry.example(5), Recorded()
    with torch.inference_mode():
        with recorded:
            outputs = called(module, example)
        whole = [tensor.clone() for tensor in tensors(outputs)]
        part = [tensor.clone() for tensor in tensors(called(module, first(example, 3)))]
    parameters = sum(parameter.numel() for parameter in module.parameters())
    apart = all(
        a.shape[:1] == (5,) and b.shape[:1] == (3,) and _alike(a[:3], b) for a, b in zip(whole, part, strict=True)
    )
    shapes = [list(tensor.shape) for tensor in whole]
    return {"parameters": parameters, "outputs": shapes, "operators": sorted(recorded.found), "rows_apart": apart}


def first(example: Example, rows: int) -> Example:
    if isinstance(example, dict):
        return {name: tensor[:rows] for name, tensor in example.items()}
    return tuple(tensor[:rows] for tensor in example)


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-4, equal_nan=True))


def main() -> None:
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**event: Any) -> None:
        lines.write(json.dumps(event) + "\n")
        lines.flush()

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    entries = {entry.name: entry for entry in ENTRIES if entry.package == asked["package"]}
    for name, steps in asked["networks"].items():
        for step in steps:
            say(network=name, step=step)
            if step != "build":
                say(network=name, step=step, result=STEPS[step](entries[name]).plain())
                continue
            try:
                say(network=name, step=step, result=built(entries[name]))
            except Exception as error:
                say(network=name, step=step, failed=f"{type(error).__name__}: {error}"[:300])
                break
    lines.close()
    os._exit(0)  # threads of packages that would wait for something


if __name__ == "__main__":
    main()
