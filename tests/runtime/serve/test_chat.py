"""Chat completions through the official client."""

import base64

import openai
import pytest

from ltbm.runtime.levels import Budget, parse_level
from ltbm.runtime.sampling import Sampling
from tests.support.serving import QUESTION, question


def ask(client, messages, model="ltbm", **options):
    return client.chat.completions.create(model=model, messages=messages, **options)


def test_the_answer_is_the_library_s(client, library, clips):
    answer = ask(client, question(clips[0]), extra_body={"level": "keep25"})
    expected = library.generate(clips[0], QUESTION, "keep25")
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason == "stop"
    assert answer.usage.prompt_tokens == len(expected.prompt_token_ids)
    assert answer.usage.completion_tokens == len(expected.token_ids)
    assert answer.usage.prompt_tokens_details.audio_tokens == expected.tokens_out
    assert answer.ltbm["audio_tokens_in"] == expected.tokens_in
    assert answer.ltbm["level"] == "keep25" and answer.ltbm["applied"] and answer.ltbm["reason"] == ""
    assert answer.ltbm["timings"]["ttft"] > 0


def test_a_stream_joins_to_the_answer(client, clips):
    whole = ask(client, question(clips[1]))
    stream = ask(client, question(clips[1]), stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content and len(pieces) > 5
    assert chunks[0].choices[0].delta.role == "assistant"
    last, usage = chunks[-2:]
    assert last.choices[0].finish_reason == "stop" and last.ltbm["level"] == "keep50"
    assert usage.choices == [] and usage.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_of_bytes_ends_with_done(live, clips):
    connection = live.post_raw({"model": "ltbm", "messages": question(clips[0]), "stream": True})
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        received += connection.recv(65536)
    connection.close()
    assert b"content-type: text/event-stream" in received
    assert b"data: [DONE]\n\n" in received and b"usage" not in received


@pytest.mark.parametrize(
    "fields,level",
    [
        ({"level": "keep12"}, parse_level("keep12")),
        ({"level": 0.3}, parse_level(0.3)),
        ({"keep_ratio": "3/10"}, parse_level("3/10")),
        ({"audio_tokens": 20}, Budget(20)),
        ({"task": "transcribe"}, parse_level("full")),
        ({"level": "keep12", "window": "global"}, parse_level("keep12", window="global")),
        ({"level": "keep12", "positions": "compact"}, parse_level("keep12", positions="compact")),
        ({"level": "keep12", "attention": "plain"}, parse_level("keep12", attention="plain")),
        ({"level": "keep12", "attention": 1.5}, parse_level("keep12", attention=1.5)),
        ({}, parse_level("keep50")),
    ],
)
def test_the_level_is_chosen_by_fields(client, library, clips, fields, level):
    answer = ask(client, question(clips[2]), extra_body=fields)
    expected = library.generate(clips[2], QUESTION, level)
    assert answer.choices[0].message.content == expected.text
    assert answer.usage.prompt_tokens_details.audio_tokens == expected.tokens_out


def test_the_level_is_chosen_by_the_model_s_name(client, clips):
    names = [model.id for model in client.models.list()]
    assert names == ["ltbm"] + [
        f"ltbm:{level}" for level in ("full", "keep75", "keep50", "keep33", "keep25", "keep12", "keep6")
    ]
    assert client.models.retrieve("ltbm:keep25").id == "ltbm:keep25"
    assert ask(client, question(clips[0]), model="ltbm:keep25").ltbm["level"] == "keep25"


def test_several_audios_and_a_system_turn(client, library, clips):
    messages = [{"role": "system", "content": "a"}, *question(clips[0], clips[1])]
    answer = ask(client, messages)
    alone = [ask(client, question(clip)).ltbm["audio_tokens_in"] for clip in clips[:2]]
    assert answer.ltbm["audio_tokens_in"] == sum(alone)
    without = ask(client, question(clips[0], clips[1]))
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens


def test_a_conversation_reuses_the_kv_cache(client, library, clips):
    first = ask(client, question(clips[3]))
    text = first.choices[0].message.content
    further = [
        *question(clips[3]),
        {"role": "assistant", "content": text},
        {"role": "user", "content": "how often ?"},
    ]
    second = ask(client, further)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens
    conversation = library.converse()
    conversation.ask(QUESTION, clips[3])
    assert second.choices[0].message.content == conversation.ask("how often ?").text


def test_audio_of_several_messages_stays_in_order(client, library, clips):
    conversation = library.converse()
    first = conversation.ask(QUESTION, clips[0]).text
    second = conversation.ask(QUESTION, clips[1])
    messages = [*question(clips[0]), {"role": "assistant", "content": first}, *question(clips[1])]
    answer = ask(client, messages)
    assert answer.choices[0].message.content == second.text
    swapped = [*question(clips[1]), {"role": "assistant", "content": first}, *question(clips[0])]
    assert ask(client, swapped).choices[0].message.content != second.text


def test_audio_by_a_data_address(client, clips):
    data = base64.b64encode(clips[0].read_bytes()).decode()
    part = {"type": "audio_url", "audio_url": {"url": f"data:audio/flac;base64,{data}"}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}]
    assert ask(client, messages).choices == ask(client, question(clips[0])).choices


def test_text_alone(client):
    answer = ask(client, [{"role": "user", "content": "how often ?"}])
    assert answer.ltbm["reason"] == "the prompt has no audio"
    assert answer.usage.prompt_tokens_details.audio_tokens == 0


def test_max_tokens(client, clips):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = ask(client, question(clips[0]), **{name: 3})
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (3, "length")


def test_sampling_is_the_library_s(client, library, clips):
    texts = []
    for seed in range(6):
        sampled = ask(
            client, question(clips[4]), temperature=2, seed=seed, extra_body={"repetition_penalty": 3}
        )
        expected = Sampling(temperature=2, seed=seed, repetition_penalty=3)
        texts.append(sampled.choices[0].message.content)
        assert texts[-1] == library.generate(clips[4], QUESTION, sampling=expected).text
    assert len(set(texts)) > 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_before_it(client, clips, stream):
    whole = ask(client, question(clips[0])).choices[0].message.content
    stop = whole[10:16]
    answer = ask(client, question(clips[0]), stop=[stop, "never"], stream=stream)
    if stream:
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert answer.usage.completion_tokens < 23
    assert text == whole[: whole.index(stop)] and reason == "stop"


@pytest.mark.parametrize(
    "fields,param",
    [
        ({"level": "keep99"}, "level"),
        ({"level": 2}, "level"),
        ({"level": "1e999999999"}, "level"),
        ({"keep_ratio": 0}, "keep_ratio"),
        ({"keep_ratio": "1/0"}, "keep_ratio"),
        ({"audio_tokens": 0}, "audio_tokens"),
        ({"audio_tokens": 5, "keep_ratio": 0.5}, "audio_tokens"),
        ({"window": "far"}, "window"),
        ({"window": -1}, "window"),
        ({"positions": "mixed"}, "positions"),
        ({"attention": 30}, "attention"),
        ({"attention": True}, "attention"),
        ({"attention": "strong"}, "attention"),
        ({"task": "sing"}, "task"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"guided_json": {}}, "guided_json"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 1e-300}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": "x"}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"max_tokens": 100_000}, "messages"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_wrong_field_is_named(client, clips, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, question(clips[0]), extra_body=fields)
    assert caught.value.param == param and caught.value.code and caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "messages,param",
    [
        ([], "messages"),
        ("hello", "messages"),
        ([{"content": "hm"}], "messages[0].role"),
        ([{"role": "tool", "content": "hm"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "assistant", "content": "hm"}], "messages"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": "say <|AUDIO|>"}], "messages"),
        ([{"role": "user", "content": "\ud800"}], "messages[0].content"),
        ([{"role": "user", "content": "how often ? " * 10_000}], "messages"),
        ([{"role": "user", "content": "how often ? " * 100_000}], "messages"),
    ],
)
def test_a_wrong_message_is_named(live, messages, param):
    status, error = live.post({"model": "ltbm", "messages": messages})
    assert (status, error["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "text,code", [("say <|AUDIO|>", "invalid_prompt"), ("how often ? " * 10_000, "context_length_exceeded")]
)
def test_a_prompt_that_is_too_long_has_a_code_of_its_own(client, text, code):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, [{"role": "user", "content": text}])
    assert caught.value.code == code


def audio_message(**audio):
    return [{"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}]


@pytest.mark.parametrize(
    "audio,param",
    [
        ({"format": "wav"}, "data"),
        ({"data": "!!!", "format": "wav"}, "data"),
        ({"data": "AAAA", "format": "wav"}, "data"),
        ({"data": "", "format": "wav"}, "data"),
        ({"data": "AAAA", "format": "webm"}, "format"),
    ],
)
def test_a_wrong_audio_is_named(client, audio, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, audio_message(**audio))
    assert caught.value.param == f"messages[0].content[0].input_audio.{param}"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.wav",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "http://[",
        "data:audio/wav;base64",
    ],
)
def test_an_address_that_is_not_allowed(client, url):
    part = {"type": "audio_url", "audio_url": {"url": url}}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, [{"role": "user", "content": [part]}])
    assert caught.value.param == "messages[0].content[0].audio_url.url"


def test_an_unknown_model(client, clips):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, question(clips[0]), model="gpt-4o")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_a_level_beside_an_alias(client, clips):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, question(clips[0]), model="ltbm:keep25", extra_body={"level": "full"})
    assert caught.value.param == "level"


def test_the_parts_of_the_api_that_ask_nothing_are_taken(client, clips):
    answer = ask(
        client,
        question(clips[0]),
        n=1,
        frequency_penalty=0,
        logprobs=False,
        tools=[],
        user="me",
        response_format={"type": "text"},
    )
    assert answer.choices[0].message.content
