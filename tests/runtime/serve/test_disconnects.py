"""A client that goes frees its place at once, and touches no other's request."""

import threading
import time

import httpx2 as httpx
import pytest

from ltbm.runtime.levels import parse_level
from ltbm.runtime.pipeline import Pipeline
from ltbm.runtime.serve.settings import Limits, Settings
from tests.support.serving import SlowSession, question, serving

FREED_SECONDS = 1.0  # a token of the slow session takes 0.05


@pytest.fixture(scope="module")
def slow(demo):
    """A server whose answers take more than a second."""
    with serving(demo, Settings(limits=Limits(queued=2)), SlowSession) as running:
        yield running


def request(clip, **fields):
    return {"model": "ltbm", "messages": question(clip), **fields}


def test_a_stream_left_by_the_official_client(slow, clips):
    with slow.client() as client:
        stream = client.chat.completions.create(**request(clips[0], stream=True))
        next(iter(stream))
        slow.wait_until(running=1, queued=0)
        stream.close()
        assert slow.wait_until(running=0, queued=0) < FREED_SECONDS


@pytest.mark.parametrize("stream", [False, True])
def test_a_socket_closed_in_the_middle_of_an_answer(slow, clips, stream):
    connection = slow.post_raw(request(clips[0], stream=stream))
    slow.wait_until(running=1, queued=0)
    connection.close()
    assert slow.wait_until(running=0, queued=0) < FREED_SECONDS


def test_a_socket_closed_in_the_middle_of_the_body(slow):
    connection = slow.connect()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 1000\r\n\r\n{"
    )
    slow.wait_until(running=0, queued=1)
    connection.close()
    assert slow.wait_until(running=0, queued=0) < FREED_SECONDS


def test_a_client_that_gives_up_waiting(slow, clips):
    with slow.client(timeout=httpx.Timeout(0.3, connect=5)) as client:
        with pytest.raises(Exception, match="timed out"):
            client.chat.completions.create(**request(clips[0]))
    assert slow.wait_until(running=0, queued=0) < FREED_SECONDS


def test_a_queued_client_that_goes_leaves_the_running_one_alone(slow, clips):
    answers = []

    def ask():
        with slow.client() as client:
            answers.append(client.chat.completions.create(**request(clips[1])))

    running = threading.Thread(target=ask)
    running.start()
    slow.wait_until(running=1, queued=0)
    queued = slow.post_raw(request(clips[0]))
    slow.wait_until(running=1, queued=1)
    queued.close()
    assert slow.wait_until(running=1, queued=0) < FREED_SECONDS
    running.join()
    with slow.client() as client:
        again = client.chat.completions.create(**request(clips[1]))
    assert answers[0].choices[0] == again.choices[0]


def test_a_running_client_that_goes_leaves_the_queued_one_alone(slow, clips):
    first = slow.post_raw(request(clips[0], stream=True))
    slow.wait_until(running=1, queued=0)
    answers = []

    def ask():
        with slow.client() as client:
            answers.append(client.chat.completions.create(**request(clips[2])))

    second = threading.Thread(target=ask)
    second.start()
    slow.wait_until(running=1, queued=1)
    first.close()
    second.join()
    with slow.client() as client:
        again = client.chat.completions.create(**request(clips[2]))
    assert answers[0].choices[0] == again.choices[0]


def test_the_log_and_the_figures_count_it(slow, clips):
    def gone() -> str:
        text = slow.request("GET", "/metrics")[2].decode()
        counted = [line for line in text.splitlines() if 'status="499"' in line]
        return counted[0].split()[-1] if counted else "0"

    before = gone()
    slow.post_raw(request(clips[0])).close()
    slow.wait_until(running=0, queued=0)
    deadline = time.monotonic() + 2
    while gone() == before:
        assert time.monotonic() < deadline


def test_the_encoder_is_left_in_the_middle(demo, make_clip):
    """Interrupted from another thread, a long encoder run fails early; afterwards the same engine works."""
    with Pipeline.open(demo, threads=1) as pipeline:
        clip = make_clip(600)
        audios = pipeline.segments(clip, "segments")
        everything = [segment for audio in audios for segment in audio]
        pipeline.features(everything)
        begun = time.perf_counter()
        whole = pipeline.encode(everything)
        seconds = time.perf_counter() - begun
        threading.Timer(seconds / 10, pipeline.engines.interrupt, [True]).start()
        begun = time.perf_counter()
        with pytest.raises(Exception, match="terminate"):
            pipeline.encode(everything)
        assert time.perf_counter() - begun < seconds / 2
        pipeline.engines.interrupt(False)
        again = pipeline.encode(everything)
        assert (again[-1].audio_embeds == whole[-1].audio_embeds).all()
        pipeline.merge(again[:1], parse_level("keep25"))
