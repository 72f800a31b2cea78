"""The server asked whatever its OpenAPI document allows, and what it forbids."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi import checks

from rlaif_sdk import RewardBatch
from rlaif_sdk.serving import create_app
from tests.integrations.cases import build_composer
from tests.serving.loopback import serving

KEY = "k3y-0123456789"
NOT_ASKED = [
    checks.ignored_auth,  # it takes away a key that it added itself, and this one is added here
    checks.positive_data_acceptance,  # what a composition needs of a row is more than the document says
]
QUICK = [hypothesis.HealthCheck.filter_too_much, hypothesis.HealthCheck.too_slow]


@pytest.fixture(scope="module", params=[{}, {"cohort": True, "cohort_deadline": 0.02}], ids=["plain", "cohort"])
def server(request):
    with build_composer() as composer, serving(composer, api_key=KEY, **request.param) as running:
        composer.compose(RewardBatch(["p"], ["c"], columns={"label": ["c"]}))  # a reward must answer once
        yield running


def operations() -> list[str]:
    with build_composer() as composer:
        paths = create_app(composer).openapi()["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("operation", operations())
def test_every_answer_is_as_documented(server, operation, mode):
    """No status, type or shape that the document does not have, no error of the server."""
    method, path = operation.split()
    if server.app.state.service.settings.cohort and path != "/v1/score":
        pytest.skip("what gathers groups differs there alone")
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    asked = document[path][method]
    if mode == "negative" and method == "GET":
        pytest.skip("there is nothing to get wrong")

    @hypothesis.given(case=asked.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    @hypothesis.settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=QUICK)
    def ask(case):
        case.call_and_validate(headers={"authorization": f"Bearer {KEY}"}, timeout=20, excluded_checks=NOT_ASKED)

    ask()
    assert server.client.get("/health").status_code == 200
