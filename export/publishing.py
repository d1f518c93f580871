"""A file that appears under its name only when it has been run and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from runtime import choose, read_rows, this_machine, through_link, whole_files

from .artifact import Artifact
from .comparison import Comparison, compare, sample
from .errors import ExportError
from .exporting import export


def publish(
    module: nn.Module,
    path: str | Path,
    *,
    data: str | Path | None = None,
    device: str = "auto",
    dtype: str | None = None,
    **options: Any,
) -> tuple[Artifact, Comparison | None]:
    """Export beside ``path``, run the file on ``device``, compare it with the module, and rename it.

    The rows are those of ``data`` (see ``runtime.read_rows``), or 1,000 seeded ones. ``options`` are those of
    ``export``. Whatever fails, nothing new stands under the name.

    Returns: the artifact and the comparison; no comparison for the file of a fallback, which is not run.
    Raises what ``export``, ``read_rows`` and ``Session`` raise, and ExportError where file and module differ grossly.
    """
    path = through_link(path)
    choose(device, this_machine(cuda=device != "cpu"))  # before any work
    with whole_files(path.parent) as stage:
        written = export(module, stage / path.name, dtype=dtype, **options)
        final = replace(written, path=path.with_name(written.path.name))
        if written.summary is None:
            return final, None
        port = written.summary.inputs[0]
        if data is None:
            rows, origin = sample(port), "seeded rows"
        else:
            rows, origin = read_rows(data, port, dtype=dtype)[0], f"rows of {data}"
        comparison = compare(module, written.path, rows, origin=origin, device=device)
        if comparison.grossly_apart:
            message = (
                f"the file differs from the module by {comparison.from_float32:.2g} on {origin}, where its outputs"
            )
            hint = "look for code in a forward that acts on Python state or asks for the type of its input"
            raise ExportError(f"{message} reach {comparison.magnitude:.2g}; nothing was published. What to do: {hint}")
        return final, comparison
