"""What tests of listening share: pieces of sound, answers compared, a worker watched and held."""

import threading

import numpy as np

PROMPT, OTHER = "What do you hear?", "And how often?"
RATE = 16_000  # Hz
SEGMENT_SECONDS = 2  # of the short bundles: listening is the same, 15 times as quick


def push_in_pieces(listener, samples, sizes, seed=0):
    """Pieces of sizes drawn from `sizes`, in samples."""
    draw = np.random.default_rng(seed)
    while len(samples):
        size = int(draw.choice(sizes))
        assert listener.push(samples[:size], block=True)
        samples = samples[size:]


def same(answer, expected):
    assert answer.token_ids == expected.token_ids
    assert answer.prompt_token_ids == expected.prompt_token_ids
    assert answer.text == expected.text
    return True


def count_segments(session, monkeypatch):
    """The number of segments of every call of the encoder from now on."""
    counts = []
    encode = session.pipeline.encode

    def counted(audio):
        counts.append(len(audio))
        return encode(audio)

    monkeypatch.setattr(session.pipeline, "encode", counted)
    return counts


def hold_reading(session, monkeypatch):
    """An event that reading waits for."""
    gate = threading.Event()
    read = session.read

    def held(*args):
        gate.wait()
        return read(*args)

    monkeypatch.setattr(session, "read", held)
    return gate
