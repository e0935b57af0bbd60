"""What the server refuses, with which status, and before which work."""

import io
import json
import logging
import threading
import time
import wave

import numpy as np
import openai
import pytest
import soundfile

from ltbm.runtime.serve.settings import MIB, Limits, Media, Settings
from tests.support.serving import SlowSession, question, serving

TIGHT = Limits(
    body_bytes=MIB,
    audio_seconds=20,
    audios=2,
    prompt_tokens=150,
    queued=1,
    queue_seconds=0.3,
    body_seconds=0.5,
)


@pytest.fixture(scope="module")
def tight(demo):
    """A slow server with little room."""
    with serving(demo, Settings(limits=TIGHT), SlowSession) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(demo):
    with serving(demo, Settings(api_key="geheim-ß")) as running:
        yield running


def request(*clips, **fields):
    return {"model": "ltbm", "messages": question(*clips), **fields}


def occupy(server, clip):
    """A request that runs until the socket is closed."""
    connection = server.post_raw(request(clip, stream=True))
    server.wait_until(running=1, queued=0)
    return connection


def test_a_full_queue_is_429_with_retry_after(demo, clips):
    with serving(demo, Settings(limits=Limits(queued=1)), SlowSession) as server, server.client() as client:
        first = occupy(server, clips[0])
        waiting = server.post_raw(request(clips[0]))
        server.wait_until(running=1, queued=1)
        with pytest.raises(openai.RateLimitError, match="queue of 1 is full") as caught:
            client.chat.completions.create(**request(clips[0]))
        assert int(caught.value.response.headers["retry-after"]) >= 1 and caught.value.code == "queue_full"
        first.close()
        waiting.close()


def test_a_long_wait_is_429_with_retry_after(tight, clips):
    first = occupy(tight, clips[0])
    begun = time.monotonic()
    with tight.client() as client, pytest.raises(openai.RateLimitError, match="0.3 s") as caught:
        client.chat.completions.create(**request(clips[0]))
    assert time.monotonic() - begun < 30 and int(caught.value.response.headers["retry-after"]) >= 1
    assert tight.server.engine.running == 1 and tight.server.engine.queued == 0
    first.close()
    tight.wait_until(running=0, queued=0)


def test_health_answers_while_a_request_runs(demo, clips):
    class TwoSeconds(SlowSession):
        seconds = 2  # a token

    with serving(demo, session=TwoSeconds) as server:
        first = occupy(server, clips[0])
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            status, _, body = server.request("GET", "/health")
            times.append(time.perf_counter() - begun)
            assert status == 200 and json.loads(body)["running"] == 1
        assert np.median(times) < 1
        first.close()


def test_a_body_that_is_too_large_is_413_for_the_official_client(tight, tmp_path):
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, MIB), 48_000)
    with tight.client() as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**request(path))
    assert (caught.value.status_code, caught.value.code) == (413, "too_large")


def test_a_body_that_does_not_say_how_large_it_is(tight):
    connection = tight.connect()
    connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    for _ in range(17):
        connection.sendall(piece)
    assert connection.recv(100).startswith(b"HTTP/1.1 413")
    connection.close()


def test_a_slow_body_is_408(tight):
    connection = tight.connect()
    connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
    connection.settimeout(10)
    assert connection.recv(100).startswith(b"HTTP/1.1 408")
    connection.close()


def test_more_audios_than_are_taken(tight, clips):
    with tight.client() as client, pytest.raises(openai.BadRequestError, match="3 audios") as caught:
        client.chat.completions.create(**request(*clips[:3]))
    assert (caught.value.param, caught.value.code) == ("messages", "too_many_audios")


def test_more_prompt_tokens_than_are_taken(tight, clips):
    with tight.client() as client, pytest.raises(openai.BadRequestError, match="at most 150") as caught:
        client.chat.completions.create(**request(clips[0], clips[1], extra_body={"level": "full"}))
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "format,subtype", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)]
)
def test_hours_of_silence_in_a_small_file(tight, tmp_path, format, subtype):
    path = tmp_path / f"long.{format.lower()}"
    soundfile.write(path, np.zeros(16_000 * 60, np.float32), 16_000, format=format, subtype=subtype)
    assert path.stat().st_size < MIB
    with (
        tight.client() as client,
        pytest.raises(openai.BadRequestError, match="longer than the 20 s") as caught,
    ):
        client.chat.completions.create(**request(path))
    assert caught.value.param == "messages[0].content[0].input_audio.data"


def test_seconds_are_counted_over_all_audios(tight, tmp_path):
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path in paths:
        soundfile.write(path, np.zeros(8_000 * 11), 8_000)
    with tight.client() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**request(*paths))
    assert caught.value.param == "messages[0].content[1].input_audio.data"


def test_a_header_that_promises_less_than_there_is(tight):
    """The length is counted while decoding too: a header of zero frames is a stream's."""
    with io.BytesIO() as file:
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, 8000, 0, "NONE", ""))
            out.writeframes(bytes(8000 * 2 * 30))
        data = bytearray(file.getvalue())
    data[40:44] = b"\xff\xff\xff\xff"
    with tight.client() as client, pytest.raises(openai.BadRequestError, match="longer than"):
        client.audio.transcriptions.create(model="ltbm", file=("a.wav", bytes(data)))


@pytest.mark.parametrize(
    "name,data",
    [("a.wav", b"RIFF"), ("a.webm", b"\x1aE\xdf\xa3" * 20), ("a.m4a", b"\0\0\0 ftypM4A ")],
)
def test_what_is_not_audio_names_what_is(tight, name, data):
    with (
        tight.client() as client,
        pytest.raises(openai.BadRequestError, match="WAV, FLAC, OGG.* and MP3") as caught,
    ):
        client.audio.transcriptions.create(model="ltbm", file=(name, data))
    assert (caught.value.param, caught.value.code) == ("file", "invalid_audio")


def test_an_empty_file(tight):
    with tight.client() as client, pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="ltbm", file=("a.wav", b""))
    assert (caught.value.param, caught.value.code) == ("file", "invalid_audio")


def test_a_key(keyed, clips):
    for wrong in ("none", "geheim", "geheim-ß "):
        status, headers, _ = keyed.request("GET", "/v1/models", authorization=f"Bearer {wrong}x")
        assert status == 401 and headers["www-authenticate"] == "Bearer"
    assert (
        keyed.request("GET", "/v1/models", authorization="Bearer geheim-ß".encode().decode("latin-1"))[0]
        == 200
    )
    with keyed.client("wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    assert [keyed.request("GET", path)[0] for path in ("/health", "/health/ready", "/metrics")] == [
        200,
        200,
        401,
    ]


def test_a_page_of_another_origin(live, clips):
    body = json.dumps(request(clips[0])).encode()
    options = {"content_type": "application/json"}
    assert (
        live.request("POST", "/v1/chat/completions", body, origin="http://evil.example", **options)[0] == 403
    )
    own = f"http://127.0.0.1:{live.port}"
    assert live.request("POST", "/v1/chat/completions", body, origin=own, **options)[0] == 200
    status, headers, _ = live.request("OPTIONS", "/v1/chat/completions", origin="http://evil.example")
    assert status == 405 and not [name for name in headers if name.startswith("access-control")]


def test_a_simple_request_of_a_browser_is_no_json(live, clips):
    body = json.dumps(request(clips[0])).encode()
    assert live.request("POST", "/v1/chat/completions", body, content_type="text/plain")[0] == 415


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": NaN}', b"[" * 100_000, b"\xff\xfe"])
def test_a_body_that_is_not_a_json_object(live, body):
    status, _, answer = live.request("POST", "/v1/chat/completions", body, content_type="application/json")
    assert status == 400 and json.loads(answer)["error"]["code"] == "invalid_json"


def test_unknown_paths_and_methods_in_the_same_form(live):
    for method, path, status in (
        ("GET", "/v1/chats", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/../etc", 404),
    ):
        answer = live.request(method, path)
        assert answer[0] == status and json.loads(answer[2])["error"]["message"]


def test_an_error_of_ours_tells_nothing(demo, clips, caplog):
    class Broken(SlowSession):
        def respond(self, request, clock):
            raise ValueError("/secret/path")
            yield

    with serving(demo, session=Broken) as server, server.client() as client:
        with caplog.at_level(logging.ERROR), pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**request(clips[0]))
        assert "secret" not in str(caught.value) and caught.value.response.headers["x-request-id"] in str(
            caught.value
        )
        assert "/secret/path" in caplog.text
        assert json.loads(server.request("GET", "/health")[2])["queued"] == 0


def test_an_error_in_the_middle_of_a_stream(demo, clips):
    class Breaks(SlowSession):
        def respond(self, request, clock):
            yield "a"
            raise ValueError("/secret/path")

    with serving(demo, session=Breaks) as server, server.client() as client:
        with pytest.raises(openai.APIError, match="internal error"):
            list(client.chat.completions.create(**request(clips[0], stream=True)))


def test_files_of_an_allowed_folder(demo, clips, tmp_path):
    outside = tmp_path / "outside.flac"
    outside.write_bytes(clips[0].read_bytes())
    folder = tmp_path / "allowed"
    folder.mkdir()
    (folder / "clip 1.flac").write_bytes(clips[0].read_bytes())
    (folder / "link.flac").symlink_to(outside)

    def ask(server, url):
        part = {"type": "audio_url", "audio_url": {"url": url}}
        return server.post({"model": "ltbm", "messages": [{"role": "user", "content": [part]}]})

    with serving(demo, Settings(media=Media(folder=folder))) as server:
        assert ask(server, f"file://{folder}/clip%201.flac")[0] == 200
        for url in (
            f"file://{outside}",
            f"file://{folder}/link.flac",
            f"file://{folder}/../outside.flac",
            f"file://{folder}/none",
            f"file://{folder}",
            "file:///%00",
        ):
            status, answer = ask(server, url)
            assert status == 400 and str(tmp_path) not in json.dumps(answer)


def test_the_end_gives_requests_their_last_seconds(demo, clips):
    settings = Settings(limits=Limits(shutdown_seconds=20))
    with serving(demo, settings, SlowSession) as server, server.client() as client:
        stream = iter(client.chat.completions.create(**request(clips[0], stream=True)))
        next(stream)
        server.uvicorn.should_exit = True
        assert len(list(stream)) > 5


def test_the_end_cancels_after_a_deadline(demo, clips):
    class Endless(SlowSession):
        seconds = 3

    with serving(demo, Settings(limits=Limits(shutdown_seconds=1)), Endless) as server:
        connection = server.post_raw(request(clips[0], stream=True))
        server.wait_until(running=1, queued=0)
        begun = time.monotonic()
    assert time.monotonic() - begun < 20  # of 33 for the answer's 11 tokens
    connection.close()
    names = [thread.name for thread in threading.enumerate()]
    assert "ltbm-engine" not in names or server.server.engine.running == 0
