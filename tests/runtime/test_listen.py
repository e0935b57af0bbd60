"""Listening: the same answers as about the whole clip, whatever the pieces and the questions in between."""

import threading

import numpy as np
import pytest

from ltbm.runtime.levels import Budget, parse_level
from ltbm.runtime.sampling import Sampling
from ltbm.runtime.session import Session

PROMPT, OTHER = "What do you hear?", "And how often?"
RATE = 16_000  # Hz
SEGMENT = 30 * RATE  # samples


@pytest.fixture(scope="module")
def alone(make_bundle):
    """family -> a session that keeps nothing: what every answer must equal."""
    opened = {}

    def of(family):
        if family not in opened:
            opened[family] = Session.open(make_bundle(family)[1], reuse=False)
        return opened[family]

    yield of
    for session in opened.values():
        session.close()


@pytest.fixture
def listening(make_bundle):
    """(family, level, options) -> a session and its listener."""
    sessions = []

    def open_one(family="qwen2_audio", level="keep25", **options):
        sessions.append(Session.open(make_bundle(family)[1]))
        return sessions[-1], sessions[-1].listen(level, **options)

    yield open_one
    for session in sessions:
        session.close()


def push_in_pieces(listener, samples, seed=0):
    """Pieces of 1 sample to 40 s."""
    draw = np.random.default_rng(seed)
    while len(samples):
        size = int(draw.choice([1, 160, 4_097, 3 * RATE, 40 * RATE]))
        assert listener.push(samples[:size], block=True)
        samples = samples[size:]


def same(answer, expected):
    assert answer.token_ids == expected.token_ids
    assert answer.prompt_token_ids == expected.prompt_token_ids
    assert answer.text == expected.text
    return True


@pytest.mark.parametrize("level", ("full", "keep50", "keep12"))
@pytest.mark.parametrize("positions", ("original", "compact"))
@pytest.mark.parametrize("attention", ("proportional", "plain"))
def test_answers_are_those_about_the_whole_clip(
    listening, alone, make_clip, family, level, positions, attention
):
    settled = parse_level(level, positions=positions, attention=attention)
    _, listener = listening(family, settled)
    clip = make_clip(65)
    push_in_pieces(listener, clip)
    answer = listener.ask(PROMPT, max_new_tokens=8).finish()
    expected = alone(family).generate(clip, PROMPT, settled, max_new_tokens=8, long_audio="segments")
    assert same(answer, expected)
    assert answer.tokens_in == expected.tokens_in and answer.tokens_out == expected.tokens_out


def test_several_questions_while_it_goes_on(listening, alone, make_clip, family):
    _, listener = listening(family)
    clip = make_clip(95)
    for end, prompt in ((0.5, PROMPT), (20, OTHER), (20, PROMPT), (30, PROMPT), (61.3, OTHER), (95, PROMPT)):
        until = round(end * RATE)
        push_in_pieces(listener, clip[round(listener.pushed_seconds * RATE) : until], seed=until)
        answer = listener.ask(prompt, max_new_tokens=6).finish()
        expected = alone(family).generate(
            clip[:until], prompt, "keep25", max_new_tokens=6, long_audio="segments"
        )
        assert same(answer, expected), end


def test_seeded_sampling(listening, alone, make_clip):
    sampling = Sampling(temperature=1.0, seed=3)
    _, listener = listening()
    clip = make_clip(40)
    push_in_pieces(listener, clip)
    answer = listener.ask(PROMPT, max_new_tokens=8, sampling=sampling).finish()
    expected = alone("qwen2_audio").generate(
        clip, PROMPT, "keep25", max_new_tokens=8, sampling=sampling, long_audio="segments"
    )
    assert same(answer, expected)


def test_a_conversation_keeps_its_turns_behind_the_sound(listening, alone, make_clip, family):
    _, listener = listening(family, conversation=True)
    clip = make_clip(70)
    listener.push(clip[: 35 * RATE])
    first = listener.ask(PROMPT, max_new_tokens=5).finish()
    listener.push(clip[35 * RATE :])
    second = listener.ask(OTHER, max_new_tokens=6).finish()

    chat = alone(family).converse("keep25")
    chat.ask(PROMPT, clip, max_new_tokens=5, long_audio="segments")
    chat.turns[-1] = type(chat.turns[-1])("assistant", first.text)  # what was answered about the first part
    assert same(second, chat.ask(OTHER, max_new_tokens=6))


def test_a_question_waits_for_the_open_segment_alone(listening, make_clip, monkeypatch):
    session, listener = listening("audioflamingo3")
    listener.push(make_clip(64))
    wait_until_read(listener, 2)
    encoded = count_segments(session, monkeypatch)
    answer = listener.ask(PROMPT, max_new_tokens=2).finish()
    assert encoded == [1]
    assert answer.reused_tokens > 2 * 188  # of 30 s at keep25
    assert [event.start for event in listener.events] == [0, 30]
    assert [(event.tokens_in, event.tokens_out) for event in listener.events] == [(750, 188)] * 2


def test_what_was_prepared_is_not_waited_for(listening, alone, make_clip, monkeypatch):
    session, listener = listening()
    clip = make_clip(12)
    listener.push(clip)
    moment = listener.prepare()
    listener.push(0.5 * make_clip(3, seed=5))  # what came before the question, and is left out
    wait_until_read(listener, 1)
    encoded = count_segments(session, monkeypatch)
    answer = listener.ask(PROMPT, max_new_tokens=6, until=moment).finish()
    assert encoded == []
    assert same(answer, alone("qwen2_audio").generate(clip, PROMPT, "keep25", max_new_tokens=6))


def test_preparing_twice_is_no_harm(listening, alone, make_clip):
    """The second time all of the prompt but its last token is in the KV cache, within a segment."""
    _, listener = listening()
    clip = make_clip(8)
    listener.push(clip)
    listener.prepare()
    moment = listener.prepare()
    answer = listener.ask(PROMPT, max_new_tokens=4, until=moment).finish()
    assert same(answer, alone("qwen2_audio").generate(clip, PROMPT, "keep25", max_new_tokens=4))


def test_speech_that_goes_on_takes_back_what_was_prepared(listening, alone, make_clip):
    _, listener = listening()
    clip = make_clip(33)
    listener.push(clip[: 10 * RATE])
    listener.prepare()
    listener.push(clip[10 * RATE :])
    answer = listener.ask(PROMPT, max_new_tokens=6).finish()
    expected = alone("qwen2_audio").generate(clip, PROMPT, "keep25", max_new_tokens=6, long_audio="segments")
    assert same(answer, expected)


def test_the_oldest_segments_go_and_nothing_is_encoded_twice(listening, alone, make_clip, monkeypatch):
    session, listener = listening("audioflamingo3", max_seconds=90)
    encoded = count_segments(session, monkeypatch)
    clip = make_clip(155)
    push_in_pieces(listener, clip)
    stream = listener.ask(PROMPT, max_new_tokens=6)
    answer = stream.finish()
    assert sum(encoded) == 6  # five whole segments and the open one
    dropped = [event for event in listener.events if event.kind == "dropped"]
    assert [event.start for event in dropped] == [0, 30, 60]
    assert (stream.span.start, stream.span.end, stream.span.lost) == (90, 155, 0)
    expected = alone("audioflamingo3").generate(clip[90 * RATE :], PROMPT, "keep25", max_new_tokens=6)
    assert same(answer, expected)


def test_an_hour_keeps_no_more_than_it_may(listening, alone, make_clip):
    """As fast as it goes; every segment is another."""
    session, listener = listening("audioflamingo3", level="keep6", max_seconds=120)
    minute = make_clip(60)
    for index in range(60):
        assert listener.push(minute * np.float32(0.5 + index / 120), block=True)
    answer = listener.ask(PROMPT, max_new_tokens=4).finish()
    worker = listener._worker
    assert len(worker._audio.kept) <= 4
    assert session._context is not None and session._context.nbytes < 4 * 2**20
    last = np.concatenate([minute * np.float32(0.5 + index / 120) for index in range(60)])
    start = worker._audio.start
    expected = alone("audioflamingo3").generate(last[start:], PROMPT, "keep6", max_new_tokens=4)
    assert same(answer, expected)


def test_falling_behind_is_told(listening, make_clip, monkeypatch):
    told = []
    session, listener = listening(max_backlog_seconds=70, on_behind=told.append)
    gate = hold_reading(session, monkeypatch)
    clip = make_clip(40)
    assert listener.push(clip)
    assert not listener.push(make_clip(65, seed=1))
    assert listener.lost_seconds == 65 and listener.pushed_seconds == 40
    assert [(event.kind, event.start, event.seconds) for event in told] == [("lost", 40, 65)]
    gate.set()
    stream = listener.ask(PROMPT, max_new_tokens=2)
    stream.finish()
    assert stream.span.lost == 65


def test_a_push_can_wait(listening, make_clip, monkeypatch):
    session, listener = listening(max_backlog_seconds=70)
    gate = hold_reading(session, monkeypatch)
    listener.push(make_clip(40))
    threading.Timer(0.2, gate.set).start()
    assert listener.push(make_clip(65, seed=1), block=True)
    assert listener.lost_seconds == 0


def test_another_rate(listening, alone, make_clip):
    """Pushed in pieces at 48 kHz: the samples of the whole clip resampled, but for the last milliseconds."""
    from ltbm.runtime.stages.audio import resample

    _, listener = listening("audioflamingo3", sampling_rate=48_000)
    clip = np.repeat(make_clip(31), 3)
    push_in_pieces(listener, clip)
    listener.ask(PROMPT, max_new_tokens=1).finish()
    kept = listener._worker._audio
    whole = resample(clip, 48_000, RATE)
    got = np.concatenate([segment.samples for segment in kept.audios(kept.end)[0]])
    assert len(whole) - len(got) < 0.05 * RATE
    np.testing.assert_allclose(got, whole[: len(got)], atol=1e-6)


def test_an_answer_left_early_frees_the_listener(listening, make_clip):
    _, listener = listening()
    listener.push(make_clip(5))
    with listener.ask(PROMPT, max_new_tokens=3000) as stream:
        next(stream)
    assert listener.ask(OTHER, max_new_tokens=2).finish().token_ids


def test_one_bad_question_does_not_end_it(listening, make_clip):
    _, listener = listening()
    listener.push(make_clip(5))
    with pytest.raises(ValueError, match="stands for audio"):
        listener.ask("<|AUDIO|>").finish()
    assert listener.ask(PROMPT, max_new_tokens=2).finish().token_ids


def test_what_went_wrong_reaches_the_next_call(listening, make_clip, monkeypatch):
    session, listener = listening()

    def fail(*_):
        raise OSError("the device is gone")

    monkeypatch.setattr(session, "read", fail)
    listener.push(make_clip(31))
    listener._worker._thread.join()
    with pytest.raises(RuntimeError, match="listening ended: the device is gone"):
        listener.push(make_clip(1))
    with pytest.raises(RuntimeError, match="listening ended: the device is gone"):
        listener.ask(PROMPT)


def test_the_session_is_its_listeners(listening, make_clip):
    session, listener = listening()
    with pytest.raises(RuntimeError, match="is listening"):
        session.generate(make_clip(1), PROMPT)
    with pytest.raises(RuntimeError, match="is listening"):
        session.listen()
    listener.close()
    assert session.generate(make_clip(1), PROMPT, max_new_tokens=1).token_ids


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(level=Budget(100)), "a budget of audio tokens needs the sound's length"),
        (dict(max_seconds=20), "max_seconds 20 is not a number of at least 30"),
        (dict(max_seconds=float("nan")), "max_seconds nan is not"),
        (dict(max_backlog_seconds=0), "max_backlog_seconds 0 is not above 0"),
        (dict(sampling_rate=-1), "audio rate -1 Hz"),
    ],
)
def test_refuses_to_begin(listening, options, words):
    with pytest.raises(ValueError, match=words):
        listening(**options)


def test_refuses_bad_samples_and_late_calls(listening, make_clip):
    _, listener = listening()
    with pytest.raises(ValueError, match="no sound has come yet"):
        listener.ask(PROMPT)
    with pytest.raises(ValueError, match="NaN"):
        listener.push(np.array([np.nan], np.float32))
    assert listener.push(np.zeros(0, np.float32))
    listener.push(make_clip(1))
    stream = listener.ask(PROMPT, max_new_tokens=3)
    listener.close()
    with pytest.raises(RuntimeError, match="closed"):
        listener.push(make_clip(1))
    with pytest.raises(RuntimeError, match="closed"):
        listener.ask(PROMPT)
    with pytest.raises(RuntimeError, match="closed|left early"):
        stream.finish()


def wait_until_read(listener, count, seconds=20):
    """Until `count` segments were read, whole or ahead."""
    worker = listener._worker
    with worker.changed:
        assert worker.changed.wait_for(lambda: len(listener.events) >= count, timeout=seconds)


def count_segments(session, monkeypatch):
    """The number of segments of every call of the encoder from now on."""
    counts = []
    encode = session.pipeline.encode

    def counted(audio):
        counts.append(len(audio))
        return encode(audio)

    monkeypatch.setattr(session.pipeline, "encode", counted)
    return counts


def hold_reading(session, monkeypatch):
    """An event that reading waits for."""
    gate = threading.Event()
    read = session.read

    def held(*args):
        gate.wait()
        return read(*args)

    monkeypatch.setattr(session, "read", held)
    return gate
