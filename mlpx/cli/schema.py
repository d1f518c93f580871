"""``mlpx schema``: the JSON Schema of a spec."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, note, print_json


def command(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write; standard output if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the JSON Schema of a spec, for editors that complete and check as one types."""
    from builder import json_schema
    from runtime import write_whole

    schema = json_schema()
    if output is None:
        print_json(schema)
        return
    write_whole(output, (json.dumps(schema, indent=2, ensure_ascii=False) + "\n").encode())
    if as_json:
        print_json({"path": output})
    else:
        note(f"written to {output}")
