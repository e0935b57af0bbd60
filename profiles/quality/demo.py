"""The shipped model on scenes mixed from recordings, at every level, method and mode, through the engines.

A scene is one item. It is asked for its caption and then its questions; its answer has a line for each.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from ltbm.demo.language import CAPTION_PROMPT, Question, caption, questions
from ltbm.demo.recordings import Pool, read_pool
from ltbm.demo.scenes import Scene, held_out_scene

from ...runtime.files import as_utf8, read_text, write_whole
from ...runtime.levels import Level, parse_level
from ...runtime.pipeline import Pipeline
from ...runtime.prompt import Turn
from ...runtime.stages.merge import MergedAudio
from ...runtime.stages.segments import Audio
from ...runtime.stages.splice import Prefix
from .batch import compress, greedy_all
from .items import Item, item_line
from .predict import ITEMS, AnswerLog
from .variants import Variant, same_prefix

CAPTION_TOKENS, ANSWER_TOKENS = 48, 8  # longest caption and longest answer to a question
SCENES_PER_TASK = 25
ID_PREFIX = "scene "  # of items, before the scene's number


@dataclass(frozen=True)
class SceneAnswer:
    """What the model said to a scene's prompts, its caption first.

    finish_reason: "length" if one of the texts was cut off
    tokens_in, tokens_out: audio tokens before and after merging
    """

    texts: tuple[str, ...]
    finish_reason: str
    tokens_in: int
    tokens_out: int

    def record(self, number: int, variant: Variant) -> dict:
        """Its line in the file of answers."""
        own = {name: value for name, value in vars(self).items() if name != "texts"}
        return {"item": scene_id(number)} | asdict(variant) | {"text": "\n".join(self.texts)} | own


@dataclass(frozen=True)
class Task:
    """Scenes for one process, by their numbers in the test split, and the variants to answer them with."""

    bundle: str
    recordings: str
    numbers: tuple[int, ...]
    chosen: tuple[Variant, ...]


def scene_id(number: int) -> str:
    return f"{ID_PREFIX}{number}"


def scene_number(item_id: str) -> int:
    return int(item_id.removeprefix(ID_PREFIX))


def scene_item(number: int, scene: Scene) -> Item:
    """What is right about a scene: its caption, then the answers to its questions."""
    asked = _questions(scene)
    return Item(
        id=scene_id(number),
        audio=" ".join(path.name for path in scene.sources),
        references=(caption(scene.events), *(question.answer for question in asked)),
        question="\n".join(question.text for question in asked),
    )


def recordings_hash(pool: Pool, first: int) -> str:
    """sha256 of what decides every scene: the recordings, and the number of the first scene."""
    digest = hashlib.sha256(f"scenes from {first}".encode())
    for name, recordings in pool.items():
        for recording in recordings:
            digest.update(f"{name} {recording.path.name}".encode())
            digest.update(recording.path.read_bytes())
    return digest.hexdigest()


def extend_items(out: Path, items: Sequence[Item]) -> None:
    """Items of a folder that holds the first of them already; ValueError if those are other scenes."""
    lines = [item_line(item) for item in items]
    former = read_text(out / ITEMS).strip().split("\n")
    shared = min(len(lines), len(former))
    if former[:shared] != lines[:shared]:
        raise ValueError(f"{out} holds answers about other scenes; give another --out, or delete it")
    if len(lines) > len(former):
        write_whole(out / ITEMS, as_utf8("\n".join(lines) + "\n"))


def evaluate(
    bundle: Path,
    recordings: Path,
    numbers: Sequence[int],
    chosen: Sequence[Variant],
    log: AnswerLog,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Answer what the log lacks; `numbers` are of scenes of the test split."""
    tasks = _tasks(bundle, recordings, numbers, chosen, log)
    total = sum(len(task.numbers) for task in tasks)
    done = 0
    for task, records in zip(tasks, _run(tasks, processes or os.cpu_count() or 1)):
        for record in records:
            log.append(record)
        done += len(task.numbers)
        progress(done, total)


def _tasks(
    bundle: Path, recordings: Path, numbers: Sequence[int], chosen: Sequence[Variant], log: AnswerLog
) -> list[Task]:
    """Tasks of up to SCENES_PER_TASK scenes that lack the same variants."""
    lacking: dict[tuple[Variant, ...], list[int]] = {}
    for number in numbers:
        missing = [variant for variant in chosen if (scene_id(number), variant) not in log.answers]
        if missing:
            lacking.setdefault(tuple(missing), []).append(number)
    tasks = []
    for missing, group in lacking.items():
        for first in range(0, len(group), SCENES_PER_TASK):
            part = tuple(group[first : first + SCENES_PER_TASK])
            tasks.append(Task(str(bundle), str(recordings), part, missing))
    return tasks


def _run(tasks: list[Task], processes: int) -> Iterator[list[dict]]:
    if processes == 1 or len(tasks) < 2:
        yield from map(_answer_task, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(tasks))) as pool:
        yield from pool.imap(_answer_task, tasks)


def _answer_task(task: Task) -> list[dict]:
    pool = read_pool(Path(task.recordings), "test")
    scenes = [held_out_scene(pool, number) for number in task.numbers]
    with Pipeline.open(task.bundle, threads=1) as pipeline:
        answers = answer_scenes(pipeline, scenes, task.chosen)
    records = []
    for variant, given in answers.items():
        for number, answer in zip(task.numbers, given):
            records.append(answer.record(number, variant))
    return records


def answer_scenes(
    pipeline: Pipeline, scenes: Sequence[Scene], chosen: Sequence[Variant]
) -> dict[Variant, list[SceneAnswer]]:
    """The answer to every scene for each variant; what variants share (encoder, merge, equal prefixes) runs
    once."""
    audios = [pipeline.segments(scene.waveform) for scene in scenes]
    encoded = [pipeline.encode(audio) for (audio,) in audios]
    merged_as = None  # (level, method) that `merged` is of
    merged: list[MergedAudio] = []
    answers: dict[Variant, list[SceneAnswer]] = {}
    for variant in chosen:
        level = parse_level(variant.level, positions=variant.positions, attention=variant.attention)
        if (variant.level, variant.method) != merged_as:
            merged_as = (variant.level, variant.method)
            merged = [compress(pipeline, rows, variant.method, level) for rows in encoded]
        if same_prefix(variant) not in answers:
            answers[same_prefix(variant)] = _answer_all(pipeline, scenes, audios, merged, level)
    return {variant: answers[same_prefix(variant)] for variant in chosen}


def _answer_all(
    pipeline: Pipeline,
    scenes: Sequence[Scene],
    audios: list[list[Audio]],
    merged: list[MergedAudio],
    level: Level,
) -> list[SceneAnswer]:
    """Captions and answers to questions run in batches of their own."""
    captions = []
    others = []
    for scene, audio, tokens in zip(scenes, audios, merged):
        captions.append(_prefix(pipeline, CAPTION_PROMPT, audio, tokens, level, CAPTION_TOKENS))
        for question in _questions(scene):
            others.append(_prefix(pipeline, question.text, audio, tokens, level, ANSWER_TOKENS))
    caption_ids = greedy_all(pipeline, captions, CAPTION_TOKENS)
    other_ids = iter(greedy_all(pipeline, others, ANSWER_TOKENS))
    answers = []
    for scene, ids, audio in zip(scenes, caption_ids, merged):
        given = list(islice(other_ids, len(_questions(scene))))
        is_cut = len(ids) == CAPTION_TOKENS or any(len(one) == ANSWER_TOKENS for one in given)
        texts = tuple(pipeline.prompter.decode(one) for one in (ids, *given))
        finish_reason = "length" if is_cut else "stop"
        answers.append(SceneAnswer(texts, finish_reason, audio.tokens_in, audio.tokens_out))
    return answers


def _questions(scene: Scene) -> list[Question]:
    return questions(scene.events, scene.seed)


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
