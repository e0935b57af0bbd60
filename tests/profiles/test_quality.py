import numpy as np
import pytest

from ltbm.profiles.quality.batch import compress, greedy_all
from ltbm.profiles.quality.variants import variants
from ltbm.runtime.levels import parse_level
from ltbm.runtime.prompt import Turn


def encoded_clip(pipeline, clip):
    (audio,) = pipeline.segments(clip)
    return pipeline.encode(audio)


def prefixes_of(pipeline, make_clip, level):
    made = []
    for seconds, prompt in ((1, "short ?"), (3, "a longer question ?"), (2, "hm ?"), (5, "and this ?")):
        audios = pipeline.segments(make_clip(seconds, seed=seconds))
        layout = pipeline.lay_out([Turn("user", prompt, 1)], audios, level, 6)
        merged = compress(pipeline, pipeline.encode(audios[0]), "ltbm", layout.level)
        made.append(pipeline.prefix(layout, [merged]))
    return made


def test_answers_in_batches_equal_answers_alone(pipeline, make_clip):
    level = parse_level("keep25")
    prefixes = prefixes_of(pipeline, make_clip, level)
    assert greedy_all(pipeline, prefixes, 6) == [greedy_all(pipeline, [prefix], 6)[0] for prefix in prefixes]


def test_batched_answers_equal_the_session(session, pipeline, make_clip):
    level = parse_level("keep25")
    answer = session.generate(make_clip(5, seed=5), "and this ?", level, max_new_tokens=6)
    ids = greedy_all(pipeline, prefixes_of(pipeline, make_clip, level), 6)[3]
    assert pipeline.prompter.decode(ids) == answer.text


@pytest.mark.parametrize("method", ["global", "pool", "stride", "prune", "prune-segment"])
def test_other_methods_pass_the_merge_engine_unmerged(pipeline, make_clip, method):
    """Their tokens come out projected and otherwise as the method made them."""
    from ltbm.plugins.baselines import plan
    from ltbm.plugins.merge import apply_plan

    groups = encoded_clip(pipeline, make_clip(3))
    level = parse_level("keep25")
    audio = compress(pipeline, groups, method, level)
    x = groups[0].audio_embeds[0, :75]
    kept = apply_plan(plan(method, x, 19), x)
    identity = pipeline.engines.get("merge").run(
        {
            "audio_embeds": kept[None],
            "lengths": np.array([19], np.int32),
            "targets": np.array([19], np.int32),
            "keep": np.array([19], np.int64),
            "window": np.array([-1], np.int32),
            "first_position": np.zeros(1, np.int64),
            "original_positions": np.ones(1, np.int32),
            "bias_strength": np.ones(1, np.float32),
        }
    )
    assert audio.tokens_in == 75 and audio.tokens_out == 19
    assert np.array_equal(audio.merged_embeds, identity["merged_embeds"][0])


@pytest.mark.parametrize("method", ["ltbm", "pool"])
def test_merged_tokens_at_their_members_mean_norm(pipeline, make_clip, monkeypatch, method):
    """The same plan; the projector reads means of another length."""
    read = []
    merge = pipeline.merge

    def merge_and_note(encoded, level):
        read.append(encoded[0].audio_embeds[0])
        return merge(encoded, level)

    groups = encoded_clip(pipeline, make_clip(3))
    level = parse_level("keep25")
    plain = compress(pipeline, groups, method, level)
    monkeypatch.setattr(pipeline, "merge", merge_and_note)
    normed = compress(pipeline, groups, f"{method}-norm", level)
    assert np.array_equal(normed.source_map, plain.source_map) and np.array_equal(normed.sizes, plain.sizes)
    x = groups[0].audio_embeds[0, :75]
    norms = np.linalg.norm(x, axis=1)
    for slot, values in enumerate(read[0]):
        members = plain.source_map[:75] == slot
        assert np.linalg.norm(values) == pytest.approx(norms[members].mean(), rel=1e-5)
        mean = x[members].mean(0)
        assert values @ mean == pytest.approx(np.linalg.norm(values) * np.linalg.norm(mean), rel=1e-5)


def test_global_equals_the_engine_with_a_global_window(pipeline, make_clip):
    groups = encoded_clip(pipeline, make_clip(3))
    through_plan = compress(pipeline, groups, "global", parse_level("keep25"))
    through_engine = compress(pipeline, groups, "ltbm", parse_level("keep25", window="global"))
    assert np.array_equal(through_plan.source_map, through_engine.source_map)
    assert np.abs(through_plan.merged_embeds - through_engine.merged_embeds).max() < 1e-6


def test_other_methods_take_every_segment_of_a_long_clip(pipeline, make_clip):
    """Each segment is compressed on its own, as the engine does it, and stands after the one before."""
    segments = [segment for (segment,) in pipeline.segments(make_clip(32), "segments")]
    groups = pipeline.encode(segments)
    level = parse_level("keep25")
    audio, engine = compress(pipeline, groups, "stride", level), compress(pipeline, groups, "ltbm", level)
    assert len(groups) == 2 and (audio.tokens_in, audio.tokens_out) == (
        engine.tokens_in,
        engine.tokens_out,
    ) == (800, 201)
    alone = compress(pipeline, groups[1:], "stride", level)
    assert np.array_equal(audio.anchors[188:], alone.anchors + 750) and np.array_equal(
        audio.merged_embeds[188:], alone.merged_embeds
    )
    kept = alone.source_map >= 0
    assert np.array_equal(audio.source_map[750:][kept], alone.source_map[kept] + 188)


def test_variants_are_every_level_method_and_mode_with_full_once():
    found = variants(["full", "keep25"], ["ltbm", "pool"])
    assert len(found) == len(set(found)) == 1 + 2 * 4
