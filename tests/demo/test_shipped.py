"""What ships with the demo: the recordings, the ten clips mixed from them, and the checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ltbm.demo import clips, language
from ltbm.demo.clips import CLIPS, FOLDER, ORIGINS, SECOND_SAMPLES, UNUSED, quantised
from ltbm.demo.packing import MODEL, PACKED, unpack_checkpoint
from ltbm.demo.recordings import SHIPPED, read_pool
from ltbm.demo.scenes import HELD_OUT, SAMPLE_RATE, held_out_scene

DEMO = Path(clips.__file__).parent
RECORDS = json.loads((FOLDER / "clips.json").read_text())


@pytest.fixture(scope="module")
def scenes():
    pool = read_pool(SHIPPED, "test")
    return [held_out_scene(pool, record["seed"] - HELD_OUT) for record in RECORDS]


def test_the_recordings_that_ship_are_those_kept_for_testing():
    pool = read_pool(SHIPPED, "test")
    listed = {recording.path for recordings in pool.values() for recording in recordings}
    assert listed == {path for path in SHIPPED.rglob("*") if path.is_file()}
    assert set(pool) == {"digits", "drum", "cymbal", "bell", "music"}
    with pytest.raises(FileNotFoundError, match="no recording of the train split"):
        read_pool(SHIPPED, "train")


def test_clips_are_the_first_scenes_but_for_the_second():
    numbers = [record["seed"] - HELD_OUT for record in RECORDS]
    assert [numbers[0], *numbers[2:]] == [0, *range(2, CLIPS)]
    assert soundfile.info(FOLDER / "clip02.flac").frames == SECOND_SAMPLES


def test_clips_are_their_scenes(scenes):
    """The rounded waveform to a step (processors round differently), and within that of the scene itself."""
    for record, scene in zip(RECORDS, scenes, strict=True):
        samples, rate = soundfile.read(FOLDER / record["file"], dtype="int16")
        assert rate == SAMPLE_RATE and samples.ndim == 1
        assert np.abs(samples.astype(int) - quantised(scene.waveform)).max() <= 2**UNUSED
        assert np.abs(samples / 2**15 - scene.waveform).max() <= 1.6 * 2**UNUSED / 2**15
        assert record["caption"] == language.caption(scene.events)
        assert [event["sound"] for event in record["events"]] == [event.sound for event in scene.events]


def test_every_clip_says_whose_recordings_it_holds(scenes):
    notice = (DEMO / "NOTICE").read_text()
    licences = dict(ORIGINS.values())
    for record, scene in zip(RECORDS, scenes, strict=True):
        assert {one["file"] for one in record["recordings"]} == {path.name for path in scene.sources}
        for one in record["recordings"]:
            assert licences[one["package"]] == one["licence"]
    for folder, (package, _) in ORIGINS.items():
        assert package in notice and folder in notice


def test_all_of_it_is_under_15_mb():
    sizes = [path.stat().st_size for path in DEMO.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(sizes) < 15e6


def test_the_checkpoint_is_complete():
    names = {file.name for file in MODEL.iterdir()}
    assert names >= {PACKED, "config.json", "generation_config.json", "tokenizer.json"}
    assert names >= {"preprocessor_config.json", "README.md"}
    words = json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(words, key=words.get) == language.vocabulary()


@pytest.mark.slow
def test_stock_transformers_hear_what_our_decoding_hears(scenes, tmp_path):
    """AutoProcessor, chat template and generate, on the whole 30 s window."""
    transformers = pytest.importorskip("transformers")
    from ltbm.demo import data
    from ltbm.demo.encoder import AudioEncoder
    from ltbm.demo.evaluate import answer_examples
    from ltbm.demo.model import load_model

    folder = unpack_checkpoint(MODEL, tmp_path)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, transformers.Qwen2AudioProcessor)
    model = load_model(MODEL)
    encoder = AudioEncoder(model.model.audio_tower)
    some = scenes[:3]
    examples = [data.make_example(scene, encoder) for scene in some]
    for scene, (caption, answer, *_) in zip(some, answer_examples(model, examples), strict=True):
        question = language.questions(scene.events, scene.seed)[0].text
        assert _stock_answer(processor, model, scene, language.CAPTION_PROMPT) == caption
        assert _stock_answer(processor, model, scene, question) == answer
        assert language.parse_caption(caption)


def _stock_answer(processor, model, scene, prompt: str) -> str:
    import torch

    content = [{"type": "audio", "audio": "clip.flac"}, {"type": "text", "text": prompt}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=text, audio=[scene.waveform], sampling_rate=SAMPLE_RATE, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(tokens, skip_special_tokens=True)[0]
