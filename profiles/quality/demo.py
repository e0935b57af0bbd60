"""The quality benchmark on synthetic scenes: every level, method and mode through the exported engines.

A benchmark of mechanism and regression: a small model and synthetic sound, no evidence about a 7B model.
"""

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from itertools import islice

from ltbm.demo.language import CAPTION_PROMPT, questions
from ltbm.demo.metrics import bootstrap_difference, score_clip, summarise
from ltbm.demo.scenes import Scene, held_out_scene, split_seeds

from ...runtime.levels import Level, parse_level
from ...runtime.pipeline import Pipeline
from ...runtime.prompt import Turn
from ...runtime.stages.merge import MergedAudio
from ...runtime.stages.segments import Audio
from ...runtime.stages.splice import Prefix
from .batch import answer_all, compress
from .variants import Variant, same_prefix

COMPARED = ("event_f1", "exact_match", "question_accuracy")
CAPTION_TOKENS, ANSWER_TOKENS = 48, 8  # longest caption and longest answer to a question
SCENES_PER_TASK = 50


def evaluate(
    bundle,
    scenes: int,
    first_seed: int,
    chosen: list[Variant],
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Variant, list[dict]]:
    """Counts (ltbm.demo.metrics) of every scene, per variant, through the engines of `bundle`.

    scenes: held-out scenes from `first_seed` of the test split on; every second one has recurring sounds
    """
    seeds = list(split_seeds("test", scenes, first_seed))
    tasks = [
        (str(bundle), seeds[start : start + SCENES_PER_TASK], chosen)
        for start in range(0, scenes, SCENES_PER_TASK)
    ]
    counts: dict[Variant, list[dict]] = {variant: [] for variant in chosen}
    for done, part in enumerate(_run(tasks, processes or os.cpu_count() or 1), start=1):
        for variant, clips in part.items():
            counts[variant] += clips
        progress(min(done * SCENES_PER_TASK, scenes), scenes)
    return counts


def _run(tasks: list, processes: int) -> Iterator[dict]:
    if processes == 1 or len(tasks) == 1:
        yield from map(_evaluate_task, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(tasks))) as pool:
        yield from pool.imap(_evaluate_task, tasks)


def _evaluate_task(task: tuple) -> dict[Variant, list[dict]]:
    bundle, seeds, chosen = task
    with Pipeline.open(bundle, threads=1) as pipeline:
        return evaluate_scenes(pipeline, [held_out_scene(seed) for seed in seeds], chosen)


def evaluate_scenes(
    pipeline: Pipeline, scenes: list[Scene], chosen: list[Variant]
) -> dict[Variant, list[dict]]:
    """Counts of each scene per variant; what several variants share (encoder, merge, equal prefixes)
    runs once."""
    audios = [pipeline.segments(scene.waveform) for scene in scenes]
    encoded = [pipeline.encode(audio) for (audio,) in audios]
    merged_as, merged = None, []  # of the last level and method only
    counts: dict[Variant, list[dict]] = {}
    for variant in chosen:
        level = parse_level(variant.level, positions=variant.positions, attention=variant.attention)
        if (variant.level, variant.method) != merged_as:
            merged_as = (variant.level, variant.method)
            merged = [compress(pipeline, rows, variant.method, level) for rows in encoded]
        if same_prefix(variant) not in counts:
            answers = answer_scenes(pipeline, scenes, audios, merged, level)
            counts[same_prefix(variant)] = _count(scenes, answers, merged)
    return {variant: counts[same_prefix(variant)] for variant in chosen}


def prompts(scene: Scene) -> list[str]:
    """What a scene's caption and then its questions are asked with."""
    return [CAPTION_PROMPT] + [question.text for question in questions(scene)]


def answer_scenes(
    pipeline: Pipeline,
    scenes: list[Scene],
    audios: list[list[Audio]],
    merged: list[MergedAudio],
    level: Level,
) -> list[list[str]]:
    """For each scene the answers to its prompts; captions and questions run in batches of their own."""
    captions = []
    answers = []
    for scene, audio, tokens in zip(scenes, audios, merged):
        caption, *others = prompts(scene)
        captions.append(_prefix(pipeline, caption, audio, tokens, level, CAPTION_TOKENS))
        answers += [_prefix(pipeline, prompt, audio, tokens, level, ANSWER_TOKENS) for prompt in others]
    caption_texts = answer_all(pipeline, captions, CAPTION_TOKENS)
    answer_texts = iter(answer_all(pipeline, answers, ANSWER_TOKENS))
    return [
        [caption, *islice(answer_texts, len(questions(scene)))]
        for scene, caption in zip(scenes, caption_texts)
    ]


def _prefix(
    pipeline: Pipeline,
    prompt: str,
    audio: list[Audio],
    merged: MergedAudio,
    level: Level,
    max_new_tokens: int,
) -> Prefix:
    layout = pipeline.lay_out([Turn("user", prompt, 1)], audio, level, max_new_tokens)
    return pipeline.prefix(layout, [merged])


def _count(scenes: list[Scene], answers: list[list[str]], merged: list[MergedAudio]) -> list[dict]:
    counts = []
    for scene, (caption, *texts), audio in zip(scenes, answers, merged):
        tokens = {"tokens_in": audio.tokens_in, "tokens_out": audio.tokens_out}
        counts.append(score_clip(scene.events, caption, questions(scene), texts) | tokens)
    return counts


def rows_of(counts: dict[Variant, list[dict]]) -> list[dict]:
    """One row per variant: its names, token counts and every metric,
    None where there was nothing to count."""
    rows = []
    for variant, clips in counts.items():
        figures = {name: None if math.isnan(value) else value for name, value in summarise(clips).items()}
        rows.append(
            vars(variant)
            | {name: sum(clip[name] for clip in clips) for name in ("tokens_in", "tokens_out")}
            | figures
        )
    return rows


def comparisons(counts: dict[Variant, list[dict]]) -> list[dict]:
    """ltbm minus each other method, at equal level and mode: paired bootstrap over scenes, 95 % intervals."""
    found = []
    for variant, clips in counts.items():
        mine = counts.get(Variant(variant.level, "ltbm", variant.positions, variant.attention))
        if variant.method == "ltbm" or mine is None:
            continue
        for metric in COMPARED:
            difference, low, high = bootstrap_difference(mine, clips, metric)
            found.append(
                vars(variant) | {"metric": metric, "difference": difference, "low": low, "high": high}
            )
    return found
