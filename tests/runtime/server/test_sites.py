"""A browser sends whatever page is open in it: what pages of other sites may not do."""

from collections.abc import Iterator

import pytest

from tests.support.serving import Server, ask, models, serving

UNLOAD = "/v2/repository/models/one/unload"
INFER = "/v2/models/one/infer"
ROW = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(models(tmp_path_factory.mktemp("models"))) as running:
        yield running


@pytest.mark.parametrize("path", [UNLOAD, INFER])
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}],
    ids=lambda held: " ".join(held.values()),
)
def test_a_page_of_another_site_is_refused(server: Server, path: str, headers: dict[str, str]) -> None:
    refused = ask(server.url, "POST", path, ROW if path == INFER else {}, **headers)
    assert refused.status == 403
    assert "another site" in refused.error
    assert ask(server.url, "GET", "/v2/models/one/ready").status == 200


def test_a_name_that_only_points_here_may_not_change_what_is_served(server: Server) -> None:
    host = {"Host": "evil.example", "Origin": "http://evil.example"}
    assert "localhost" in ask(server.url, "POST", UNLOAD, {}, **host).error
    assert ask(server.url, "GET", "/v2/models/one/ready").status == 200
    assert ask(server.url, "POST", INFER, ROW, **host).status == 200  # as behind a proxy


def test_the_own_page_may_ask(server: Server) -> None:
    own = {"Origin": server.url, "Sec_Fetch_Site": "same-origin"}
    assert ask(server.url, "POST", INFER, ROW, **own).status == 200
    load = "/v2/repository/models/one/load"
    assert ask(server.url, "POST", load, {}, **own).status == 200
    port = server.url.rpartition(":")[2]
    assert ask(server.url, "POST", load, {}, Host=f"[::1]:{port}").status == 200
