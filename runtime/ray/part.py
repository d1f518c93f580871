"""One part of the data scored into one file of results, by one worker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.data.checks import Checks, large
from runtime.data.nonfinite import NonFinite
from runtime.data.sinks import results_table
from runtime.data.source_arrow import parquet
from runtime.data.streaming import scores_of
from runtime.errors import InputError
from runtime.extras import imported
from runtime.files import whole_file
from runtime.model.annotate_ports import described
from runtime.model.port import Port
from runtime.model.ranges import Outside, OutsideTally
from runtime.session.session import Session

from .partition import Part


@dataclass(frozen=True)
class Scored:
    """What scoring a part did."""

    rows: int
    """That were written."""
    size: int
    """Of the file of results, in bytes."""
    outside_rows: int
    """Rows that leave a range that the model declares for its input."""
    outside: Outside | None
    """The first feature that does so; its row is counted in the source."""
    nonfinite: NonFinite | None
    """NaN and infinite values, which went through the model."""
    failed_rows: int
    """Rows that could not be read and have empty results."""
    failed: tuple[str, ...]
    """The first of them."""


def score_part(
    session: Session,
    part: Part,
    folder: str | Path,
    *,
    dtype: str | None = None,
    on_error: str = "fail",
    reject_nonfinite: bool = False,
    keep: Sequence[str] = (),
) -> Scored:
    """Score the rows of ``part`` into its file in ``folder``: kept columns, then those of ``runtime.columns_of``.

    The file appears under its name when it is whole, and replaces one that is there, so that a part may be scored
    again. Options and errors are those of ``runtime.score_file``.
    """
    polars, module = (imported(name, "scoring on Ray") for name in ("polars", "pyarrow.parquet"))
    ports, path = named_inputs(session), Path(part.source)
    checks = Checks(ports, path, skipping=on_error == "null", reject_nonfinite=reject_nonfinite)
    checks.rows = part.first_row  # so that rows are counted as in the file
    writer: Any = None
    with (
        whole_file(Path(folder) / part.target) as temporary,
        parquet(path, ports, dtype is not None, False, row_groups=part.row_groups, keep=keep, readers=1) as source,
        closing(checks.of(source)) as batches,
    ):
        try:
            for checked in large(batches):
                results = results_table(polars, scores_of(session, checked), checked.failed)
                table = _table(module, results, checked.batch.table, part, keep)
                if writer is None:
                    texts = [field.name for field in table.schema if str(field.type) in ("string", "large_string")]
                    writer = module.ParquetWriter(
                        temporary, table.schema, compression="zstd", use_dictionary=texts or False
                    )
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        size = temporary.stat().st_size
    left = checks.left or OutsideTally()
    first = min(left.features, key=lambda feature: feature.first_row, default=None)
    written = checks.rows - part.first_row
    return Scored(written, size, left.rows, first, checks.nonfinite, checks.failed_rows, tuple(checks.failed))


def named_inputs(session: Session) -> tuple[Port, ...]:
    """The inputs of a session with what its file says of their features. Raises ModelError."""
    summary = session.summary
    return described(summary.inputs if summary is not None else None, session.inputs, session.path)


def _table(parquet: Any, results: Any, source: Any, part: Part, keep: Sequence[str]) -> Any:
    """The kept columns and the results, and of which rows of which file they are."""
    pyarrow = imported("pyarrow", "scoring on Ray")
    both = next((name for name in keep if name in results.schema.names), None)
    if both is not None:
        raise InputError(f"{part.source}: column '{both}' cannot be kept, since a column of the results has that name")
    if keep and source is None:  # there are no rows
        schema = parquet.read_schema(part.source)
        kept = [pyarrow.nulls(results.num_rows, schema.field(name).type) for name in keep]
    else:
        kept = [source.column(name) for name in keep]
    table = pyarrow.table([*kept, *results.columns], names=[*keep, *results.schema.names])
    return table.replace_schema_metadata({"mlpx.source": part.origin, "mlpx.first_row": str(part.first_row)})
