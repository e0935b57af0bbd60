import numpy as np
import pytest

from ltbm.runtime.bundle import AudioSpec
from ltbm.runtime.stages.features import log_mel, mel_filters
from ltbm.runtime.stages.segments import Segment, cut_segments

SPEC = AudioSpec(
    sampling_rate=16_000,
    n_fft=400,
    hop_length=160,
    n_mels=128,
    segment_frames=3000,
    max_segments=1,
    encoder_width=32,
)


@pytest.fixture(scope="module")
def extractor():
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=128)


@pytest.mark.parametrize("samples", [480, 1600, 16_000 * 5 + 37, 479_840, 479_841, 480_000])
def test_equals_transformers_numpy_path(extractor, samples):
    waveform = np.random.default_rng(samples).standard_normal(samples).astype(np.float32) * np.linspace(
        0, 0.1, samples, dtype=np.float32
    )
    padded = np.zeros((1, 480_000))
    padded[0, :samples] = waveform
    reference = extractor._np_extract_fbank_features(padded, "cpu")[0]
    segment = Segment(waveform, SPEC)
    frames = segment.input_features.shape[1]
    assert np.abs(segment.input_features - reference[:, :frames]).max() < 2e-7
    mask = extractor(waveform, sampling_rate=16_000, return_attention_mask=True, return_tensors="np")[
        "attention_mask"
    ]
    assert segment.frame_length == mask.sum()


def test_filters_equal_transformers(extractor):
    assert np.abs(mel_filters(128, 400, 16_000) - extractor.mel_filters).max() < 1e-12


def test_silence_is_finite():
    assert np.isfinite(log_mel(np.zeros(1600, np.float32), 12, SPEC)).all()


@pytest.mark.parametrize("frames,tokens", [(1, 0), (2, 0), (3, 1), (4, 1), (10, 2), (2999, 750), (3000, 750)])
def test_token_length(frames, tokens):
    assert SPEC.tokens(frames) == tokens


def test_segments_cover_the_clip():
    segments = cut_segments(np.zeros(480_000 * 3 + 80_000, np.float32), SPEC)
    assert [segment.tokens for segment in segments] == [750, 750, 750, 125]
    assert [segment.input_features.shape[1] for segment in segments] == [3000, 3000, 3000, 504]
