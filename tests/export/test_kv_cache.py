"""The decoder with an int8 KV cache, calibrated on clips."""

import numpy as np
import pytest

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.kv_cache import add_int8_kv_cache, largest_magnitudes
from ltbm.export.parity import check_parity
from ltbm.runtime.bundle import Bundle
from ltbm.runtime.cli import main
from ltbm.runtime.levels import parse_level
from ltbm.runtime.prompt import Turn
from ltbm.runtime.session import Session

PROMPT = "What do you hear?"


@pytest.fixture(scope="module")
def calibrated(make_bundle, make_clip, tmp_path_factory):
    """A bundle of its own with the decoder added."""
    import shutil

    checkpoint, bundle = make_bundle("qwen2_audio")
    own = tmp_path_factory.mktemp("int8") / "bundle"
    shutil.copytree(bundle, own)
    add_int8_kv_cache(own, [make_clip(5), make_clip(3, seed=7)], PROMPT, lambda line: None)
    return checkpoint, own


def logits_of(session, clip, level: str) -> np.ndarray:
    """[steps, V] with the same forced tokens."""
    pipeline = session.pipeline
    (audio,) = audios = pipeline.segments(clip)
    layout = pipeline.lay_out([Turn("user", PROMPT, 1)], audios, parse_level(level), 8)
    prefix = pipeline.prefix(layout, [pipeline.merge(pipeline.encode(audio), layout.level)])
    decoder = pipeline.decoder(256)
    logits = [decoder.prefill([prefix])[0].copy()]
    for token in range(20, 26):
        logits.append(decoder.step(pipeline.embeddings[[token]])[0].copy())
    return np.stack(logits)


def test_it_is_near_the_float_cache_and_a_quarter_of_it(calibrated, make_clip):
    with Session.open(calibrated[1]) as plain, Session.open(calibrated[1], kv_cache="int8") as small:
        for level in ("full", "keep12"):
            want, got = (
                logits_of(plain, make_clip(4, seed=3), level),
                logits_of(small, make_clip(4, seed=3), level),
            )
            assert 0 < np.abs(got - want).max() < 0.08 * np.abs(want).max()
        answers = [
            session.generate(make_clip(4), PROMPT, "keep25", max_new_tokens=4) for session in (plain, small)
        ]
        assert (
            answers[0].kv_bytes == 4 * answers[1].kv_bytes
            and answers[0].kv_allocated_bytes == 4 * answers[1].kv_allocated_bytes
        )


def test_reuse_and_growth_keep_the_codes(calibrated, make_clip):
    with (
        Session.open(calibrated[1], kv_cache="int8") as kept,
        Session.open(calibrated[1], kv_cache="int8", reuse=False) as alone,
    ):
        kept.generate(make_clip(4), PROMPT, "keep25", max_new_tokens=2)
        again = kept.generate(make_clip(4), "And?", "keep25", max_new_tokens=200)
        assert again.reused_tokens > 25
        assert (
            again.token_ids[:6]
            == alone.generate(make_clip(4), "And?", "keep25", max_new_tokens=200).token_ids[:6]
        )


def test_parity_reports_it(calibrated):
    lines = check_parity(
        Checkpoint.open(calibrated[0]),
        Bundle.open(calibrated[1], verify=True),
        [parse_level("keep25")],
        max_new_tokens=3,
    )
    found = [line for line in lines if line.flavour == "gqa8"]
    assert {line.stage for line in found} >= {"prefill", "decode", "greedy tokens"} and all(
        line.passed for line in found
    )


def test_a_key_scale_holds_at_every_position():
    """Rotation turns the two halves of a head against each other: the scale covers every angle."""
    keys = np.random.default_rng(0).normal(size=(2, 30, 8)).astype(np.float32)
    angle = np.linspace(0, 6.28, 30, dtype=np.float32)[None, :, None]
    first, second = np.split(keys, 2, axis=-1)
    turned = np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)],
        axis=-1,
    )
    largest = largest_magnitudes(keys, rotated=True)
    assert (np.abs(turned).max(axis=1) <= largest * 1.0001).all()
    assert not (np.abs(turned).max(axis=1) <= largest_magnitudes(keys, rotated=False)).all()


def test_without_the_decoder_it_says_how_to_add_it(qwen):
    with pytest.raises(FileNotFoundError, match="ltbm calibrate"):
        Session.open(qwen[1], kv_cache="int8")
    with pytest.raises(ValueError, match="int8 and float16 are available on onnxruntime cpu"):
        Session.open(qwen[1], kv_cache="int4")


def test_an_old_onnxruntime_is_refused_before_it_crashes(calibrated, monkeypatch):
    monkeypatch.setattr("onnxruntime.__version__", "1.26.0")
    with pytest.raises(RuntimeError, match="1.27 or newer, this is 1.26.0"):
        Session.open(calibrated[1], kv_cache="int8")


def test_the_command(make_bundle, make_clip, tmp_path, capsys):
    import shutil

    import soundfile

    soundfile.write(tmp_path / "clip.wav", make_clip(2), 16_000)
    shutil.copytree(make_bundle("audioflamingo3")[1], tmp_path / "bundle")
    assert main(["calibrate", str(tmp_path / "bundle"), "--audio", str(tmp_path / "clip.wav")]) == 0
    assert (
        main(
            [
                "run",
                str(tmp_path / "bundle"),
                str(tmp_path / "clip.wav"),
                "--prompt",
                "hm ?",
                "--kv-cache",
                "int8",
                "--max-new-tokens",
                "3",
            ]
        )
        == 0
    )
    assert not list((tmp_path / "bundle").glob(".*"))
