"""The OpenAPI document, and requests made up from it: none is answered with a 500."""

import json
import os
from collections import Counter
from contextlib import suppress

import pytest

from ltbm.runtime.serve.level_fields import LEVEL_FIELDS
from ltbm.runtime.serve.sampling_fields import SAMPLING_FIELDS

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra test)")
from hypothesis import HealthCheck, given, settings  # noqa: E402  comes with it
from hypothesis.errors import Unsatisfiable  # noqa: E402

EXAMPLES = int(os.environ.get("LTBM_OPENAPI_EXAMPLES", 60))  # of each operation
OPERATIONS = 7
MODEL_PATHS = ("/v1/chat/completions", "/v1/audio/transcriptions")


def test_no_request_is_answered_with_a_500(live):
    api = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    operations = [result.ok() for result in api.get_all_operations()]
    assert len(operations) == OPERATIONS
    statuses = Counter()
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            call_with_made_up_requests(operation, mode, statuses)
    print(dict(statuses))
    assert {(path, 400) for path in MODEL_PATHS} <= set(statuses)


def call_with_made_up_requests(operation, mode, statuses: Counter) -> None:
    """Requests that the document allows (positive), or that it does not (negative)."""

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case):
        response = case.call()
        statuses[operation.path, response.status_code] += 1
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.json()["error"]["message"]

    with suppress(Unsatisfiable):  # a path without parameters has nothing to get wrong
        call()


def test_it_names_every_field(live):
    document = json.loads(live.request("GET", "/openapi.json")[2])
    chat = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]
    assert set(LEVEL_FIELDS) | set(SAMPLING_FIELDS) <= set(chat["schema"]["properties"])
