"""What HTTP adds to the time to the first token, in turns with the library on the same clips."""

import http.client
import json
import time

import numpy as np
import pytest

from tests.support.serving import QUESTION, question, server_process

ROUNDS = 8  # of the clips, over HTTP and in the library; the first warms up
CLIPS = 5
LEVEL = "keep25"
MOST_MS = 100.0  # where nothing else runs it is a few; a machine that others use too must not fail


@pytest.mark.slow
def test_http_adds_little_to_the_time_to_the_first_token(demo, library, clips):
    """Both have the clips' audio encoded already: what remains is reading, prompt, merge and prefill."""
    over_http, in_library = [], []
    with server_process(demo) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for _ in range(ROUNDS):
            over_http.append([http_ttft(connection, clip) for clip in clips[:CLIPS]])
            in_library.append([library_ttft(library, clip) for clip in clips[:CLIPS]])
        connection.close()
    differences = np.array(over_http[1:]) - np.array(in_library[1:])
    median = float(np.median(differences))
    print(
        f"\nTTFT, median ms: HTTP {np.median(over_http[1:]):.1f}, library {np.median(in_library[1:]):.1f}; "
        f"difference {median:.1f}, quartiles {np.percentile(differences, [25, 75]).round(1)}"
    )
    assert median < MOST_MS


def http_ttft(connection: http.client.HTTPConnection, clip) -> float:
    """Milliseconds until the first event of the answer has come."""
    body = json.dumps({"model": f"ltbm:{LEVEL}", "messages": question(clip), "stream": True})
    begun = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    response.readline()
    milliseconds = (time.perf_counter() - begun) * 1e3
    assert response.status == 200
    response.read()
    return milliseconds


def library_ttft(session, clip) -> float:
    begun = time.perf_counter()
    with session.stream(clip, QUESTION, LEVEL) as stream:
        next(stream)
        milliseconds = (time.perf_counter() - begun) * 1e3
        stream.finish()
    return milliseconds
