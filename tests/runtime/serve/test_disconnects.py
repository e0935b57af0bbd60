"""A client that goes frees its place at once, and touches no other's request."""

import threading
import time

import openai
import pytest
import soundfile

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
    with slow.client(timeout=0.3) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**request(clips[0]))
    assert slow.wait_until(running=0, queued=0) < FREED_SECONDS


def test_a_queued_client_that_goes_leaves_the_running_one_alone(slow, clips):
    answers = []

    def ask():
        with slow.client() as client:
            answers.append(client.chat.completions.create(**request(clips[1])))

    before = SlowSession.requests
    running = threading.Thread(target=ask)
    running.start()
    slow.wait_until(running=1, queued=0)
    queued = slow.post_raw(request(clips[0]))
    slow.wait_until(running=1, queued=1)
    time.sleep(0.2)  # until its audio is read and it waits for the engine
    queued.close()
    assert slow.wait_until(running=1, queued=0) < FREED_SECONDS
    running.join()
    slow.wait_until(running=0, queued=0)
    assert SlowSession.requests == before + 1, "the one that went was answered all the same"
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


def test_the_encoder_is_left_in_the_middle(demo, clips, make_clip, tmp_path):
    """Of two minutes of sound, most of a request is the encoder."""
    path = tmp_path / "long.flac"
    long_request = {"model": "ltbm:keep6", "max_tokens": 1}
    settings = Settings(long_audio="segments", max_new_tokens=1, limits=Limits(audios=1))
    with serving(demo, settings) as server, server.client() as client:
        soundfile.write(path, make_clip(120, seed=1), 16_000)
        whole = client.chat.completions.create(**long_request, messages=question(path))
        encoder = whole.ltbm["timings"]["encoder"] * 1e-3
        assert encoder > 0.4
        soundfile.write(path, make_clip(120, seed=2), 16_000)  # another sound: nothing is kept of it
        connection = server.post_raw({**long_request, "messages": question(path)})
        server.wait_until(running=1, queued=0)
        time.sleep(encoder / 5)
        connection.close()
        assert server.wait_until(running=0, queued=0) < encoder / 2
        after = client.chat.completions.create(model="ltbm", messages=question(clips[0]))
        again = client.chat.completions.create(model="ltbm", messages=question(clips[0]))
        assert after.choices == again.choices


def test_an_engine_that_cannot_be_interrupted_is_left_after_its_token(demo, clips):
    class Uninterruptible(SlowSession):
        @classmethod
        def open(cls, path):
            session = super().open(path)
            session.pipeline.engines.interrupt = lambda now: None
            return session

    with serving(demo, session=Uninterruptible) as server:
        connection = server.post_raw(request(clips[0], stream=True))
        server.wait_until(running=1, queued=0)
        connection.close()
        assert server.wait_until(running=0, queued=0) < FREED_SECONDS / 2


def test_no_task_is_left(slow):
    deadline = time.monotonic() + 5
    while tasks := slow.uvicorn.server_state.tasks:
        assert time.monotonic() < deadline, tasks
        time.sleep(0.01)
