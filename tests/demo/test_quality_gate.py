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

SCENES, FIRST = 60, 1000  # scenes nobody looked at while the model was trained
AGAINST_PYTORCH = 20  # of the scenes
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
    with demo_bundle() as bundle, Pipeline.open(bundle) as pipeline:
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
