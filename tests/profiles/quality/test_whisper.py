"""Merging judged by Whisper's decoder: a random Whisper of two layers, and a real one where it is given."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")
import torch
from tokenizers import Tokenizer, models
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from ltbm.profiles.quality.variants import Variant
from ltbm.profiles.quality.whisper_merge import compress_window, silence_first
from ltbm.profiles.quality.whisper_model import DecoderInput, Whisper
from ltbm.runtime.cli import main
from ltbm.runtime.stages.audio import load_audio

SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
WORDS = 59
REAL_FOLDER, REAL_MANIFEST = "LTBM_WHISPER", "LTBM_WHISPER_SPEECH"


def variant(level: str, method: str = "ltbm", attention: str = "proportional") -> Variant:
    return Variant(level, method, "original", attention)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A random Whisper of two layers and 32 wide, as a folder."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    ids = {"decoder_start_token_id": 1, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = WhisperConfig(
        vocab_size=len(SPECIAL) + WORDS,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        init_std=0.5,
        **ids,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    GenerationConfig(suppress_tokens=[7], begin_suppress_tokens=[0, 8], **ids).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    vocabulary = {name: index for index, name in enumerate(SPECIAL)}
    vocabulary |= {f"w{index}": len(SPECIAL) + index for index in range(WORDS)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary)))
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whisper(checkpoint) -> Whisper:
    return Whisper(str(checkpoint))


@pytest.fixture(scope="module")
def window(whisper, make_clip):
    return whisper.encode(make_clip(3, 0))


def test_a_clip_fills_a_window_of_tokens_and_knows_its_own(whisper, window):
    assert window.tokens.shape == (750, 32) and window.power.shape == (750,)
    assert window.length == 75
    with pytest.raises(ValueError, match="31.0 s, a window of Whisper holds 30 s"):
        whisper.encode(np.zeros(31 * 16_000, np.float32))


def test_unpooled_and_unmerged_it_transcribes_as_transformers_does(checkpoint, make_clip):
    waveform = make_clip(3, 0)
    ours = Whisper(str(checkpoint), pool="none")
    unmerged = compress_window(ours.encode(waveform), variant("full"))
    (ids,) = ours.transcribe([unmerged.decoder_input], 12)

    theirs = WhisperForConditionalGeneration.from_pretrained(checkpoint)
    features = ours.features(waveform, sampling_rate=16_000, return_tensors="pt")["input_features"]
    expected = [1, 2, 3, 4]
    states = theirs.model.encoder(features)
    for step in range(12):
        logits = theirs(encoder_outputs=states, decoder_input_ids=torch.tensor([expected])).logits[0, -1]
        logits[[7] if step else [7, 0, 8]] = -torch.inf
        expected.append(int(logits.argmax()))
        if expected[-1] == 0:
            break
    assert len(ids) > 1 and ids == [token for token in expected[4:] if token]


def test_an_int8_encoder_rounds_the_encoder_alone(checkpoint, whisper, window, make_clip):
    rounded = Whisper(str(checkpoint), encoder_precision="int8")
    tokens = rounded.encode(make_clip(3, 0)).tokens
    difference = np.linalg.norm(tokens - window.tokens) / np.linalg.norm(window.tokens)
    assert 0.001 < difference < 0.1
    inputs = [compress_window(window, variant("full")).decoder_input]
    assert rounded.transcribe(inputs, 10) == whisper.transcribe(inputs, 10)
    with pytest.raises(ValueError, match="encoder precision 'int4' is none of float32, int8"):
        Whisper(str(checkpoint), encoder_precision="int4")


def test_a_batch_answers_as_each_alone(whisper, window):
    inputs = [compress_window(window, variant(level)).decoder_input for level in ("full", "keep25", "keep12")]
    assert whisper.transcribe(inputs, 10) == [whisper.transcribe([one], 10)[0] for one in inputs]


def test_rows_that_end_early_leave_the_others_as_they_were(whisper, make_clip, monkeypatch):
    windows = [whisper.encode(make_clip(3, seed)) for seed in range(6)]
    inputs = [compress_window(one, variant("keep6", attention="10")).decoder_input for one in windows]
    endless = whisper.transcribe(inputs, 12)
    end = endless[0][5]
    expected = [ids[: ids.index(end)] if end in ids else ids for ids in endless]
    assert len({len(ids) for ids in expected}) > 1
    monkeypatch.setattr(whisper, "end_ids", torch.tensor([end]))
    assert whisper.transcribe(inputs, 12) == expected


def test_log_size_makes_a_token_weigh_as_its_copies(whisper, window):
    repeats = np.arange(len(window.tokens)) % 3 + 1
    copies = np.repeat(window.tokens, repeats, axis=0)
    copied = DecoderInput(copies, np.zeros(len(copies), np.float32))
    weighed = DecoderInput(window.tokens, np.log(repeats).astype(np.float32))
    plain = DecoderInput(window.tokens, np.zeros(len(window.tokens), np.float32))
    by_copies, by_bias, without = (_hidden(whisper, one) for one in (copied, weighed, plain))
    assert torch.allclose(by_copies, by_bias, atol=1e-4)
    assert not torch.allclose(by_copies, without, atol=1e-3)


def _hidden(whisper: Whisper, one: DecoderInput) -> torch.Tensor:
    with torch.inference_mode():
        return whisper.model.model.decoder(
            input_ids=torch.tensor([[1, 9, 10]]),
            encoder_hidden_states=torch.from_numpy(one.tokens)[None],
            key_bias=torch.from_numpy(one.key_bias)[None],
        ).last_hidden_state


def test_only_the_clips_tokens_are_merged_and_the_windows_rest_stands_behind_them(window):
    one = compress_window(window, variant("keep25", attention="1.5"))
    assert (one.tokens_in, one.tokens_out) == (75, 19)
    assert np.array_equal(one.decoder_input.tokens[19:], window.tokens[75:])
    assert not one.decoder_input.key_bias[19:].any()
    sizes = np.exp(one.decoder_input.key_bias[:19] / 1.5)
    assert sizes.sum() == pytest.approx(75)
    assert not compress_window(window, variant("keep25", attention="plain")).decoder_input.key_bias.any()


def test_values_of_a_merged_token(window):
    mean = compress_window(window, variant("keep25")).decoder_input.tokens[:19]
    norm = compress_window(window, variant("keep25", "ltbm-norm")).decoder_input.tokens[:19]
    anchor = compress_window(window, variant("keep25", "ltbm-anchor")).decoder_input.tokens[:19]
    lengths = np.linalg.norm(norm, axis=1)
    assert np.all(lengths >= np.linalg.norm(mean, axis=1) * 0.9999)
    assert np.allclose(norm / lengths[:, None], mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)
    assert all(any(np.array_equal(token, own) for own in window.tokens[:75]) for token in anchor)


@pytest.mark.parametrize("method", ["ltbm", "global", "pool"])
def test_the_norm_is_kept_whatever_the_method(window, method):
    """Tokens of equal norm merged: so are their outputs, where the mean's are shorter."""
    directions = window.tokens / np.linalg.norm(window.tokens, axis=1, keepdims=True)
    equal = replace(window, tokens=directions)
    mean = compress_window(equal, variant("keep12", method)).decoder_input
    norm = compress_window(equal, variant("keep12", f"{method}-norm")).decoder_input
    assert np.array_equal(mean.key_bias, norm.key_bias)
    assert np.linalg.norm(mean.tokens[:10], axis=1).min() < 0.9999
    assert np.allclose(np.linalg.norm(norm.tokens, axis=1), 1, atol=1e-5)


def test_silence_first_leaves_the_target_to_sound():
    random = np.random.default_rng(0)
    tokens = random.normal(size=(96, 8)).astype(np.float32)
    power = np.where(np.arange(96) % 48 < 32, -9.0, 0.0)  # 64 silent tokens of 96
    plan = silence_first(tokens, power, 24, 8)
    assert len(plan.sizes) == 24 and plan.sizes.sum() == 96
    assert np.all(np.diff(plan.anchors) > 0)
    silent_outputs = set(plan.source_map[power < 0])
    assert len(silent_outputs) == 4 and silent_outputs.isdisjoint(plan.source_map[power == 0])


@pytest.fixture
def manifest(tmp_path, make_clip) -> Path:
    lines = []
    for seed in range(3):
        soundfile.write(tmp_path / f"{seed}.wav", make_clip(2, seed), 16_000)
        lines.append(json.dumps({"id": str(seed), "audio": f"{seed}.wav", "references": ["w1 w2 w3"]}))
    path = tmp_path / "speech.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_transcribe_go_on_and_score(checkpoint, manifest, capsys):
    out = manifest.parent / "out"
    command = ["eval", "whisper", str(checkpoint), "--manifest", str(manifest), "--out", str(out)]
    command += ["--max-new-tokens", "5", "--levels", "full,keep50,1/3", "--threads", "1"]
    assert main([*command, "--methods", "ltbm,pool", "--limit", "2"]) == 0
    first = (out / "answers.jsonl").read_text()
    assert len(first.splitlines()) == 2 * 5
    assert main([*command, "--methods", "ltbm,pool,global", "--attention", "proportional,plain"]) == 0
    everything = (out / "answers.jsonl").read_text()
    assert everything.startswith(first) and len(everything.splitlines()) == 3 * (1 + 2 * 3 * 2)
    assert main(["eval", "score", str(out)]) == 0
    table = capsys.readouterr().out
    assert "clips that loop" in table and "| 1/3 | global, original, plain |" in table
    assert "Minus mean pooling at the same level" in table
    compared = json.loads((out / "results.json").read_text())["comparisons"]
    assert {row["baseline"] for row in compared} == {"full", "global", "pool", "proportional"}


def test_clips_of_one_batch_keep_their_own_words(checkpoint, whisper, manifest):
    out = manifest.parent / "mixed"
    command = ["eval", "whisper", str(checkpoint), "--manifest", str(manifest), "--out", str(out)]
    assert main([*command, "--levels", "keep50,keep25", "--methods", "ltbm", "--max-new-tokens", "5"]) == 0
    texts = set()
    for line in (out / "answers.jsonl").read_text().splitlines():
        record = json.loads(line)
        waveform = load_audio(manifest.parent / f"{record['item']}.wav", 16_000)
        one = compress_window(whisper.encode(waveform), variant(record["level"]))
        (ids,) = whisper.transcribe([one.decoder_input], 5)
        assert record["text"] == whisper.decode(ids) and record["tokens_out"] == one.tokens_out
        texts.add(record["text"])
    assert len(texts) > 1


def test_mistaken_flags_are_refused(checkpoint, manifest, capsys):
    command = ["eval", "whisper", str(checkpoint), "--manifest", str(manifest), "--out", "unused"]
    assert main([*command, "--methods", "best"]) == 2
    assert main([*command, "--attention", "strong"]) == 2
    assert main([*command, "--levels", "keep40"]) == 2
    assert main([*command, "--limit", "0"]) == 2
    assert not Path("unused").exists()


def test_a_real_whisper_keeps_its_transcripts_at_half_the_tokens(tmp_path, capsys):
    folder, speech = os.environ.get(REAL_FOLDER), os.environ.get(REAL_MANIFEST)
    if not (folder and speech):
        pytest.skip(f"no real weights: set {REAL_FOLDER} (a Whisper folder) and {REAL_MANIFEST} (a manifest)")
    command = ["eval", "whisper", folder, "--manifest", speech, "--out", str(tmp_path), "--limit", "4"]
    assert main([*command, "--levels", "full,keep50", "--methods", "ltbm"]) == 0
    assert main(["eval", "score", str(tmp_path), "--normalizer", "digits", "--json"]) == 0
    full, half = json.loads(capsys.readouterr().out)[0]["rows"]
    assert full["wer"] < 0.25 and half["wer"] < full["wer"] + 0.05
