"""A session after thirty requests of all kinds answers as a fresh one; tests/soak.py asks thousands."""

import random

import pytest

from ltbm.demo.bundle import demo_bundle
from tests.soak import Caller, growth

REQUESTS = 30
COMPARED = 10


@pytest.mark.slow
def test_requests_leave_no_trace():
    with demo_bundle() as bundle:
        caller = Caller(bundle, random.Random(0))
        with caller.session:
            for number in range(1, REQUESTS + 1):
                caller.call(compares=number % COMPARED == 0)
    assert caller.wrong == [] and caller.counts["compared"] == REQUESTS // COMPARED
    assert {"ask", "chat", "leave", "sample", "err"} <= caller.counts.keys()


@pytest.mark.parametrize(
    "bytes_a_request, is_flat",
    [(0, True), (10, True), (400, False), (50_000, False)],
)
def test_growth_beyond_noise_is_seen(bytes_a_request, is_flat):
    noise = random.Random(0)
    resident = []
    for request in range(2000):
        warm_up = min(request, 300) * 100_000
        resident.append(int(2e8 + warm_up + bytes_a_request * request + noise.gauss(0, 200_000)))
    assert growth(resident).is_flat == is_flat
