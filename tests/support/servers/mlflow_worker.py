"""Runs Python in the environment of MLflow: a module whose process takes pieces of code, a line of JSON each.

Each piece is run with the names ``mlflow`` and ``mlpx`` and those that are sent along, and what it names ``result``
comes back as JSON, or the class and the message of its error with its notes. So MLflow is imported once.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def _plain(value: Any) -> Any:
    """What JSON lacks: arrays become lists."""
    return value.tolist() if hasattr(value, "tolist") else vars(value)


def _run(code: str, names: dict[str, Any]) -> dict[str, Any]:
    import mlflow

    import mlpx.mlflow

    scope: dict[str, Any] = {"mlflow": mlflow, "mlpx": mlpx, "result": None, **names}
    try:
        exec(compile(code, "<piece>", "exec"), scope)
    except Exception as error:
        words = "\n".join([str(error), *getattr(error, "__notes__", [])])
        return {"error": type(error).__name__, "words": words}
    return {"result": scope["result"]}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what MLflow prints does not come between
    for line in sys.stdin:
        sent = json.loads(line)
        answers.write(json.dumps(_run(sent["code"], sent["names"]), default=_plain) + "\n")
        answers.flush()
