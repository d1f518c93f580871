"""What runs inside the cluster: scoring of one part, the workers that do it, and the job that hands out the parts.

Nothing is returned by exception: a receipt says what a part gave, or why it could not be scored, so that the message
arrives as it was written. Ray repeats a part whose worker died. Before a worker scores a part it records the attempt
beside the results, so that a part that kills its workers is given up and named.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from runtime.data.batches import merge_small
from runtime.data.checks import Checks
from runtime.data.reading import open_rows
from runtime.data.results import results_frame
from runtime.data.scoring import input_ports
from runtime.data.streaming import score_batch
from runtime.data.unusual_values import NonFinite, Outside, OutsideTally
from runtime.errors import ClusterError, InputError, MissingPackageError, ModelError, OutputError, ProviderError
from runtime.extras import imported
from runtime.files import whole_file
from runtime.session.session import Session
from runtime.version import VERSION

from .partition import PURPOSE, Part

ATTEMPTS_FOLDER = ".attempts"
_MAX_ATTEMPTS = 3
_ERRORS = {
    error.__name__: error
    for error in (InputError, ModelError, OutputError, ProviderError, MissingPackageError, ClusterError)
}
"""What a record may carry; ``raise_error`` raises it again."""


@dataclass(frozen=True)
class ScoredPart:
    """What scoring a part did."""

    rows: int
    """Written."""
    size: int
    """Of the file of results, in bytes."""
    outside_rows: int
    """Rows outside a range that the model declares for its input."""
    outside: Outside | None
    """The first feature outside its range; its row is counted in the source."""
    nonfinite: NonFinite | None
    """NaN and infinite values, which went through the model."""
    failed_rows: int
    """Rows that could not be read and have empty results."""
    failed: tuple[str, ...]
    """The first of them."""
    rounded: bool
    """Whether numbers of float64 columns became the nearest float32."""


class JobSpec(TypedDict):
    """The work, the same for every worker, as it travels."""

    parts: list[dict[str, Any]]
    """The fields of each ``Part``."""
    folder: str
    """For the results; every machine of the cluster sees it under this path."""
    device: str
    threads: int
    options: dict[str, Any]
    """Of ``score_part``."""
    version: str


def score_part(
    session: Session,
    part: Part,
    folder: str | Path,
    *,
    dtype: str | None = None,
    on_error: str = "fail",
    reject_nonfinite: bool = False,
    keep: Sequence[str] = (),
) -> ScoredPart:
    """Score the rows of ``part`` into its file in ``folder``: kept columns, then those of ``runtime.columns_of``.

    The file appears under its name when it is complete, and replaces an earlier one, so that a part may be scored
    again. Options and errors are those of ``runtime.score_file``.
    """
    for package in ("polars", "pyarrow"):
        imported(package, PURPOSE)
    from runtime.data.format_arrow import arrow_table, parquet_writer

    ports, path = input_ports(session), Path(part.source)
    checks = Checks(ports, path, on_error=on_error, reject_nonfinite=reject_nonfinite)
    checks.rows = part.first_row  # so that rows are counted as in the file
    writer: Any = None
    with (
        whole_file(Path(folder) / part.target) as temporary,
        open_rows(path, ports, dtype=dtype, row_groups=part.row_groups, keep=keep, threads=1) as source,
        closing(checks.run(source)) as batches,
    ):
        try:
            for batch in merge_small(batches):
                results = arrow_table(results_frame(score_batch(session, batch), batch.failed))
                table = _with_kept_columns(results, batch.table, part, keep)
                writer = writer or parquet_writer(temporary, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        size = temporary.stat().st_size
    outside = checks.outside or OutsideTally()
    return ScoredPart(
        rows=checks.rows - part.first_row,
        size=size,
        outside_rows=outside.rows,
        outside=min(outside.features, key=lambda feature: feature.first_row, default=None),
        nonfinite=checks.nonfinite,
        failed_rows=checks.failed_rows,
        failed=tuple(checks.failed),
        rounded=checks.rounded,
    )


def _with_kept_columns(results: Any, source: Any, part: Part, keep: Sequence[str]) -> Any:
    """The kept columns and the results as one table, with metadata that says which rows of which file they are."""
    pyarrow = imported("pyarrow", PURPOSE)
    duplicate = next((name for name in keep if name in results.schema.names), None)
    if duplicate is not None:
        message = f"column '{duplicate}' cannot be kept, since a column of the results has that name"
        raise InputError(f"{part.source}: {message}")
    if keep and source is None:  # there are no rows
        schema = imported("pyarrow.parquet", PURPOSE).read_schema(part.source)
        kept = [pyarrow.nulls(results.num_rows, schema.field(name).type) for name in keep]
    else:
        kept = [source.column(name) for name in keep]
    table = pyarrow.table([*kept, *results.columns], names=[*keep, *results.schema.names])
    return table.replace_schema_metadata({"mlpx.source": part.origin, "mlpx.first_row": str(part.first_row)})


def error_record(error: Exception) -> dict[str, Any]:
    """An error as it travels."""
    name = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), None)
    message = str(error) if name is not None else f"{type(error).__name__}: {error}"
    return {"error": name or ClusterError.__name__, "message": message}


def raise_error(record: dict[str, Any]) -> None:
    """Raise the error that a record holds, if it holds one."""
    if "error" in record:
        raise _ERRORS[record["error"]](record["message"])


class Worker:
    """Scores parts. The model is loaded with the first of them."""

    def __init__(self, job: JobSpec, model: Any):
        self._job, self._model = job, model
        self._session: Session | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The receipt of the part with this number."""
        number = int(row["part"])
        try:
            receipt = self._score(number)
        except Exception as error:
            receipt = error_record(error)
        return {"receipt": json.dumps(receipt | {"part": number})}

    def _score(self, number: int) -> dict[str, Any]:
        job, part, host = self._job, Part(**self._job["parts"][number]), socket.gethostname()
        if job["version"] != VERSION:
            hint = "install the same version on every machine of the cluster"
            raise ClusterError(f"{host} has mlpx {VERSION}, and this machine {job['version']}. What to do: {hint}")
        attempts = _count_attempt(Path(job["folder"]) / ATTEMPTS_FOLDER / str(number))
        if attempts > _MAX_ATTEMPTS:
            rows = f"rows {part.first_row + 1:,} to {part.first_row + part.rows:,}"
            hint = "check whether its machine ran out of memory, and score that file alone"
            raise ClusterError(f"{part.source}: {_MAX_ATTEMPTS} workers died over {rows}. What to do: {hint}")
        if self._session is None:
            model = self._model if isinstance(self._model, bytes) else imported("ray", PURPOSE).get(self._model)
            self._session = Session(model, job["device"], threads=job["threads"], workers=job["threads"])
        began = time.time()
        scored = score_part(self._session, part, job["folder"], **job["options"])
        times = {"began": began, "ended": time.time()}
        return asdict(scored) | times | {"device": self._session.device, "attempts": attempts}


def _count_attempt(path: Path) -> int:
    """Record the attempt as a byte of a file; how many there have been."""
    try:
        path.parent.mkdir(exist_ok=True)
        with open(path, "ab") as file:
            file.write(b"x")
        return path.stat().st_size
    except OSError as error:
        hint = "give a folder that this machine and every machine of the cluster see under the same path"
        reason = f"cannot be written on {socket.gethostname()}: {error.strerror}"
        raise OutputError(f"{path.parent.parent}: {reason}. What to do: {hint}") from None


class Job:
    """Hands out the parts to workers, by Ray Data. It is an actor in the cluster, as Ray Data runs nowhere else."""

    def __init__(self, job: JobSpec, model: list[Any], workers: int, gpu: bool):
        data: Any = imported("ray.data", PURPOSE)
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        self._model = model  # Ray frees the bytes when nothing refers to them
        numbers = [{"part": number} for number in range(len(job["parts"]))]
        dataset = data.from_items(numbers, override_num_blocks=len(numbers)).map(
            Worker,
            fn_constructor_args=(job, model[0]),
            compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=job["threads"],
            num_gpus=1 if gpu else 0,
        )
        self._receipts: Iterator[dict[str, Any]] = iter(dataset.iter_rows())

    def next(self) -> str | None:
        """The next receipt, as JSON; None after the last."""
        row = next(self._receipts, None)
        return None if row is None else row["receipt"]
