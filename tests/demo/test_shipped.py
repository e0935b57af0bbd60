"""What ships with the demo: the ten clips and the checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ltbm.demo import clips, language
from ltbm.demo.clips import CLIPS, FOLDER, UNUSED, clip_seeds, quantised, write_clips
from ltbm.demo.scenes import SAMPLE_RATE, SPLITS, held_out_scene

MODEL = Path(clips.__file__).parent / "model"
RECORDS = json.loads((FOLDER / "clips.json").read_text())


def test_clips_are_the_first_held_out_scenes():
    assert [record["seed"] for record in RECORDS] == list(clip_seeds()) == list(SPLITS["test"][:CLIPS])
    assert sum(record["recurring"] for record in RECORDS) == CLIPS // 2
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 1e6


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["file"])
def test_a_clip_is_its_scene(record):
    """The rounded waveform to a step (processors round a sine differently), and within that of the scene
    itself."""
    scene = held_out_scene(record["seed"])
    samples, rate = soundfile.read(FOLDER / record["file"], dtype="int16")
    assert rate == SAMPLE_RATE and samples.ndim == 1
    assert np.abs(samples.astype(int) - quantised(scene.waveform)).max() <= 2**UNUSED
    assert np.abs(samples / 2**15 - scene.waveform).max() <= 1.6 * 2**UNUSED / 2**15
    assert record["caption"] == language.caption(scene.events)
    assert [event["sound"] for event in record["events"]] == [event.sound for event in scene.events]


def test_the_clips_can_be_written_again(tmp_path):
    write_clips(tmp_path)
    assert json.loads((tmp_path / "clips.json").read_text()) == RECORDS
    for record in RECORDS:
        again, shipped = (
            soundfile.read(folder / record["file"], dtype="int16")[0] for folder in (tmp_path, FOLDER)
        )
        assert np.abs(again.astype(int) - shipped).max() <= 2**UNUSED


def test_the_checkpoint_is_small_and_complete():
    sizes = {file.name: file.stat().st_size for file in MODEL.iterdir()}
    assert sizes["model.safetensors"] < 6e6
    for name in (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "preprocessor_config.json",
        "README.md",
    ):
        assert sizes[name] > 0
    words = json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(words, key=words.get) == language.vocabulary()


def test_stock_transformers_hear_what_our_decoding_hears():
    """AutoProcessor, chat template and generate, on the whole 30 s window."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from ltbm.demo.evaluate import answer_scenes, load_model

    processor = transformers.AutoProcessor.from_pretrained(MODEL)
    assert isinstance(processor, transformers.Qwen2AudioProcessor)
    model = load_model(MODEL)
    scenes = [held_out_scene(seed) for seed in list(clip_seeds())[:3]]
    for scene, (caption, answer, *_) in zip(scenes, answer_scenes(model, scenes), strict=True):
        question = language.questions(scene)[0].text
        assert _stock_answer(torch, processor, model, scene, language.CAPTION_PROMPT) == caption
        assert _stock_answer(torch, processor, model, scene, question) == answer
        assert language.parse_caption(caption)


def _stock_answer(torch, processor, model, scene, prompt: str) -> str:
    content = [{"type": "audio", "audio": "clip.flac"}, {"type": "text", "text": prompt}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=text, audio=[scene.waveform], sampling_rate=SAMPLE_RATE, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(tokens, skip_special_tokens=True)[0]
