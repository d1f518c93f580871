"""Publishing: an exported file appears under its name only when it is proved."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from runtime import choose, this_machine, through_link, whole_files

from .artifact import Artifact, refuse_foreign_data
from .bounds.bounding import SECONDS
from .errors import ExportError, ProofError
from .exporting import export
from .proof import ParityReport, can_write_page, write_page
from .proof.instrumented import Recording
from .proof.verify import Data, prove


def publish(
    module: nn.Module,
    path: str | Path,
    *,
    data: Data | None = None,
    device: str = "auto",
    dtype: str | None = None,
    seed: int = 0,
    page: bool | None = None,
    bound: bool = True,
    recording: Recording | None = None,
    **options: Any,
) -> tuple[Artifact, ParityReport]:
    """Export beside ``path``, prove on ``device`` that the file computes what the module computes, and rename it.

    ``NAME.parity.json`` is written with it, and ``NAME.parity.html`` where ``mlpx[report]`` is installed (or as
    ``page`` says). A file that is not proved never appears under its name: it is kept, with its report, in the folder
    ``NAME.failed``. Where the inputs have declared ranges the report has a bound for every input of them (see
    ``export.bound``), unless ``bound`` is False. ``options`` are those of ``export``; ``data``, ``dtype`` and ``seed``
    those of ``verify``; ``recording`` is that of the proof of another file of this network.

    Returns: the artifact and the report.
    Raises ProofError, whose ``report`` says why, and what ``export`` and ``verify`` raise.

    Examples:
        >>> from torch import nn
        >>> from mlpx import publish
        >>> module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> artifact, report = publish(module, "model.onnx", device="cpu")
        >>> report.verdict
        'proved'
        >>> report.file.name
        'model.onnx'
    """
    path = through_link(path)
    if path.suffix != ".onnx":
        raise ExportError(f"the file's name ends in .onnx, not '{path.name or path}'")
    choose(device, this_machine(cuda=device != "cpu"))  # raises before any work
    with whole_files(path.parent) as stage:
        written = export(module, stage / path.name, dtype=dtype, **options)
        if written.summary.external_data:
            refuse_foreign_data(path)
        final = replace(written, path=path.with_name(written.path.name))
        report = prove(
            *(module, written.path),
            spec=options.get("spec"),
            features=options.get("features"),
            device=device,
            data=data,
            dtype=dtype,
            seed=seed,
            recording=recording,
            example=options.get("example"),
            method=options.get("method", "forward"),
            bound_seconds=SECONDS if bound else None,
        )
        failed = path.with_name(f"{path.stem}.failed")
        if not report.proved:
            report = report.model_copy(update={"kept": str(failed / path.name)})
        report.write(stage / f"{path.stem}.parity.json")
        if page := can_write_page() if page is None else page:
            write_page(report, stage / f"{path.stem}.parity.html")
        if not report.proved:
            with whole_files(failed) as failed_stage:
                for file in stage.iterdir():
                    shutil.move(file, failed_stage / file.name)
            message = f"{path.name} is {report.verdict}: {report.why}"
            raise ProofError(f"{message}. It was not published; the file and its report are in {failed}", report)
    if not page:  # an older file's page
        path.with_name(f"{path.stem}.parity.html").unlink(missing_ok=True)
    # an earlier file of this name that was not proved is removed; other files in the folder stay
    for name in (path.name, f"{path.name}.data", f"{path.stem}.parity.json", f"{path.stem}.parity.html"):
        (failed / name).unlink(missing_ok=True)
    with suppress(OSError):
        failed.rmdir()
    return replace(final, proved=True), report
