"""`/v1/audio/transcriptions` over a model that only transcribes, through the official client."""

import base64
import io

import openai
import pytest
import soundfile

from tests.support.serving import serving


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    from ltbm.export.writer import export_bundle
    from tests.support.tiny_asr import make_transcriber

    folder = tmp_path_factory.mktemp("transcriber")
    checkpoint = make_transcriber(folder / "checkpoint")
    bundle = export_bundle(checkpoint, folder / "bundle", progress=lambda line: None)
    with serving(bundle) as running, running.client() as opened:
        yield opened


@pytest.fixture
def clip(make_clip):
    stream = io.BytesIO()
    soundfile.write(stream, make_clip(2), 16_000, format="WAV")
    return "clip.wav", stream.getvalue()


def transcribe(client, clip, **options):
    return client.audio.transcriptions.create(model="ltbm", file=clip, **options)


def test_the_transcript_without_its_language(client, clip):
    answer = transcribe(client, clip)
    assert answer.text == "hi" and answer.ltbm["language"] == "English"
    assert answer.ltbm["level"] == "full" and answer.usage.input_token_details.audio_tokens == 26
    assert transcribe(client, clip, response_format="text") == "hi\n"


def test_verbose_json_has_the_language(client, clip):
    assert transcribe(client, clip, response_format="verbose_json").language == "English"
    assert transcribe(client, clip, response_format="verbose_json", language="de").language == "German"


def test_a_stream(client, clip):
    events = list(transcribe(client, clip, stream=True))
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == "hi"


def test_a_prompt_is_context_and_nothing_is_asked_by_itself(client, clip):
    plain, with_context = (
        transcribe(client, clip, **fields).usage.input_tokens for fields in ({}, {"prompt": "Jetson"})
    )
    assert with_context == plain + len("Jetson")


def test_an_unknown_language_names_those_that_there_are(client, clip):
    with pytest.raises(openai.BadRequestError, match="it knows ar") as caught:
        transcribe(client, clip, language="xx")
    assert caught.value.param == "language"


def test_chat_has_its_default_level_too(client, clip):
    sound = {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(clip[1]).decode(), "format": "wav"},
    }
    answer = client.chat.completions.create(model="ltbm", messages=[{"role": "user", "content": [sound]}])
    assert answer.choices[0].message.content == "hi" and answer.ltbm["level"] == "full"
