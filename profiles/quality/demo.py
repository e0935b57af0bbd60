"""The quality benchmark on synthetic scenes: every level, method and mode through the exported engines.

A benchmark of mechanism and regression: a small model and synthetic sound, no evidence about a 7B model.
"""

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator

from ltbm.demo.language import CAPTION_PROMPT, questions
from ltbm.demo.metrics import bootstrap_difference, score_clip, summarise
from ltbm.demo.scenes import Scene, held_out_scene, split_seeds

from ...runtime.levels import parse_level
from ...runtime.session import Session
from ...runtime.stages.encoder import encode
from ...runtime.stages.splice import splice
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
    with Session.open(bundle, threads=1) as session:
        return evaluate_scenes(session, [held_out_scene(seed) for seed in seeds], chosen)


def evaluate_scenes(
    session: Session, scenes: list[Scene], chosen: list[Variant]
) -> dict[Variant, list[dict]]:
    """Counts of each scene per variant; what several variants share (encoder, merge, equal prefixes) runs once."""
    encoded = [encode(session.encoder, session.features(scene.waveform)[0]) for scene in scenes]
    asked = [[session.prompter.prompt_ids(prompt, 1) for prompt in prompts(scene)] for scene in scenes]
    merged, scored = {}, {}
    for variant in chosen:
        level = parse_level(variant.level, positions=variant.positions, attention=variant.attention)
        key = (variant.level, variant.method)
        if key not in merged:
            merged = {
                key: [compress(session, groups, variant.method, level) for groups in encoded]
            }  # the last one only
        if same_prefix(variant) not in scored:
            scored[same_prefix(variant)] = _score(session, scenes, merged[key], asked, level)
    return {variant: scored[same_prefix(variant)] for variant in chosen}


def prompts(scene: Scene) -> list[str]:
    """What is asked of a scene: its caption, then its questions."""
    return [CAPTION_PROMPT] + [question.text for question in questions(scene)]


def hear(session: Session, merged: list, asked: list[list[list[int]]], level) -> list[list[str]]:
    """For each scene the answers to its prompts; captions and questions run in batches of their own."""
    token = session.manifest.prompt.audio_token_id
    prefixes = [
        [splice(ids, [audio], token, session.embeddings, level) for ids in rows]
        for audio, rows in zip(merged, asked)
    ]
    captions = answer_all(session, [rows[0] for rows in prefixes], CAPTION_TOKENS)
    answers = iter(answer_all(session, [prefix for rows in prefixes for prefix in rows[1:]], ANSWER_TOKENS))
    return [[caption] + [next(answers) for _ in rows[1:]] for caption, rows in zip(captions, prefixes)]


def _score(session: Session, scenes: list[Scene], merged: list, asked, level) -> list[dict]:
    heard = hear(session, merged, asked, level)
    tokens = [{"tokens_in": audio.tokens_in, "tokens_out": audio.tokens_out} for audio in merged]
    return [
        score_clip(scene.events, texts[0], questions(scene), texts[1:]) | count
        for scene, texts, count in zip(scenes, heard, tokens)
    ]


def rows_of(counts: dict[Variant, list[dict]]) -> list[dict]:
    """One row per variant: its names, token counts and every metric, None where there was nothing to count."""
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
