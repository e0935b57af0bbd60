"""What a session keeps between requests, and that it changes no answer."""

import numpy as np
import pytest

from ltbm.runtime.audio_cache import AudioCache
from ltbm.runtime.audio_stages import AudioStages
from ltbm.runtime.levels import parse_level
from ltbm.runtime.session import Session

PROMPT, OTHER = "What do you hear?", "And how often is it heard?"


@pytest.fixture
def fresh(qwen):
    with Session.open(qwen[1]) as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(qwen):
    """A session that keeps nothing: what every answer must equal."""
    with Session.open(qwen[1], reuse=False) as opened:
        yield opened


def engine(session, stage):
    return session.pipeline.engines.get(stage)


def refuse(*_, **__):
    raise AssertionError("this engine was not to run")


def test_a_second_question_pays_neither_encoder_nor_audio_prefill(fresh, alone, make_clip, monkeypatch):
    fresh.generate(make_clip(5), PROMPT, "keep25", max_new_tokens=8)
    monkeypatch.setattr(engine(fresh, "encoder"), "bind", refuse)
    monkeypatch.setattr(engine(fresh, "merge"), "bind", refuse)
    again = fresh.generate(make_clip(5), OTHER, "keep25", max_new_tokens=8)
    expected = alone.generate(make_clip(5), OTHER, "keep25", max_new_tokens=8)
    assert again.token_ids == expected.token_ids and again.prompt_token_ids == expected.prompt_token_ids
    assert again.reused_tokens > again.tokens_out == 32 and expected.reused_tokens == 0
    assert len(again.prompt_token_ids) - again.reused_tokens <= len(
        fresh.pipeline.prompter.prompt_ids(OTHER, 1)
    )
    assert again.timings["encoder"] == again.timings["merge"] == 0


@pytest.mark.parametrize("positions", ("original", "compact"))
def test_a_growing_audio_pays_for_its_open_end(make_bundle, make_clip, positions):
    """Audio of several segments: those that were whole before are neither encoded nor prefilled again."""
    level = parse_level("keep25", positions=positions)
    clip = make_clip(70)
    bundle = make_bundle("audioflamingo3")[1]
    with Session.open(bundle) as growing, Session.open(bundle, reuse=False) as alone:
        growing.generate(clip[: 50 * 16_000], PROMPT, level, max_new_tokens=4)
        answer = growing.generate(clip, PROMPT, level, max_new_tokens=8)
        expected = alone.generate(clip, PROMPT, level, max_new_tokens=8)
    assert answer.token_ids == expected.token_ids
    assert answer.prompt_token_ids == expected.prompt_token_ids
    before_audio = expected.prompt_token_ids.index(growing.manifest.prompt.audio_token_id)
    assert answer.reused_tokens == before_audio + 188  # of 30 s at keep25


def test_another_level_runs_the_encoder_no_more(fresh, alone, make_clip, monkeypatch):
    fresh.generate(make_clip(5), PROMPT, "full", max_new_tokens=2)
    monkeypatch.setattr(engine(fresh, "encoder"), "bind", refuse)
    answer = fresh.generate(make_clip(5), PROMPT, "keep12", max_new_tokens=8)
    assert answer.token_ids == alone.generate(make_clip(5), PROMPT, "keep12", max_new_tokens=8).token_ids
    assert answer.tokens_out == 16 and answer.reused_tokens < 60


@pytest.mark.parametrize(
    "level",
    [
        parse_level("keep12", window="global"),
        parse_level("keep12", positions="compact"),
        parse_level("keep12", attention="plain"),
        parse_level(0.3),
    ],
    ids=["window", "positions", "attention", "ratio"],
)
def test_every_part_of_a_level_tells_audio_apart(fresh, alone, make_clip, level):
    fresh.generate(make_clip(5), PROMPT, "keep12", max_new_tokens=2)
    answer = fresh.generate(make_clip(5), PROMPT, level, max_new_tokens=8)
    assert answer.token_ids == alone.generate(make_clip(5), PROMPT, level, max_new_tokens=8).token_ids


def test_another_clip_is_another_clip(fresh, alone, make_clip):
    fresh.generate(make_clip(5), PROMPT, "keep25", max_new_tokens=2)
    changed = make_clip(5)
    changed[40_000] += 0.5
    answer = fresh.generate(changed, PROMPT, "keep25", max_new_tokens=8)
    assert answer.token_ids == alone.generate(changed, PROMPT, "keep25", max_new_tokens=8).token_ids
    assert answer.timings["encoder"] > 0


def test_the_same_audio_in_another_place(fresh, alone, make_clip):
    """Merged audio is placed anew where it stands elsewhere in the prompt."""
    one, two = make_clip(3, seed=1), make_clip(4, seed=2)
    fresh.generate([one, two], PROMPT, "keep25", max_new_tokens=2)
    answer = fresh.generate([two, one], PROMPT, "keep25", max_new_tokens=8)
    assert answer.token_ids == alone.generate([two, one], PROMPT, "keep25", max_new_tokens=8).token_ids


def test_a_cache_that_grows_keeps_what_is_in_it(fresh, alone, make_clip):
    fresh.generate(make_clip(5), PROMPT, "keep25", max_new_tokens=2)
    before = fresh._reader.context.nbytes
    answer = fresh.generate(make_clip(5), OTHER, "keep25", max_new_tokens=300)
    assert fresh._reader.context.nbytes > before and answer.reused_tokens > 32
    assert answer.token_ids == alone.generate(make_clip(5), OTHER, "keep25", max_new_tokens=300).token_ids


def test_a_conversation_remembers(fresh, alone, make_clip):
    conversation, reference = fresh.converse("keep25"), alone.converse("keep25")
    for prompt, audio in (
        (PROMPT, make_clip(5)),
        (OTHER, None),
        ("And now?", make_clip(2, seed=3)),
        (OTHER, None),
    ):
        answer = conversation.ask(prompt, audio, max_new_tokens=6)
        expected = reference.ask(prompt, audio, max_new_tokens=6)
        assert answer.token_ids == expected.token_ids
    assert answer.tokens_in == 175 and answer.reused_tokens > 60
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"] * 4


def test_a_question_left_early_is_not_remembered(fresh, make_clip):
    conversation = fresh.converse("keep25")
    stream = conversation.stream(PROMPT, make_clip(3), max_new_tokens=20)
    next(stream)
    stream.close()
    assert conversation.turns == []
    with pytest.raises(ValueError, match="max_new_tokens 0"):
        conversation.ask(PROMPT, make_clip(3), max_new_tokens=0)
    assert conversation.turns == []


def test_an_answer_does_not_go_on_after_the_next_request(fresh, make_clip):
    first = fresh.stream(make_clip(3), PROMPT, max_new_tokens=20)
    next(first)
    fresh.generate(make_clip(2), PROMPT, max_new_tokens=2)
    with pytest.raises(RuntimeError, match="another request began"):
        next(first)


def test_low_memory_holds_the_audio_engines_and_the_llm_in_turn(qwen, alone, make_clip):
    with Session.open(qwen[1], low_memory=True) as session:
        answers = [
            session.generate(make_clip(seconds), PROMPT, "keep25", max_new_tokens=6) for seconds in (3, 3, 5)
        ]
        engines = session.pipeline.engines
        assert set(engines._engines) == {"decoder"}
        assert engines.get("encoder") is not None and set(engines._engines) == {"encoder"}
    for answer, seconds in zip(answers, (3, 3, 5)):
        expected = alone.generate(make_clip(seconds), PROMPT, "keep25", max_new_tokens=6)
        assert answer.token_ids == expected.token_ids
    assert answers[1].reused_tokens == len(answers[1].prompt_token_ids) - 1
    assert answers[2].reused_tokens == 0


def test_low_memory_keeps_a_conversation_going(qwen, alone, make_clip):
    """A new clip takes the LLM's memory: the whole conversation is read again, from audio that is still
    kept."""
    with Session.open(qwen[1], low_memory=True) as session:
        conversation = session.converse("keep25")
        reference = alone.converse("keep25")
        reused = []
        for prompt, audio in ((PROMPT, make_clip(3)), (OTHER, None), (PROMPT, make_clip(2)), (OTHER, None)):
            answer = conversation.ask(prompt, audio, max_new_tokens=4)
            assert answer.token_ids == reference.ask(prompt, audio, max_new_tokens=4).token_ids
            reused.append(answer.reused_tokens)
    assert reused[0] == reused[2] == 0 < reused[1] < reused[3]


def test_text_alone(fresh):
    answer = fresh.converse().ask("Hello?", max_new_tokens=3)
    assert (answer.tokens_in, answer.applied, answer.reason) == (0, False, "the prompt has no audio")


def test_the_least_recently_used_audio_goes_first():
    cache = AudioCache(limit=10)
    for key in "abc":
        cache.put(key, key.upper(), 4)
    assert [key in cache for key in "abc"] == [False, True, True]
    assert cache.get("b") == "B"
    cache.put("d", "D", 4)
    assert [key in cache for key in "bcd"] == [True, False, True]
    cache.put("large", "L", 11)
    assert "large" not in cache and cache.get("c") is None


def test_a_session_keeps_audio_up_to_its_limit(fresh, make_clip, monkeypatch):
    cache = AudioCache(limit=40_000)
    monkeypatch.setattr(fresh._reader, "_audio", AudioStages(fresh.pipeline, cache))
    clips = [make_clip(seconds) for seconds in (2, 3, 4)]
    for clip in clips:
        fresh.generate(clip, PROMPT, "keep25", max_new_tokens=1)
    segments = [fresh.pipeline.segments(clip)[0][0] for clip in clips]
    kept = [segment.digest in cache for segment in segments]
    assert kept[2] and not all(kept)


def test_steps_allocate_no_arrays(fresh, make_clip, monkeypatch):
    """After the first step no array is made and nothing is bound."""
    stream = fresh.stream(make_clip(2), PROMPT, max_new_tokens=20)
    next(stream), next(stream)
    monkeypatch.setattr(engine(fresh, "decoder"), "zeros", refuse)
    monkeypatch.setattr(engine(fresh, "decoder"), "bind", refuse)
    assert len(list(stream)) > 10


def test_capacity_comes_in_buckets(fresh, make_clip):
    answer = fresh.generate(make_clip(5), PROMPT, "keep25", max_new_tokens=7)
    token = fresh.manifest.decoder.kv_bytes(1, 4)
    assert answer.kv_bytes == token * (len(answer.prompt_token_ids) + 7)
    assert answer.kv_allocated_bytes == token * 64 * -(-(len(answer.prompt_token_ids) + 7) // 64)


def test_embeddings_of_bfloat16_tables(tmp_path):
    from ltbm.runtime.stages.embeddings import Embeddings

    bits = np.array([[0x3F80, 0xC000], [0x3F00, 0x7F80]], np.uint16)
    np.save(tmp_path / "table.npy", bits)
    table = Embeddings(tmp_path / "table.npy", np.float32)
    assert table[[1, 0]].tolist() == [[0.5, np.inf], [1.0, -2.0]]
    table.close()


def test_embeddings_are_the_rows_asked_for(tmp_path):
    from ltbm.runtime.stages.embeddings import Embeddings

    rows = np.random.default_rng(0).standard_normal((50, 24)).astype(np.float16)
    np.save(tmp_path / "table.npy", rows)
    table, asked = Embeddings(tmp_path / "table.npy", np.float32), [49, 0, 7, 7]
    assert table[asked].dtype == np.float32 and (table[asked] == rows[asked]).all()
    for token in (50, -1):
        with pytest.raises(ValueError, match=f"token {token} is not among the 50"):
            table[[token]]
    with open(tmp_path / "table.npy", "r+b") as file:
        file.truncate((tmp_path / "table.npy").stat().st_size - 1)
    with pytest.raises(OSError, match="ends within token 49"):
        table[[49]]
    table.close()
