"""The table of REST's paths: each path leads to its own row, and whatever the document lists is in the table."""

from __future__ import annotations

import pytest

from runtime.server.routes import ROUTES, find_route


def test_each_path_leads_to_its_own_row() -> None:
    for route in ROUTES:
        values = {"model": "m", "version": "7", "region": "r"}
        path = route.template.format(**values)
        assert find_route(path) == (route, {name: values[name] for name in route.parameters}), path
        assert find_route(f"{path}/") == find_route(path)


@pytest.mark.parametrize(
    "path", ["/v3", "/v2/models", "/v2/models/m/stats/x", "/v2/models/m/other/1/infer", "/pageXcss"]
)
def test_other_paths_lead_nowhere(path: str) -> None:
    assert find_route(path) == (None, {})


def test_a_fixed_path_goes_before_a_model_of_its_name() -> None:
    route, parameters = find_route("/v2/models/stats")
    assert route is not None
    assert route.template == "/v2/models/stats"
    assert parameters == {}
