"""Two threads on one session: an answer is whole and its own, or ends with the error that says why."""

import threading

import pytest

from ltbm.runtime.session import Session

ROUNDS = 12
LEVELS = ("full", "keep25")
ENDED = "another request began on this session before this answer ended; open a session for each"


@pytest.fixture
def opened(qwen):
    with Session.open(qwen[1], threads=1) as session:
        yield session


def expected_ids(bundle, clips) -> list[list[int]]:
    """Of each thread's request, asked alone."""
    with Session.open(bundle, threads=1, reuse=False) as alone:
        return [
            alone.generate(clip, "what ?", level, max_new_tokens=12).token_ids
            for clip, level in zip(clips, LEVELS)
        ]


def test_answers_are_never_mixed(qwen, opened, make_clip):
    clips = [make_clip(2, seed) for seed in range(len(LEVELS))]
    expected = expected_ids(qwen[1], clips)
    outcomes: list[list] = [[], []]
    barrier = threading.Barrier(len(LEVELS))

    def ask(number: int) -> None:
        for _ in range(ROUNDS):
            barrier.wait()
            try:
                answer = opened.generate(clips[number], "what ?", LEVELS[number], max_new_tokens=12)
                outcomes[number].append(answer.token_ids)
            except Exception as error:
                outcomes[number].append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(LEVELS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, ids in enumerate(expected):
        for outcome in outcomes[number]:
            assert outcome == ids or (type(outcome), str(outcome)) == (RuntimeError, ENDED)
    ended = [sum(isinstance(outcome, RuntimeError) for outcome in pair) for pair in zip(*outcomes)]
    assert set(ended) <= {0, 1} and 1 in ended  # at most one of two ends early, and it happens


def test_a_request_of_another_thread_ends_the_one_before_it(qwen, opened, make_clip):
    clips = [make_clip(2, seed) for seed in range(len(LEVELS))]
    first = opened.stream(clips[0], "what ?", LEVELS[0], max_new_tokens=12)
    next(first)
    answers = []
    other = threading.Thread(
        target=lambda: answers.append(opened.generate(clips[1], "what ?", LEVELS[1], max_new_tokens=12))
    )
    other.start()
    other.join()
    assert answers[0].token_ids == expected_ids(qwen[1], clips)[1]
    with pytest.raises(RuntimeError, match=ENDED):
        next(first)


def test_closing_waits_for_the_engines(opened, make_clip, monkeypatch):
    """A session closed by another thread ends between two tokens, not within an engine's run."""
    inside, closed = threading.Event(), threading.Event()
    decoder = opened.pipeline.engines.get("decoder")
    stream = opened.stream(make_clip(1), "what ?", "keep25", max_new_tokens=4)
    next(stream)

    def step(token):
        inside.set()
        assert not closed.wait(0.2), "closed while the decoder ran"
        return real(token)

    real = opened._reader.context.step
    monkeypatch.setattr(opened._reader.context, "step", step)
    closer = threading.Thread(target=lambda: (inside.wait(), opened.close(), closed.set()))
    closer.start()
    next(stream)
    closer.join()
    assert closed.is_set() and decoder is not None
