"""The regression gate: the shipped model through the exported engines on 200 held-out scenes."""

import numpy as np
import pytest

from ltbm.demo.bundle import MODEL, demo_bundle
from ltbm.demo.language import questions
from ltbm.demo.metrics import score_clip, summarise
from ltbm.demo.scenes import held_out_scene, split_seeds
from ltbm.profiles.quality.batch import compress
from ltbm.profiles.quality.demo import answer_scenes
from ltbm.runtime.levels import parse_level
from ltbm.runtime.pipeline import Pipeline

pytestmark = pytest.mark.slow

SCENES, FIRST = 200, 1000  # scenes nobody looked at while the sounds were designed
AGAINST_PYTORCH = 100  # of the scenes
LEVELS = ("full", "keep50", "keep25", "keep12", "keep6")
VARIANTS = [*(("ltbm", level) for level in LEVELS), ("pool", "keep12"), ("prune", "keep25")]


@pytest.fixture(scope="module")
def scenes():
    return [held_out_scene(seed) for seed in split_seeds("test", SCENES, FIRST)]


@pytest.fixture(scope="module")
def engine_texts(scenes):
    """(method, level) -> for each scene what the engines say to its prompts; defaults for positions and
    attention."""
    with demo_bundle() as bundle, Pipeline.open(bundle) as pipeline:
        audios = [pipeline.segments(scene.waveform) for scene in scenes]
        encoded = [pipeline.encode(audio) for (audio,) in audios]
        texts = {}
        for method, name in VARIANTS:
            level = parse_level(name)
            merged = [compress(pipeline, rows, method, level) for rows in encoded]
            texts[method, name] = answer_scenes(pipeline, scenes, audios, merged, level)
        return texts


@pytest.fixture(scope="module")
def figures(scenes, engine_texts):
    return {
        key: summarise(
            [
                score_clip(scene.events, said[0], questions(scene), said[1:])
                for scene, said in zip(scenes, texts)
            ]
        )
        for key, texts in engine_texts.items()
    }


def test_uncompressed(figures):
    assert figures["ltbm", "full"]["event_f1"] > 0.93
    assert figures["ltbm", "full"]["question_accuracy"] > 0.80


def test_half_and_a_quarter_of_the_tokens_keep_the_answers(figures):
    assert figures["ltbm", "keep50"]["event_f1"] > 0.93
    assert figures["ltbm", "keep25"]["event_f1"] > 0.92
    assert figures["ltbm", "keep25"]["exact_match"] >= figures["ltbm", "full"]["exact_match"] - 0.08


def test_merging_beats_pooling_and_pruning(figures):
    assert figures["ltbm", "keep12"]["event_f1"] >= figures["pool", "keep12"]["event_f1"] + 0.05
    assert figures["ltbm", "keep25"]["event_f1"] >= figures["prune", "keep25"]["event_f1"] + 0.15


@pytest.mark.parametrize("name", ["full", "keep25", "keep6"])
def test_engines_answer_as_pytorch_does(scenes, engine_texts, name):
    from ltbm.demo import evaluate

    some = scenes[:AGAINST_PYTORCH]
    expected = evaluate.answer_scenes(evaluate.load_model(MODEL), some, parse_level(name))
    equal = np.mean([said == wanted for said, wanted in zip(engine_texts["ltbm", name], expected)])
    assert equal >= 0.99, f"{equal:.3f} of the scenes have the same caption and answers as in PyTorch"
