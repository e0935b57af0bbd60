"""The logic of the ROS 2 node, without ROS."""

import threading

import numpy as np
import pytest

from examples.ros2.listening import Listening


@pytest.fixture
def listening(qwen):
    outcomes = []
    came = threading.Event()

    def take(text):
        outcomes.append(text)
        came.set()

    node = Listening(str(qwen[1]), "keep25", 16_000, take, take)
    yield node, outcomes, came
    node.close()


def test_audio_messages_and_a_question(listening, session, make_clip):
    node, outcomes, came = listening
    pcm = np.round(make_clip(3) * 2**15).astype(np.int16)
    for message in np.array_split(pcm, 30):
        node.take_audio(message)
    node.take_question("What do you hear?")
    assert came.wait(timeout=30)
    assert outcomes == [session.generate(pcm, "What do you hear?", "keep25").text]


def test_a_question_too_early_is_a_warning(listening):
    node, outcomes, came = listening
    node.take_question("What do you hear?")
    assert came.wait(timeout=30)
    assert "no answer to 'What do you hear?': no sound has come yet" in outcomes[0]
