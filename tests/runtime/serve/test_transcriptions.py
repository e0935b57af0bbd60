"""Transcriptions through the official client, and the other endpoints."""

import json

import openai
import pytest

from ltbm.runtime.serve.settings import TRANSCRIPTION_PROMPT


def transcribe(client, clip, **options):
    return client.audio.transcriptions.create(model="ltbm", file=clip, **options)


def test_the_answer_is_the_library_s_at_full(client, library, clips):
    answer = transcribe(client, clips[0])
    expected = library.generate(clips[0], TRANSCRIPTION_PROMPT, "full")
    assert answer.text == expected.text and answer.ltbm["level"] == "full"
    assert answer.usage.input_token_details.audio_tokens == expected.tokens_out
    assert answer.usage.output_tokens == len(expected.token_ids)


def test_text_is_text_alone(client, clips):
    assert transcribe(client, clips[0], response_format="text") == transcribe(client, clips[0]).text + "\n"


def test_verbose_json_invents_nothing(client, clips):
    answer = transcribe(client, clips[0], response_format="verbose_json", language="en")
    assert (answer.language, answer.task) == ("en", "transcribe")
    assert answer.duration == pytest.approx(6.0, abs=0.1)
    assert not answer.segments and not answer.words
    without = transcribe(client, clips[0], response_format="verbose_json")
    assert without.language is None


def test_a_stream(client, clips):
    events = list(transcribe(client, clips[0], prompt="What do you hear ?", stream=True))
    assert [event.type for event in events[-1:]] == ["transcript.text.done"]
    pieces = [event.delta for event in events[:-1]]
    assert "".join(pieces) == events[-1].text and len(pieces) > 5


def test_a_prompt_takes_the_place_of_the_question_and_a_language_adds_to_it(client, library, clips):
    def tokens(question):
        return len(library.generate(clips[0], question, "full", max_new_tokens=1).prompt_token_ids)

    for fields, asked in (
        ({"prompt": "how often ?"}, "how often ?"),
        ({"language": "en"}, f"{TRANSCRIPTION_PROMPT} The language is en."),
        ({"language": "en", "prompt": "how often ?"}, "how often ? The language is en."),
    ):
        assert transcribe(client, clips[0], **fields).usage.input_tokens == tokens(asked)


def test_the_level_and_sampling_as_form_fields(client, library, clips):
    answer = transcribe(client, clips[0], temperature=0, extra_body={"audio_tokens": 20, "window": "global"})
    assert answer.usage.input_token_details.audio_tokens == 20 and answer.ltbm["level"] == "tokens20"
    alias = client.audio.transcriptions.create(model="ltbm:keep12", file=clips[0])
    assert alias.ltbm["level"] == "keep12"


@pytest.mark.parametrize(
    "fields,param",
    [
        ({"extra_body": {"level": "keep99"}}, "level"),
        ({"extra_body": {"audio_tokens": "many"}}, "audio_tokens"),
        ({"extra_body": {"timestamps": "1"}}, "timestamps"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]"),
        ({"response_format": "srt"}, "response_format"),
        ({"response_format": "text", "stream": True}, "response_format"),
        ({"language": "the king's English"}, "language"),
        ({"temperature": 9}, "temperature"),
        ({"chunking_strategy": "auto"}, "chunking_strategy"),
    ],
)
def test_a_wrong_field_is_named(client, clips, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        transcribe(client, clips[0], **fields)
    assert caught.value.param == param


def test_a_form_without_a_file(live):
    body = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nltbm\r\n--x--\r\n'
    status, _, answer = live.request(
        "POST", "/v1/audio/transcriptions", body, content_type="multipart/form-data; boundary=x"
    )
    assert status == 400 and json.loads(answer)["error"]["param"] == "file"


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", "multipart/form-data; boundary="]
)
def test_what_is_not_a_form(live, kind):
    assert live.request("POST", "/v1/audio/transcriptions", b"--x", content_type=kind)[0] == 415


@pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\n\r\n", b"nonsense", b"--x\r\na\0: b\r\n\r\n"])
def test_a_form_that_is_broken(live, body):
    answer = live.request(
        "POST", "/v1/audio/transcriptions", body, content_type="multipart/form-data; boundary=x"
    )
    assert answer[0] == 400


def test_the_figures(live, client, clips):
    before = figures(live)
    answer = transcribe(client, clips[0], extra_body={"level": "keep25"})
    after = figures(live)

    def added(name):
        return after[name] - before.get(name, 0)

    assert added('ltbm_audio_tokens_total{direction="in"}') == answer.ltbm["audio_tokens_in"]
    assert added('ltbm_audio_tokens_total{direction="out"}') == answer.ltbm["audio_tokens_out"]
    assert added('ltbm_requests_total{endpoint="/v1/audio/transcriptions",status="200"}') == 1
    assert added("ltbm_time_to_first_token_seconds_count") == 1
    assert added("ltbm_time_per_output_token_seconds_count") == 1
    assert added('ltbm_stage_seconds_count{stage="prefill"}') == 1
    assert added("ltbm_reused_tokens_total") == answer.ltbm["reused_tokens"]
    assert after["ltbm_kv_cache_bytes"] > 0
    assert after["ltbm_requests_running"] == after["ltbm_requests_queued"] == 0


def figures(live) -> dict[str, float]:
    from prometheus_client.parser import text_string_to_metric_families

    status, headers, text = live.request("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    list(text_string_to_metric_families(text.decode()))
    lines = [line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_health(live):
    for path in ("/health", "/health/ready"):
        status, _, body = live.request("GET", path)
        assert status == 200 and json.loads(body)["status"] in ("ok", "ready")
