"""A client that goes frees its place at once, and touches no other's request."""

import threading
import time

import openai
import pytest
import soundfile

from ltbm.runtime.serve.settings import Limits, Settings
from ltbm.runtime.session import Session
from tests.support.serving import SlowSession, question, serving

FREED_SECONDS = 2.0  # a token of the slower session takes 0.2, its whole answer about LONG over 5


class SlowerSession(SlowSession):
    seconds = 0.2  # a token


@pytest.fixture(scope="module")
def slow(demo):
    """A server whose answers take about a second."""
    with serving(demo, Settings(limits=Limits(queued=2)), SlowSession) as running:
        yield running


@pytest.fixture(scope="module")
def slower(demo):
    with serving(demo, Settings(limits=Limits(queued=2)), SlowerSession) as running:
        yield running


@pytest.fixture(scope="module")
def long_clip(clips):
    """The clip that the model says most about: 26 tokens."""
    return clips[4]


def request(clip, **fields):
    return {"model": "ltbm", "messages": question(clip), **fields}


def test_a_stream_left_by_the_official_client(slower, long_clip):
    with slower.client() as client:
        stream = client.chat.completions.create(**request(long_clip, stream=True))
        next(iter(stream))
        slower.wait_until(running=1, queued=0)
        stream.close()
        assert slower.wait_until(running=0, queued=0) < FREED_SECONDS


@pytest.mark.parametrize("stream", [False, True])
def test_a_socket_closed_in_the_middle_of_an_answer(slower, long_clip, stream):
    connection = slower.post_raw(request(long_clip, stream=stream))
    slower.wait_until(running=1, queued=0)
    connection.close()
    assert slower.wait_until(running=0, queued=0) < FREED_SECONDS


def test_a_socket_closed_in_the_middle_of_the_body(slow):
    connection = slow.connect()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 1000\r\n\r\n{"
    )
    slow.wait_until(running=0, queued=1)
    connection.close()
    assert slow.wait_until(running=0, queued=0) < FREED_SECONDS


def test_a_client_that_gives_up_waiting(slower, long_clip):
    with slower.client(timeout=0.3) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**request(long_clip))
    assert slower.wait_until(running=0, queued=0) < FREED_SECONDS


def test_a_queued_client_that_goes_leaves_the_running_one_alone(slow, clips, long_clip):
    answers = []

    def ask():
        with slow.client() as client:
            answers.append(client.chat.completions.create(**request(long_clip)))

    before = SlowSession.requests
    running = threading.Thread(target=ask)
    running.start()
    slow.wait_until(running=1, queued=0)
    queued = slow.post_raw(request(clips[0]))
    slow.wait_until(running=1, queued=1)
    time.sleep(0.2)  # until its audio is read and it waits for the engine
    queued.close()
    slow.wait_until(running=1, queued=0)  # while the one that runs goes on
    running.join()
    slow.wait_until(running=0, queued=0)
    assert SlowSession.requests == before + 1, "the one that went was answered all the same"
    with slow.client() as client:
        again = client.chat.completions.create(**request(long_clip))
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
    deadline = time.monotonic() + 30
    while gone() == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class EncoderWatched(Session):
    """Says when its encoder begins, and whether anything came after it."""

    encoding: threading.Event
    merged: threading.Event

    @classmethod
    def open(cls, path):
        session = super().open(path)
        pipeline = session.pipeline
        cls.encoding, cls.merged = threading.Event(), threading.Event()
        pipeline.encode = _after(cls.encoding, pipeline.encode)
        pipeline.merge = _after(cls.merged, pipeline.merge)
        return session


def _after(event, function):
    """`function`, and the event is set before it begins."""

    def watched(*arguments):
        event.set()
        return function(*arguments)

    return watched


def test_the_encoder_is_left_in_the_middle(demo, clips, make_clip, tmp_path):
    """Two minutes of sound keep it busy for half a second: it does not come to its end."""
    path = tmp_path / "long.flac"
    soundfile.write(path, make_clip(120), 16_000)
    settings = Settings(long_audio="segments", limits=Limits(audios=1))
    with serving(demo, settings, EncoderWatched) as server, server.client() as client:
        connection = server.post_raw({"model": "ltbm:keep6", "messages": question(path)})
        assert EncoderWatched.encoding.wait(60)
        connection.close()
        server.wait_until(running=0, queued=0)
        assert not EncoderWatched.merged.is_set()
        after = client.chat.completions.create(model="ltbm", messages=question(clips[0]))
        again = client.chat.completions.create(model="ltbm", messages=question(clips[0]))
        assert after.choices == again.choices and EncoderWatched.merged.is_set()


def test_an_engine_that_cannot_be_interrupted_is_left_after_its_token(demo, long_clip):
    class Uninterruptible(SlowerSession):
        @classmethod
        def open(cls, path):
            session = super().open(path)
            session.pipeline.engines.interrupt = lambda now: None
            return session

    with serving(demo, session=Uninterruptible) as server:
        connection = server.post_raw(request(long_clip, stream=True))
        server.wait_until(running=1, queued=0)
        connection.close()
        assert server.wait_until(running=0, queued=0) < FREED_SECONDS


def test_no_task_is_left(slow):
    deadline = time.monotonic() + 30
    while tasks := slow.uvicorn.server_state.tasks:
        assert time.monotonic() < deadline, tasks
        time.sleep(0.01)
