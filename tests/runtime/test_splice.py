import numpy as np
import pytest

from ltbm.runtime.levels import parse_level
from ltbm.runtime.stages.layout import TokenCounts, lay_out
from ltbm.runtime.stages.merge import MergedAudio
from ltbm.runtime.stages.splice import splice

AUDIO = 9
TABLE = np.arange(20, dtype=np.float32)[:, None] * np.ones(3, np.float32)


def audio(anchors, sizes, tokens_in):
    embeds = 100 + np.arange(len(anchors), dtype=np.float32)[:, None] * np.ones(3, np.float32)
    return MergedAudio(
        embeds,
        np.array(sizes, np.int32),
        np.array(anchors, np.int32),
        np.zeros(tokens_in, np.int32),
        (TokenCounts(tokens_in, len(sizes)),),
    )


def spliced(prompt_ids, audios, level, skip=0, read=None):
    counts = [one.rows for one in audios]
    return splice(
        lay_out(prompt_ids, counts, AUDIO, level), audios if read is None else read, TABLE, skip=skip
    )


CLIP = audio([0, 3, 5], [2, 2, 3], 7)


def test_original_positions_leave_the_text_where_it_was():
    prefix = spliced([1, AUDIO, 2, 3], [CLIP], parse_level("keep50"))
    assert prefix.token_ids.tolist() == [1, 9, 9, 9, 2, 3]
    assert prefix.position_ids.tolist() == [0, 1, 4, 6, 8, 9] and prefix.next_position == 10
    assert np.allclose(prefix.key_bias, [0, np.log(2), np.log(2), np.log(3), 0, 0])
    assert prefix.inputs_embeds[:, 0].tolist() == [1, 100, 101, 102, 2, 3]


def test_compact_and_plain():
    prefix = spliced([1, AUDIO, 2], [CLIP], parse_level("keep50", positions="compact", attention="plain"))
    assert prefix.position_ids.tolist() == [0, 1, 2, 3, 4] and prefix.next_position == 5
    assert not prefix.key_bias.any()


def test_a_stronger_bias():
    prefix = spliced([1, AUDIO, 2], [CLIP], parse_level("keep50", attention=1.5))
    assert np.allclose(prefix.key_bias, [0, 1.5 * np.log(2), 1.5 * np.log(2), 1.5 * np.log(3), 0])


def test_several_audios_follow_one_another():
    prefix = spliced([AUDIO, 1, AUDIO], [CLIP, audio([0, 1], [1, 1], 2)], parse_level("keep50"))
    assert prefix.position_ids.tolist() == [0, 3, 5, 7, 8, 9] and prefix.next_position == 10


def test_an_audio_without_a_placeholder():
    with pytest.raises(ValueError, match="1 audio placeholders for 2"):
        spliced([AUDIO], [CLIP, CLIP], parse_level("full"))


def test_what_the_cache_holds_is_left_out():
    """From the second audio on: its positions are those it has in the whole prompt."""
    other = audio([0, 1], [1, 1], 2)
    level = parse_level("keep50")
    whole = spliced([1, AUDIO, 2, AUDIO, 3], [CLIP, other], level)
    rest = spliced([1, AUDIO, 2, AUDIO, 3], [CLIP, other], level, skip=5, read=[other])
    assert rest.token_ids.tolist() == whole.token_ids[5:].tolist() == [9, 9, 3]
    assert rest.position_ids.tolist() == whole.position_ids[5:].tolist() == [9, 10, 11]
    assert (rest.inputs_embeds == whole.inputs_embeds[5:]).all() and rest.next_position == 12


def test_a_part_of_a_segment_cannot_be_left_out():
    with pytest.raises(ValueError, match="1 of 3 tokens of a segment"):
        spliced([1, AUDIO, 2], [CLIP], parse_level("keep50"), skip=2)


def test_segments_that_are_not_read_are_not_taken():
    with pytest.raises(ValueError, match="reads 0 segments of audio, 1 were given"):
        spliced([1, AUDIO, 2], [CLIP], parse_level("keep50"), skip=4)


def test_segments_of_one_audio_are_left_out_singly():
    """One audio of two segments: the second stands where it stands in the whole prompt."""
    second = audio([0, 1], [1, 1], 2)
    counts = [[*CLIP.rows, *second.rows]]
    layout = lay_out([1, AUDIO, 2], counts, AUDIO, parse_level("keep50"))
    whole = splice(layout, [CLIP, second], TABLE)
    rest = splice(layout, [second], TABLE, skip=4)
    assert whole.position_ids.tolist() == [0, 1, 4, 6, 8, 9, 10]
    assert rest.position_ids.tolist() == [8, 9, 10] and rest.token_ids.tolist() == [9, 9, 2]
    assert (rest.inputs_embeds == whole.inputs_embeds[4:]).all()


def test_a_prompt_without_its_question_ends_with_its_audio():
    layout = lay_out([1, AUDIO, 2, 3], [CLIP.rows], AUDIO, parse_level("keep50"))
    known = layout.without_question()
    assert known.token_ids == [1, 9, 9, 9] and known.next_position == 8
