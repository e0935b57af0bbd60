import numpy as np
import pytest

from ltbm.runtime.levels import parse_level
from ltbm.runtime.stages.merge import MergedAudio, Row
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
        (Row(tokens_in, len(sizes)),),
    )


CLIP = audio([0, 3, 5], [2, 2, 3], 7)


def test_original_positions_leave_the_text_where_it_was():
    prefix = splice([1, AUDIO, 2, 3], [CLIP], AUDIO, TABLE, parse_level("keep50"))
    assert prefix.token_ids.tolist() == [1, 9, 9, 9, 2, 3]
    assert prefix.position_ids.tolist() == [0, 1, 4, 6, 8, 9] and prefix.next_position == 10
    assert np.allclose(prefix.key_bias, [0, np.log(2), np.log(2), np.log(3), 0, 0])
    assert prefix.inputs_embeds[:, 0].tolist() == [1, 100, 101, 102, 2, 3]


def test_compact_and_plain():
    prefix = splice(
        [1, AUDIO, 2], [CLIP], AUDIO, TABLE, parse_level("keep50", positions="compact", attention="plain")
    )
    assert prefix.position_ids.tolist() == [0, 1, 2, 3, 4] and prefix.next_position == 5
    assert not prefix.key_bias.any()


def test_several_audios_follow_one_another():
    prefix = splice([AUDIO, 1, AUDIO], [CLIP, audio([0, 1], [1, 1], 2)], AUDIO, TABLE, parse_level("keep50"))
    assert prefix.position_ids.tolist() == [0, 3, 5, 7, 8, 9] and prefix.next_position == 10


def test_an_audio_without_a_placeholder():
    with pytest.raises(ValueError, match="1 audio placeholders for 2"):
        splice([AUDIO], [CLIP, CLIP], AUDIO, TABLE, parse_level("full"))
