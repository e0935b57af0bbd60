"""Activations of large engines go back after a run over many tokens; those of small ones stay: taking them
anew costs."""

import re
from pathlib import Path

import numpy as np
import pytest

from ltbm.demo.bundle import demo_bundle
from ltbm.runtime.backends import ort
from ltbm.runtime.backends.opening import open_engine
from ltbm.runtime.pipeline import Pipeline
from ltbm.runtime.stages.splice import Prefix

FRAMES = 3000  # 30 s: attention scores alone are 54 MB
FEATURES = 80
TOKENS = 4000  # of a prompt: attention takes 64 MB a head
BOUND = 64 * 2**20
"""Between what stays and what goes: 131 and 19 MiB of the clip, 109 and 35 of the prompt (measured)."""


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.parametrize("threshold, kept", [(0, False), (2**40, True)])
def test_what_a_long_clip_took(monkeypatch, threshold, kept):
    monkeypatch.setattr(ort, "RELEASE_ABOVE", threshold)
    with demo_bundle() as bundle:
        engine = open_engine(bundle / "encoder.onnx", device="cpu")
        inputs = {
            "input_features": np.zeros((1, FEATURES, FRAMES), np.float32),
            "frame_lengths": np.array([FRAMES], np.int32),
        }
        width = engine.outputs["audio_embeds"].width
        audio_embeds = engine.zeros((1, FRAMES // 4, width), np.float32)
        binding = engine.bind(inputs | {"audio_embeds": audio_embeds}, once=True)
        before = anonymous_bytes()
        binding.run()
        grown = anonymous_bytes() - before
        assert audio_embeds.any()
        assert (grown > BOUND) == kept, f"{grown / 2**20:.0f} MiB"
        engine.close()


@pytest.mark.parametrize("threshold, kept", [(0, False), (2**40, True)])
def test_what_a_long_prompt_took(monkeypatch, threshold, kept):
    monkeypatch.setattr(ort, "RELEASE_ABOVE", threshold)
    with demo_bundle() as bundle, Pipeline.open(bundle, threads=1) as pipeline:
        decoder = pipeline.decoder(TOKENS + 1)
        embeds = np.ones((TOKENS, pipeline.manifest.decoder.hidden_size), np.float32)
        positions = np.arange(TOKENS, dtype=np.int64)
        prefix = Prefix(positions, embeds, positions, np.zeros(TOKENS, np.float32), TOKENS)
        for array in decoder.cache.arrays(1).values():
            array[:] = 0  # the cache itself is there before
        before = anonymous_bytes()
        logits = decoder.prefill([prefix])
        grown = anonymous_bytes() - before
        assert logits.any()
        assert (grown > BOUND) == kept, f"{grown / 2**20:.0f} MiB"
