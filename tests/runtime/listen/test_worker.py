"""The listener's thread: falling behind, waiting, failing, ending; nothing hangs, nothing is lost unseen."""

import threading

import numpy as np
import pytest

from ltbm.runtime.levels import Budget
from ltbm.runtime.listen import listener as listener_module
from tests.support.listening import OTHER, PROMPT, hold_reading

WAIT = 60  # seconds after which a test fails rather than hangs


def test_falling_behind_is_told(listening, make_clip, monkeypatch):
    told = []
    session, listener = listening(max_backlog_seconds=5, on_behind=told.append)
    gate = hold_reading(session, monkeypatch)
    assert listener.push(make_clip(3))
    assert not listener.push(make_clip(4, seed=1))
    assert listener.lost_seconds == 4 and listener.pushed_seconds == 3
    assert [(event.kind, event.start, event.seconds) for event in told] == [("lost", 3, 4)]
    gate.set()
    stream = listener.ask(PROMPT, max_new_tokens=2)
    stream.finish()
    assert stream.span.lost == 4


def test_a_push_can_wait(listening, make_clip, monkeypatch):
    session, listener = listening(max_backlog_seconds=5)
    gate = hold_reading(session, monkeypatch)
    listener.push(make_clip(3))
    threading.Timer(0.1, gate.set).start()
    assert listener.push(make_clip(4, seed=1), block=True)
    assert listener.lost_seconds == 0


def test_waiting_until_all_is_read(listening, make_clip, monkeypatch):
    session, listener = listening()
    assert listener.wait_until_read(timeout=WAIT)
    gate = hold_reading(session, monkeypatch)
    listener.push(make_clip(3))
    assert not listener.wait_until_read(timeout=0.05)
    gate.set()
    assert listener.wait_until_read(timeout=WAIT)
    assert [event.kind for event in listener.events] == ["read"]


def test_pushes_and_questions_from_several_threads(listening, make_clip):
    _, listener = listening(max_seconds=4)
    answers = []

    def push(seed):
        for piece in np.array_split(make_clip(4, seed=seed), 50):
            assert listener.push(piece, block=True)

    def ask():
        for _ in range(3):
            answers.append(listener.ask(PROMPT, max_new_tokens=2).finish())

    listener.push(make_clip(1))
    threads = [threading.Thread(target=push, args=(seed,)) for seed in range(2)]
    threads += [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(answers) == 6 and listener.pushed_seconds == 9
    assert all(0 < answer.tokens_in <= 100 for answer in answers)  # at most 4 s


def test_an_answer_left_early_frees_the_listener(listening, make_clip):
    _, listener = listening()
    listener.push(make_clip(1))
    with listener.ask(PROMPT, max_new_tokens=3000) as stream:
        next(stream)
    assert listener.ask(OTHER, max_new_tokens=2).finish().token_ids


def test_one_bad_question_does_not_end_it(listening, make_clip):
    _, listener = listening()
    listener.push(make_clip(1))
    with pytest.raises(ValueError, match="stands for audio"):
        listener.ask("<|AUDIO|>").finish()
    assert listener.ask(PROMPT, max_new_tokens=2).finish().token_ids


def test_what_went_wrong_reaches_the_next_call(listening, make_clip, monkeypatch):
    session, listener = listening()

    def fail(*_):
        raise OSError("the device is gone")

    monkeypatch.setattr(session, "read", fail)
    listener.push(make_clip(3))
    listener._worker._thread.join(WAIT)
    calls = (
        lambda: listener.push(make_clip(1)),
        lambda: listener.push(make_clip(1), block=True),
        lambda: listener.ask(PROMPT),
        listener.prepare,
        listener.wait_until_read,
    )
    for call in calls:
        with pytest.raises(RuntimeError, match="listening ended: the device is gone"):
            call()


def test_what_went_wrong_reaches_those_that_wait(listening, make_clip, monkeypatch):
    """A push that waits for room, a wait until all is read, and a question that was asked already."""
    session, listener = listening(max_backlog_seconds=5)
    gate = threading.Event()

    def fail(*_):
        gate.wait()
        raise OSError("the device is gone")

    monkeypatch.setattr(session, "read", fail)
    listener.push(make_clip(3))
    stream = listener.ask(PROMPT)
    failures = []

    def wait(call):
        try:
            call()
        except RuntimeError as error:
            failures.append(str(error))

    waiting = (lambda: listener.push(make_clip(4), block=True), listener.wait_until_read)
    threads = [threading.Thread(target=wait, args=(call,)) for call in waiting]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == ["listening ended: the device is gone"] * 2
    with pytest.raises((OSError, RuntimeError), match="the device is gone"):
        stream.finish()


def test_a_push_does_not_wait_for_a_thread_that_has_just_ended(listening, make_clip, monkeypatch):
    """It fails after the push has begun and before it waits for room: nobody would wake it."""
    session, listener = listening(max_backlog_seconds=5)
    gate = threading.Event()
    failures = []

    def fail(*_):
        gate.wait()
        raise OSError("the device is gone")

    def let_it_fail(samples, *_):
        gate.set()
        listener._worker._thread.join(WAIT)
        return samples

    def push():
        with pytest.raises(RuntimeError, match="the device is gone") as caught:
            listener.push(make_clip(4), block=True)
        failures.append(caught)

    monkeypatch.setattr(session, "read", fail)
    listener.push(make_clip(3))
    monkeypatch.setattr(listener_module, "load_audio", let_it_fail)
    thread = threading.Thread(target=push, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert len(failures) == 1


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
        (dict(max_seconds=1), "max_seconds 1 is not a number of at least 2"),
        (dict(max_seconds=float("nan")), "max_seconds nan is not"),
        (dict(max_backlog_seconds=0), "max_backlog_seconds 0 is not above 0"),
        (dict(sampling_rate=-1), "audio rate -1 Hz"),
        (dict(sampling_rate=float("nan")), "audio rate nan Hz"),
    ],
)
def test_refuses_to_begin(listening, options, words):
    with pytest.raises(ValueError, match=words):
        listening(**options)


@pytest.mark.parametrize(
    "samples,words",
    [
        (np.array([np.nan], np.float32), "NaN or infinite samples"),
        (np.array([np.inf], np.float32), "NaN or infinite samples"),
        (np.array(["sound"]), "type <U5, expected floating point samples"),
        (np.zeros((1, 2, 3), np.float32), "shape .1, 2, 3., expected"),
        (0.5, "shape .., expected"),
    ],
)
def test_refuses_bad_samples_and_goes_on(listening, make_clip, samples, words):
    _, listener = listening()
    with pytest.raises(ValueError, match=words):
        listener.push(samples)
    assert listener.push(np.zeros(0, np.float32)) and listener.pushed_seconds == 0
    listener.push(make_clip(1))
    assert listener.ask(PROMPT, max_new_tokens=1).finish().token_ids


def test_a_question_before_any_sound(listening):
    _, listener = listening()
    with pytest.raises(ValueError, match="no sound has come yet"):
        listener.ask(PROMPT)
    listener.prepare()  # there is nothing to prepare: no harm
    assert listener.wait_until_read(timeout=WAIT) and not listener.events


def test_late_calls(listening, make_clip):
    _, listener = listening()
    listener.push(make_clip(1))
    stream = listener.ask(PROMPT, max_new_tokens=3)
    listener.close()
    for call in (
        lambda: listener.push(make_clip(1)),
        lambda: listener.ask(PROMPT),
        listener.prepare,
        listener.wait_until_read,
    ):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    with pytest.raises(RuntimeError, match="closed|left early"):
        stream.finish()
    listener.close()  # again: no harm
