import numpy as np
import pytest

from ltbm.runtime.levels import ATTENTION, POSITIONS, Budget, parse_level
from ltbm.runtime.sampling import Sampling
from ltbm.runtime.session import Session

PROMPT = "What do you hear?"


def test_levels_are_chosen_per_call(session, make_clip):
    clip = make_clip(5)
    kept = {
        level: session.generate(clip, PROMPT, level, max_new_tokens=1).tokens_out
        for level in ("full", "keep75", "keep50", "keep33", "keep25", "keep12", "keep6")
    }
    assert kept == {
        "full": 125,
        "keep75": 94,
        "keep50": 63,
        "keep33": 42,
        "keep25": 32,
        "keep12": 16,
        "keep6": 8,
    }


def test_the_prompt_repeats_the_placeholder_once_per_kept_token(session, make_clip):
    answer = session.generate(make_clip(5), PROMPT, "keep25", max_new_tokens=1)
    assert answer.prompt_token_ids.count(session.manifest.prompt.audio_token_id) == answer.tokens_out == 32


def test_a_budget_of_tokens(session, make_clip):
    answer = session.generate(make_clip(5), PROMPT, Budget(20), max_new_tokens=1)
    assert (answer.tokens_out, answer.applied) == (20, True)


@pytest.mark.parametrize(
    "level,words",
    [("full", "keeps every token"), (Budget(500), "not below the clip's 125"), (0.999, "rounded up")],
)
def test_a_level_that_changes_nothing_says_why(session, make_clip, level, words):
    answer = session.generate(make_clip(5), PROMPT, level, max_new_tokens=1)
    assert not answer.applied and words in answer.reason and answer.tokens_out == answer.tokens_in == 125


def test_at_full_every_mode_is_the_same(session, make_clip):
    answers = []
    for positions in POSITIONS:
        for attention in ATTENTION:
            level = parse_level("full", positions=positions, attention=attention)
            answers.append(session.generate(make_clip(2), PROMPT, level, max_new_tokens=6).token_ids)
    assert all(answer == answers[0] for answer in answers)


def test_windows_and_modes_reach_the_answer(session, make_clip):
    levels = [
        parse_level("keep12"),
        parse_level("keep12", window="global"),
        parse_level("keep12", positions="compact"),
        parse_level("keep12", attention="plain"),
        parse_level("keep12", attention=1.5),
    ]
    answers = [session.generate(make_clip(5), PROMPT, level, max_new_tokens=8).token_ids for level in levels]
    assert len({tuple(ids) for ids in answers}) == 5


@pytest.mark.parametrize(
    "former,now",
    [
        (dict(keep_ratio="0.3"), parse_level("0.3")),
        (dict(audio_tokens=20), Budget(20)),
        (dict(level="keep12", window="global"), parse_level("keep12", window="global")),
        (dict(task="transcribe", positions="compact"), parse_level("full", positions="compact")),
        (dict(attention="plain"), parse_level("keep50", attention="plain")),
    ],
)
def test_a_level_in_parts_is_taken_with_a_warning(session, make_clip, former, now):
    with pytest.warns(FutureWarning, match="part of the level"):
        answer = session.generate(make_clip(5), PROMPT, max_new_tokens=8, **former)
    expected = session.generate(make_clip(5), PROMPT, now, max_new_tokens=8)
    assert (answer.token_ids, answer.tokens_out) == (expected.token_ids, expected.tokens_out)


def test_a_complete_level_takes_no_parts(session, make_clip):
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="dataclasses.replace"):
        session.generate(make_clip(1), PROMPT, parse_level("keep25"), window=3)


def test_the_streamed_text_is_the_answer(session, make_clip):
    stream = session.stream(make_clip(3), PROMPT, max_new_tokens=30)
    with pytest.raises(RuntimeError, match="has not ended"):
        stream.answer  # noqa: B018
    pieces = list(stream)
    assert "".join(pieces) == stream.answer.text and len(pieces) > 5
    assert stream.answer.token_ids == session.generate(make_clip(3), PROMPT, max_new_tokens=30).token_ids


def test_a_stream_begun_can_be_finished(session, make_clip):
    stream = session.stream(make_clip(3), PROMPT, max_new_tokens=12)
    first = next(stream)
    answer = stream.finish()
    assert answer is stream.answer is stream.finish() and answer.text.startswith(first)


def test_the_stream_can_be_left_early(session, make_clip):
    expected = session.generate(make_clip(3), PROMPT, max_new_tokens=2).token_ids
    stream = session.stream(make_clip(3), PROMPT, max_new_tokens=30)
    next(stream)
    stream.close()
    assert list(stream) == []
    with pytest.raises(RuntimeError, match="has not ended"):
        stream.answer  # noqa: B018
    assert session.generate(make_clip(3), PROMPT, max_new_tokens=2).token_ids == expected


def test_a_loop_left_early_frees_the_session(session, make_clip):
    with session.stream(make_clip(3), PROMPT, max_new_tokens=30) as stream:
        for _ in stream:
            break
    assert list(stream) == []
    assert session.generate(make_clip(2), PROMPT, max_new_tokens=2).token_ids


def test_sampling_is_repeatable_by_seed(session, make_clip):
    def draw(seed):
        return session.generate(
            make_clip(2), PROMPT, max_new_tokens=12, sampling=Sampling(temperature=1.5, seed=seed)
        ).token_ids

    assert draw(1) == draw(1) != draw(2)


def test_it_stops_at_the_end_token(session, make_clip):
    eos = session.manifest.prompt.eos_token_ids
    for seed in range(40):
        answer = session.generate(
            make_clip(1), PROMPT, max_new_tokens=60, sampling=Sampling(temperature=3.0, seed=seed)
        )
        if answer.finish_reason == "stop":
            break
    assert answer.token_ids[-1] in eos and not set(answer.token_ids[:-1]) & set(eos)


def test_the_kv_cache_follows_the_tokens(session, make_clip):
    spec = session.manifest.decoder
    for level in ("full", "keep25"):
        answer = session.generate(make_clip(5), PROMPT, level, max_new_tokens=7)
        assert answer.kv_bytes == spec.kv_bytes(len(answer.prompt_token_ids) + 7, 4)


def test_stages_are_timed(session, make_clip):
    timings = session.generate(make_clip(5), PROMPT, max_new_tokens=4).timings
    assert set(timings) == {
        "load",
        "features",
        "prompt",
        "encoder",
        "merge",
        "splice",
        "prefill",
        "ttft",
        "decode",
        "total",
    }
    stages = sum(
        timings[name] for name in ("load", "features", "prompt", "encoder", "merge", "splice", "prefill")
    )
    assert stages <= timings["ttft"] <= timings["total"]


def test_long_audio_is_refused_or_taken_as_several(session, make_clip):
    clip = make_clip(65)
    with pytest.raises(ValueError, match="longer than the 30 s.*--long-audio segments"):
        session.generate(clip, PROMPT)
    answer = session.generate(clip, PROMPT, "full", long_audio="segments", max_new_tokens=1)
    assert answer.tokens_in == 1625
    text = session.pipeline.prompter.decode(answer.prompt_token_ids)
    assert "Audio 3:" in text and "Audio 4:" not in text


def test_windows_is_what_segments_was_called(session, make_clip):
    with pytest.warns(FutureWarning, match="'windows' is now 'segments'"):
        answer = session.generate(make_clip(31), PROMPT, "keep6", long_audio="windows", max_new_tokens=1)
    assert answer.tokens_in == 775
    with pytest.raises(ValueError, match="none of error, segments"):
        session.generate(make_clip(1), PROMPT, long_audio="cut")


def test_several_audios_of_one_prompt(session, make_clip):
    answer = session.generate([make_clip(1), make_clip(2)], PROMPT, "full", max_new_tokens=1)
    assert answer.tokens_in == 75


@pytest.mark.parametrize(
    "clip,words",
    [
        (np.zeros(0, np.float32), "zero length"),
        (np.zeros(300, np.float32), "too short"),
        (np.full(1600, np.nan, np.float32), "NaN"),
        (np.zeros((2, 2, 2), np.float32), "shape"),
        (np.zeros(1600, np.complex64), "type complex64"),
    ],
)
def test_refuses_bad_arrays(session, clip, words):
    with pytest.raises(ValueError, match=words):
        session.generate(clip, PROMPT)


def test_refuses_a_prompt_with_the_placeholder(session, make_clip):
    with pytest.raises(ValueError, match="stands for audio"):
        session.generate(make_clip(1), "what is <|AUDIO|> ?")


def test_refuses_an_answer_with_no_room_before_it_encodes(session, make_clip, monkeypatch):
    monkeypatch.setattr(session.pipeline, "encode", lambda *_: pytest.fail("encoded first"))
    with pytest.raises(ValueError, match="positions.*4096"):
        session.generate(make_clip(1), PROMPT, max_new_tokens=5000)


def test_the_last_position_can_be_used(session, make_clip):
    """One token more than fits is refused; what fits exactly is answered."""
    prompt = len(session.generate(make_clip(1), PROMPT, "full", max_new_tokens=1).prompt_token_ids)
    room = session.manifest.decoder.max_positions - prompt
    next(session.stream(make_clip(1), PROMPT, "full", max_new_tokens=room))
    with pytest.raises(ValueError, match="positions"):
        next(session.stream(make_clip(1), PROMPT, "full", max_new_tokens=room + 1))


def test_no_memory_for_the_kv_cache(qwen, make_clip, monkeypatch):
    session = Session.open(qwen[1])
    decoder = session.pipeline.engines.get("decoder")
    real = decoder.zeros

    def full(shape, dtype):
        if len(shape) == 4:
            raise RuntimeError("bad allocation")
        return real(shape, dtype)

    monkeypatch.setattr(decoder, "zeros", full)
    with pytest.raises(MemoryError, match="no room for a KV cache.*keep fewer audio tokens"):
        session.generate(make_clip(1, seed=9), PROMPT, max_new_tokens=500)


def test_backends_and_devices_that_are_not_there(qwen):
    with pytest.raises(ValueError, match="unknown device"):
        Session.open(qwen[1], device="abacus")
    with pytest.raises(RuntimeError, match="no CUDAExecutionProvider"):
        Session.open(qwen[1], device="cuda")
    with pytest.raises(ValueError, match="backends are onnxruntime"):
        Session.open(qwen[1], backend="abacus")


def test_audio_flamingo_takes_ten_minutes_and_refuses_more(make_bundle):
    with Session.open(make_bundle("audioflamingo3")[1]) as flamingo:
        assert len(flamingo.pipeline.segments(np.zeros(600 * 16_000, np.float32))[0]) == 20
        with pytest.raises(ValueError, match="longer than the 600 s"):
            flamingo.pipeline.segments(np.zeros(600 * 16_000 + 1, np.float32))


def test_cuda_gets_the_decoder_that_takes_a_key_bias_there(qwen, session, make_clip, monkeypatch):
    """The flavour meant for CUDA, here on the CPU, answers as the other does."""
    from ltbm.runtime.backends import opening

    assert opening.decoder_flavour("onnxruntime", "cuda") == "std24"
    flavours = opening.DecoderFlavours("std24")
    monkeypatch.setitem(opening.BACKENDS["onnxruntime"].devices, "cpu", flavours)
    with Session.open(qwen[1]) as standard:
        assert (standard.pipeline.engines.flavour, session.pipeline.engines.flavour) == ("std24", "gqa")
        answers = [
            opened.generate(make_clip(4), PROMPT, "keep12", max_new_tokens=10).token_ids
            for opened in (standard, session)
        ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "precision,options,reason",
    [
        ("bfloat16", {}, "does not run on the CPU: ONNX Runtime computes no bfloat16"),
        (
            "float32",
            {"lm_head_precision": "bfloat16"},
            "does not run on the CPU: ONNX Runtime computes no bfloat16",
        ),
        ("int4", {"target": "tensorrt"}, "does not run on the CPU: its codes are for TensorRT"),
    ],
)
def test_a_bundle_for_other_devices_is_refused_in_one_line(make_bundle, precision, options, reason, capsys):
    from ltbm.runtime.cli import main

    _, bundle = make_bundle("qwen2_audio", precision, options)
    with pytest.raises(ValueError, match=reason):
        Session.open(bundle)
    assert main(["doctor", str(bundle)]) == 0
    assert "onnxruntime on cpu" not in capsys.readouterr().out


def test_a_closed_engine_runs_no_more(qwen):
    session = Session.open(qwen[1])
    encoder = session.pipeline.engines.get("encoder")
    session.close()
    inputs = {
        "input_features": np.zeros((1, 128, 400), np.float32),
        "frame_lengths": np.array([400], np.int32),
    }
    with pytest.raises(RuntimeError, match="this ONNX Runtime engine is closed"):
        encoder.run(inputs)
