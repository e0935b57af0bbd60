"""The regression gate: the shipped model through its engines, on scenes of the recordings that ship."""

import numpy as np
import pytest

from ltbm.demo.bundle import demo_bundle
from ltbm.demo.language import questions
from ltbm.demo.metrics import score_clip, summarise
from ltbm.demo.packing import MODEL
from ltbm.demo.recordings import SHIPPED, read_pool
from ltbm.demo.scenes import held_out_scene
from ltbm.profiles.quality.demo import answer_scenes
from ltbm.profiles.quality.variants import DEFAULT_MODE, Variant
from ltbm.runtime.levels import parse_level
from ltbm.runtime.pipeline import Pipeline

pytestmark = pytest.mark.slow

SCENES, FIRST = 40, 1000  # scenes nobody looked at while the model was trained
AGAINST_PYTORCH = 10  # of the scenes
FULL, KEEP50, KEEP25, KEEP12 = (
    Variant(level, "ltbm", *DEFAULT_MODE) for level in ("full", "keep50", "keep25", "keep12")
)
POOL12 = Variant("keep12", "pool", *DEFAULT_MODE)
PRUNE25 = Variant("keep25", "prune", *DEFAULT_MODE)
PLAIN12 = Variant("keep12", "ltbm", "original", "plain")
COMPACT25 = Variant("keep25", "ltbm", "compact", "proportional")
VARIANTS = (FULL, KEEP50, KEEP25, KEEP12, POOL12, PRUNE25, PLAIN12, COMPACT25)


@pytest.fixture(scope="module")
def scenes():
    pool = read_pool(SHIPPED, "test")
    return [held_out_scene(pool, FIRST + number) for number in range(SCENES)]


@pytest.fixture(scope="module")
def answers(scenes):
    with demo_bundle() as bundle, Pipeline.open(bundle, threads=1) as pipeline:
        return answer_scenes(pipeline, scenes, VARIANTS)


@pytest.fixture(scope="module")
def figures(scenes, answers):
    return {variant: summarise(_scores(scenes, given)) for variant, given in answers.items()}


def _scores(scenes, given) -> list[dict[str, int]]:
    scores = []
    for scene, answer in zip(scenes, given, strict=True):
        caption, *texts = answer.texts
        right = [question.answer for question in questions(scene.events, scene.seed)]
        scores.append(score_clip(scene.events, caption, right, texts))
    return scores


def test_uncompressed(figures):
    assert figures[FULL]["event_f1"] > 0.80
    assert figures[FULL]["digit_accuracy"] > 0.90
    assert figures[FULL]["question_accuracy"] > 0.60


def test_half_and_a_quarter_of_the_tokens_keep_the_sounds(figures):
    assert figures[KEEP50]["event_f1"] > 0.80
    assert figures[KEEP25]["event_f1"] > 0.80
    assert figures[KEEP12]["event_f1"] > 0.77
    assert figures[KEEP25]["exact_match"] > 0.24


def test_merging_beats_pooling_and_pruning(figures):
    assert figures[KEEP12]["event_f1"] > figures[POOL12]["event_f1"] + 0.02
    assert figures[KEEP25]["event_f1"] > figures[PRUNE25]["event_f1"] + 0.15


def test_positions_matter(figures):
    assert figures[KEEP25]["event_f1"] > figures[COMPACT25]["event_f1"] + 0.05
    assert figures[KEEP25]["duration_accuracy"] > figures[COMPACT25]["duration_accuracy"] + 0.30


def test_attention_changes_answers(answers):
    """Plain attention costs this model too little to be seen in a score: the answers are compared."""
    same = np.mean([one.texts == other.texts for one, other in zip(answers[KEEP12], answers[PLAIN12])])
    assert 0.3 < same < 0.8


@pytest.fixture(scope="module")
def in_pytorch(scenes):
    """(model, the first scenes as it takes them)"""
    from ltbm.demo import data
    from ltbm.demo.encoder import AudioEncoder
    from ltbm.demo.model import load_model

    model = load_model(MODEL)
    encoder = AudioEncoder(model.model.audio_tower)
    return model, [data.make_example(scene, encoder) for scene in scenes[:AGAINST_PYTORCH]]


@pytest.mark.parametrize("variant", [FULL, KEEP25, KEEP12], ids=lambda variant: variant.level)
def test_engines_answer_as_pytorch_does(in_pytorch, answers, variant):
    from ltbm.demo.evaluate import answer_examples

    expected = answer_examples(*in_pytorch, parse_level(variant.level))
    given = [list(answer.texts) for answer in answers[variant][:AGAINST_PYTORCH]]
    equal = np.mean([said == wanted for said, wanted in zip(given, expected)])
    assert equal >= 0.9, f"{equal:.2f} of the scenes have the same caption and answers as in PyTorch"
