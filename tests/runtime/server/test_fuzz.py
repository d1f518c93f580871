"""Any body at all gets the right rows or a 4xx, by the parser alone and by a server; the document's paths too.

``python -m benchmarks.fuzz_serving --minutes 10`` does the same for longer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings

from runtime.model.port import Port
from runtime.server.messages import format_response, parse_request
from runtime.server.refusals import Refusal
from runtime.server.signature import signature_of
from tests.support.outcomes import outcome
from tests.support.repeats import examples
from tests.support.serving import Server, serving
from tests.support.stress.bodies import FEATURES, Given, given_bodies
from tests.support.stress.checker import Checker
from tests.support.stress.fuzzing import ask_any_body, ask_by_document
from tests.support.stress.models import Proved, proved

SIGNATURE = signature_of((Port("input", ("batch", FEATURES)),), (Port("output", ("batch", 3)),), 1000)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return proved(tmp_path_factory.mktemp("arm"))


@pytest.fixture(scope="module")
def service(arm: Proved) -> Iterator[Server]:
    """Beside what a test asks, another client's answers stay right."""
    with serving(arm.file.parent, "--device", "auto", "--max-rows", 1000) as service:
        with Checker(service.address, "arm", arm.answers):
            yield service
        assert not service.unexpected()


@given(given_bodies)
@settings(max_examples=300, deadline=None)
def test_the_parser_gives_the_rows_or_refuses(given: Given) -> None:
    request = outcome(Refusal, parse_request, given.body, None if given.head is None else int(given.head), SIGNATURE)
    if isinstance(request, Refusal):
        assert given.rows is None
        assert request.status in (400, 413)
        assert str(request)
        return
    (rows,) = request.feed.values()
    assert rows.dtype == np.float32
    assert rows.shape == (request.rows, FEATURES)
    if given.rows is not None:
        np.testing.assert_array_equal(rows, given.rows)
    format_response("arm", "1", request, {"output": np.zeros((request.rows, 3), np.float32)})


def test_any_body_gets_the_right_rows_or_a_4xx(service: Server, arm: Proved) -> None:
    ask_any_body(service.address, arm.file, settings(max_examples=examples(100, of=300), deadline=None))


def test_the_document_says_what_the_server_does(service: Server) -> None:
    ask_by_document(service.url, settings(max_examples=10, deadline=None))
