"""What a listener keeps is bounded: the oldest segments go, digital silence may be left out."""

import numpy as np
import pytest

from ltbm.runtime.listen.gate import HELD_SECONDS, SilenceGate
from tests.support.listening import PROMPT, RATE, count_segments, push_in_pieces, same

SECOND = np.full(RATE, 0.5, np.float32)
SIZES = (160, 4_097, 3 * RATE)


def test_the_oldest_segments_go_and_nothing_is_encoded_twice(listening, alone, make_clip, monkeypatch):
    session, listener = listening("audioflamingo3", max_seconds=6)
    encoded = count_segments(session, monkeypatch)
    clip = make_clip(11)
    for second in np.split(clip, 11):
        listener.push(second)
        assert listener.wait_until_read(timeout=60)
    stream = listener.ask(PROMPT, max_new_tokens=6)
    answer = stream.finish()
    assert sum(encoded) == 6  # five whole segments and the open one
    dropped = [event for event in listener.events if event.kind == "dropped"]
    assert [event.start for event in dropped] == [0, 2, 4]
    assert (stream.span.start, stream.span.end, stream.span.lost) == (6, 11, 0)
    expected = alone("audioflamingo3").generate(clip[6 * RATE :], PROMPT, "keep25", max_new_tokens=6)
    assert same(answer, expected)


def test_an_hour_of_segments_keeps_no_more_than_it_may(listening, alone, make_clip):
    """As many segments as an hour of 30 s has, every one another, as fast as it goes."""
    session, listener = listening("audioflamingo3", level="keep6", max_seconds=8)
    segments = [make_clip(2) * np.float32(0.5 + index / 240) for index in range(120)]
    for samples in segments:
        assert listener.push(samples, block=True)
    answer = listener.ask(PROMPT, max_new_tokens=4).finish()
    worker = listener._worker
    assert len(worker._audio.kept) <= 4
    assert session._reader.context is not None and session._reader.context.nbytes < 4 * 2**20
    kept = np.concatenate(segments)[worker._audio.start :]
    expected = alone("audioflamingo3").generate(kept, PROMPT, "keep6", max_new_tokens=4)
    assert same(answer, expected)


def test_what_was_lost_long_ago_is_forgotten(listening, make_clip):
    _, listener = listening("audioflamingo3", max_seconds=4)
    worker = listener._worker
    for second in range(12):
        listener.push(make_clip(1, seed=second), block=True)
        listener._refuse(160)
    listener.wait_until_read(timeout=60)
    assert len(worker._lost) <= 5


def test_digital_silence_is_left_out_but_for_its_first_second(listening, alone, make_clip):
    """The answer is that of `generate` about the sound without the rest of the silence."""
    _, listener = listening(skip_silence=True)
    parts = [
        make_clip(1.5),
        0 * make_clip(3.25),
        make_clip(1, seed=1),
        0 * make_clip(2),
        make_clip(1, seed=2),
    ]
    push_in_pieces(listener, np.concatenate(parts), SIZES)
    stream = listener.ask(PROMPT, max_new_tokens=6)
    heard = np.concatenate([parts[0], 0 * SECOND, parts[2], 0 * SECOND, parts[4]])
    expected = alone().generate(heard, PROMPT, "keep25", max_new_tokens=6, long_audio="segments")
    assert same(stream.finish(), expected)
    skipped = [(event.start, event.seconds) for event in listener.events if event.kind == "skipped"]
    assert skipped == [(2.5, 2.25), (6.75, 1)]
    assert (stream.span.start, stream.span.end, stream.span.skipped) == (0, 8.75, 3.25)
    assert listener.pushed_seconds == 8.75


def test_a_silence_that_still_lasts_is_in_the_span(listening, make_clip):
    _, listener = listening(skip_silence=True)
    listener.push(np.concatenate([make_clip(1), 0 * make_clip(5)]))
    stream = listener.ask(PROMPT, max_new_tokens=1)
    assert stream.finish().tokens_in == 50  # of 2 s
    assert (stream.span.end, stream.span.skipped) == (6, 4)


def test_places_count_the_silence_after_old_segments_are_gone(listening, make_clip):
    _, listener = listening("audioflamingo3", skip_silence=True, max_seconds=4)
    for second in range(8):
        push_in_pieces(listener, np.concatenate([make_clip(1, seed=second), np.zeros(2 * RATE)]), SIZES)
    stream = listener.ask(PROMPT, max_new_tokens=1)
    stream.finish()
    span = stream.span
    assert (
        span.end == 24
        and span.end - span.start - span.skipped == (listener._worker._audio.end - 12 * RATE) / RATE
    )
    assert len(listener._worker._gate._stretches) <= 3


def test_silence_is_read_where_nobody_asked_to_skip_it(listening, make_clip):
    _, listener = listening()
    listener.push(np.concatenate([make_clip(1), 0 * make_clip(5)]))
    stream = listener.ask(PROMPT, max_new_tokens=1)
    assert stream.finish().tokens_in == 150
    assert stream.span.skipped == 0


@pytest.mark.parametrize("size", (1, 7, 100, 1_000))
def test_the_gate_by_its_definition(size):
    """Against a loop over samples; a quiet sound and a short pause pass."""
    held = 5
    draw = np.random.default_rng(size)
    runs = draw.integers(1, 12, 80)
    values = draw.choice(np.float32([0, 1e-5, -1e-5, 1e-3, -0.5]), 80)
    samples = np.repeat(values, runs)
    gate = SilenceGate(held)
    passed, stretches = [], []
    for start in range(0, len(samples), size):
        some, ended = gate.push(samples[start : start + size])
        passed += some.tolist()
        stretches += [(one.start, one.length) for one in ended]
    assert (passed, stretches) == _gated(samples, held)
    assert gate.before(len(passed)) == len(samples)


def _gated(samples, held):
    passed, stretches, silent = [], [], 0
    for sample in samples.tolist():
        if abs(sample) > 2**-14:
            if silent > held:
                stretches.append((len(passed), silent - held))
            silent = 0
        else:
            silent += 1
        if silent <= held:
            passed.append(sample)
    return passed, stretches


def test_what_the_gate_holds_is_a_second():
    assert HELD_SECONDS == 1
