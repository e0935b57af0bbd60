"""Listening gives the answers that the whole clip does, whatever the pieces and the questions in between."""

import numpy as np
import pytest

from ltbm.runtime.context import Context
from ltbm.runtime.levels import parse_level
from ltbm.runtime.sampling import Sampling
from ltbm.runtime.session import Session
from tests.support.listening import (
    OTHER,
    PROMPT,
    RATE,
    SEGMENT_SECONDS,
    count_segments,
    push_in_pieces,
    same,
)

SEGMENT = SEGMENT_SECONDS * RATE  # samples
SIZES = (1, 160, 4_097, SEGMENT // 3, 4 * SEGMENT // 3)  # of pieces, in samples


@pytest.mark.parametrize("level", ("full", "keep50", "keep12"))
@pytest.mark.parametrize("positions", ("original", "compact"))
@pytest.mark.parametrize("attention", ("proportional", "plain"))
def test_answers_are_those_about_the_whole_clip(
    listening, alone, make_clip, family, level, positions, attention
):
    settled = parse_level(level, positions=positions, attention=attention)
    _, listener = listening(family, settled)
    clip = make_clip(4.3)
    push_in_pieces(listener, clip, SIZES)
    answer = listener.ask(PROMPT, max_new_tokens=8).finish()
    expected = alone(family).generate(clip, PROMPT, settled, max_new_tokens=8, long_audio="segments")
    assert same(answer, expected)
    assert answer.tokens_in == expected.tokens_in and answer.tokens_out == expected.tokens_out


def test_segments_of_30_s(listening, alone, make_clip, family):
    """Pieces of 1 sample to 40 s."""
    _, listener = listening(family, seconds=30)
    clip = make_clip(65)
    push_in_pieces(listener, clip, (1, 160, 4_097, 3 * RATE, 40 * RATE))
    answer = listener.ask(PROMPT, max_new_tokens=8).finish()
    expected = alone(family, 30).generate(clip, PROMPT, "keep25", max_new_tokens=8, long_audio="segments")
    assert same(answer, expected)


def test_a_tower_that_turns_tokens_by_their_time(listening, alone, make_clip):
    """Music Flamingo: each segment by its place in the sound, which begins with the first push."""
    _, listener = listening("musicflamingo", seconds=30)
    clip = make_clip(65)
    push_in_pieces(listener, clip, (160, 4_097, 40 * RATE))
    answer = listener.ask(PROMPT, max_new_tokens=8).finish()
    expected = alone("musicflamingo", 30).generate(clip, PROMPT, "keep25", max_new_tokens=8)
    assert same(answer, expected)


def test_several_questions_while_it_goes_on(listening, alone, make_clip, family):
    _, listener = listening(family)
    clip = make_clip(6.3)
    asked = ((0.1, PROMPT), (1.3, OTHER), (1.3, PROMPT), (2, PROMPT), (4.1, OTHER), (6.3, PROMPT))
    for end, prompt in asked:
        until = round(end * RATE)
        push_in_pieces(listener, clip[round(listener.pushed_seconds * RATE) : until], SIZES, seed=until)
        answer = listener.ask(prompt, max_new_tokens=6).finish()
        expected = alone(family).generate(
            clip[:until], prompt, "keep25", max_new_tokens=6, long_audio="segments"
        )
        assert same(answer, expected), end


def test_seeded_sampling(listening, alone, make_clip):
    sampling = Sampling(temperature=1.0, seed=3)
    _, listener = listening()
    clip = make_clip(3)
    push_in_pieces(listener, clip, SIZES)
    answer = listener.ask(PROMPT, max_new_tokens=8, sampling=sampling).finish()
    expected = alone().generate(
        clip, PROMPT, "keep25", max_new_tokens=8, sampling=sampling, long_audio="segments"
    )
    assert same(answer, expected)


def test_a_conversation_keeps_its_turns_behind_the_sound(listening, alone, make_clip, family):
    _, listener = listening(family, conversation=True)
    clip = make_clip(5)
    listener.push(clip[: 3 * RATE])
    first = listener.ask(PROMPT, max_new_tokens=5).finish()
    listener.push(clip[3 * RATE :])
    second = listener.ask(OTHER, max_new_tokens=6).finish()

    chat = alone(family).converse("keep25")
    chat.ask(PROMPT, clip, max_new_tokens=5, long_audio="segments")
    chat.turns[-1] = type(chat.turns[-1])("assistant", first.text)  # what was answered about the first part
    assert same(second, chat.ask(OTHER, max_new_tokens=6))


def test_a_question_waits_for_the_open_segment_alone(listening, make_clip, monkeypatch):
    session, listener = listening("audioflamingo3", seconds=30)
    listener.push(make_clip(64))
    assert listener.wait_until_read(timeout=60)
    encoded = count_segments(session, monkeypatch)
    answer = listener.ask(PROMPT, max_new_tokens=2).finish()
    assert encoded == [1]
    assert answer.reused_tokens > 2 * 188  # of 30 s at keep25
    assert [event.start for event in listener.events] == [0, 30]
    assert [(event.tokens_in, event.tokens_out) for event in listener.events] == [(750, 188)] * 2


def test_what_was_prepared_is_not_waited_for(listening, alone, make_clip, monkeypatch):
    session, listener = listening()
    clip = make_clip(1.2)
    listener.push(clip)
    moment = listener.prepare()
    listener.push(0.5 * make_clip(0.3, seed=5))  # what came before the question, and is left out
    assert listener.wait_until_read(timeout=60)
    encoded = count_segments(session, monkeypatch)
    answer = listener.ask(PROMPT, max_new_tokens=6, until=moment).finish()
    assert encoded == []
    assert same(answer, alone().generate(clip, PROMPT, "keep25", max_new_tokens=6))


def test_preparing_twice_is_no_harm(listening, alone, make_clip):
    """The second time all of the prompt but its last token is in the KV cache, within a segment."""
    _, listener = listening()
    clip = make_clip(1.6)
    listener.push(clip)
    listener.prepare()
    moment = listener.prepare()
    answer = listener.ask(PROMPT, max_new_tokens=4, until=moment).finish()
    assert same(answer, alone().generate(clip, PROMPT, "keep25", max_new_tokens=4))


def test_speech_that_goes_on_takes_back_what_was_prepared(listening, alone, make_clip):
    _, listener = listening()
    clip = make_clip(2.4)
    listener.push(clip[:RATE])
    listener.prepare()
    listener.push(clip[RATE:])
    answer = listener.ask(PROMPT, max_new_tokens=6).finish()
    expected = alone().generate(clip, PROMPT, "keep25", max_new_tokens=6, long_audio="segments")
    assert same(answer, expected)


def test_another_rate(listening, make_clip):
    """Pushed in pieces at 48 kHz: the samples of the whole clip resampled, but for the last milliseconds."""
    from ltbm.runtime.stages.audio import resample

    _, listener = listening("audioflamingo3", sampling_rate=48_000)
    clip = np.repeat(make_clip(2.6), 3)
    push_in_pieces(listener, clip, SIZES)
    listener.ask(PROMPT, max_new_tokens=1).finish()
    kept = listener._worker._audio
    whole = resample(clip, 48_000, RATE)
    got = np.concatenate([segment.samples for segment in kept.audios(kept.end)[0]])
    assert len(whole) - len(got) < 0.05 * RATE
    np.testing.assert_allclose(got, whole[: len(got)], atol=1e-6)


def test_int4_rounds_the_same_in_pieces(make_bundle, make_clip, monkeypatch):
    """Activations are rounded row by row, so that no row depends on how many come with it."""
    logits = []
    prefill = Context.prefill

    def kept(context, *args):
        logits.append(np.array(prefill(context, *args), np.float32))
        return logits[-1]

    monkeypatch.setattr(Context, "prefill", kept)
    bundle = make_bundle("audioflamingo3", "int4", positions=50 * SEGMENT_SECONDS)[1]
    clip = make_clip(6.3)
    with Session.open(bundle, threads=1) as session, session.listen("keep25") as listener:
        push_in_pieces(listener, clip, SIZES)
        answer = listener.ask(PROMPT, max_new_tokens=8).finish()
    with Session.open(bundle, threads=1, reuse=False) as session:
        assert same(answer, session.generate(clip, PROMPT, "keep25", max_new_tokens=8))
    assert len(logits) > 2 and np.abs(logits[-1] - logits[-2]).max() < 1e-4
