"""What must hold for any body that is sent to a server, and for any request of its own OpenAPI document."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import given as givens
from schemathesis.checks import CHECKS, not_a_server_error

from runtime import Session
from tests.support.serving import PATIENCE, read

from .bodies import Given, given_bodies

_REFUSED = {400, 413}
_EVERY: Any = list(HealthCheck)
_NOT_ASKED = "unload"
"""Without its model a server rightly answers 503."""
_CONFORMS = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")


def ask_any_body(address: tuple[str, int], file: Path, effort: settings) -> None:
    """Send bodies to the model of a file. Fails: see ``Asker.check``."""
    asker = Asker(address, file)

    @settings(effort, suppress_health_check=_EVERY)
    @givens(given_bodies)
    def check(given: Given) -> None:
        asker.check(given)

    try:
        check()
    finally:
        asker.close()


def ask_by_document(url: str, effort: settings) -> None:
    """Every operation of /openapi.json, with good and bad values. Fails: a 5xx, or an answer that is not described."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json").exclude(path_regex=_NOT_ASKED)
    checks = [not_a_server_error, *CHECKS.get_by_names(list(_CONFORMS))]
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()  # pyright: ignore[reportAttributeAccessIssue] - raises what is wrong

        @settings(effort, suppress_health_check=_EVERY)
        @givens(operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(timeout=PATIENCE, checks=checks)

        check()
        asked += 1
    assert asked > 10, "the document hardly has an operation"


class Asker:
    """Sends bodies to a model, over a connection that it opens anew where the server closed it."""

    def __init__(self, address: tuple[str, int], file: Path):
        self._path = f"/v2/models/{file.stem}/infer"
        self._connection = HTTPConnection(*address, timeout=PATIENCE)
        self._session = Session(file, "cpu")

    def check(self, given: Given) -> int:
        """Ask; the status. Fails: no answer, a status that a body cannot have, rows that are not the model's."""
        headers = {} if given.head is None else {"Inference-Header-Content-Length": given.head}
        try:
            self._connection.request("POST", self._path, given.body, headers)
            status, body, told = read(self._connection.getresponse())
        except (OSError, HTTPException) as error:
            self.close()
            raise AssertionError(f"no answer: {error!r}") from None
        if status != 200:
            assert status in _REFUSED, (status, body)
            assert given.rows is None, body
            assert json.loads(body)["error"]
            return status
        record = json.loads(body)
        (output,) = record["outputs"]
        found = np.array(output["data"], np.float64).reshape(output["shape"])
        assert told["content-length"] == str(len(body))
        if given.rows is not None:
            with np.errstate(all="ignore"):
                exact = self._session.predict(given.rows)
            np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5 * np.abs(given.rows).max(initial=1))
        return status

    def close(self) -> None:
        self._connection.close()
