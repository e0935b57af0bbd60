"""Answers to a benchmark's items at every level and method,
appended to a file so that a killed run goes on where it stopped."""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ...runtime.bundle import Bundle
from ...runtime.files import as_utf8, read_json_object, write_whole
from ...runtime.levels import parse_level
from ...runtime.pipeline import Pipeline
from ...runtime.prompt import Turn
from ...runtime.stages.layout import Layout
from ...runtime.stages.merge import MergedAudio
from .batch import compress
from .items import BENCHMARKS, Item, item_line
from .variants import Variant, same_prefix

ANSWERS, ITEMS, SETTINGS = "answers.jsonl", "items.jsonl", "settings.json"
Key = tuple[str, Variant]


@dataclass(frozen=True)
class Settings:
    """What all answers in a folder have in common.

    prompt: {question} and {choices} in it stand for the item's
    items, bundle: sha256 of the items and of the bundle's files
    """

    benchmark: str
    prompt: str
    max_new_tokens: int
    long_audio: str
    backend: str
    device: str
    items: str
    bundle: str
    kv_cache: str | None = None

    def __post_init__(self):
        if self.benchmark not in BENCHMARKS:
            raise ValueError(f"unknown benchmark {self.benchmark!r}; known are {', '.join(BENCHMARKS)}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} is below 1")
        if self.benchmark == "mcq" and not ("{question}" in self.prompt and "{choices}" in self.prompt):
            raise ValueError(
                f"the prompt {self.prompt!r} needs {{question}} and {{choices}}, where the item's are put"
            )


def items_hash(items: Sequence[Item]) -> str:
    return hashlib.sha256("\n".join(map(item_line, items)).encode()).hexdigest()


def bundle_hash(bundle: Bundle) -> str:
    """Of every file's hash in the manifest: the same for the same model, wherever it lies."""
    files = sorted((name, record.sha256) for name, record in bundle.manifest.files.items())
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def begin(out, settings: Settings, items: Sequence[Item]) -> "AnswerLog":
    """The folder's answers, open for more; ValueError if they were given under other settings."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / SETTINGS).exists():
        write_whole(out / ITEMS, as_utf8("\n".join(map(item_line, items)) + "\n"))
        described = json.dumps(asdict(settings), indent=1)
        write_whole(out / SETTINGS, as_utf8(described))  # last: it says that the folder is whole
    former = read_settings(out)
    changed = [
        f"{field.name} was {getattr(former, field.name)!r}, now {getattr(settings, field.name)!r}"
        for field in fields(Settings)
        if getattr(former, field.name) != getattr(settings, field.name)
    ]
    if changed:
        raise ValueError(
            f"{out} holds answers under other settings ({'; '.join(changed)}); give another --out, or "
            "delete it"
        )
    return AnswerLog(out / ANSWERS)


def read_settings(out) -> Settings:
    path = Path(out) / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} holds no answers: no {SETTINGS}; run `ltbm eval caption`, `mcq`, `asr` or `demo` "
            "first"
        )
    try:
        return Settings(**read_json_object(path))
    except TypeError as error:
        raise ValueError(
            f"{path} is not what this ltbm writes ({error}); run the evaluation again into another folder"
        ) from None


class AnswerLog:
    """The file of answers, one JSON line each, open for one writer; `answers` is what it holds."""

    def __init__(self, path):
        self.path = Path(path)
        self._stream = open(self.path, "a+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._stream.close()
            raise ValueError(
                f"another process is writing {self.path}; wait for it, or give another --out"
            ) from None
        self.answers, whole = read_answers(self.path)
        self.torn = os.path.getsize(self.path) - whole  # bytes of a line that a kill cut off: they go
        self._stream.truncate(whole)

    def __enter__(self) -> "AnswerLog":
        return self

    def __exit__(self, *_) -> None:
        self._stream.close()

    def append(self, record: dict) -> None:
        self._stream.write(as_utf8(json.dumps(record, ensure_ascii=False)) + b"\n")
        self._stream.flush()
        self.answers[_key(record)] = record


def read_answers(path) -> tuple[dict[Key, dict], int]:
    """The answers of a file and the bytes they fill: a last line without its end is left out."""
    path = Path(path)
    answers = {}
    whole = 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        whole += len(line)
        try:
            record = json.loads(line)
            key = _key(record)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is no answer ({error}); delete that line, its item is answered again"
            ) from None
        answers[key] = record
    return answers, whole


def _key(record: dict) -> Key:
    return record["item"], Variant(*(record[field.name] for field in fields(Variant)))


def predict(
    pipeline: Pipeline,
    items: Sequence[Item],
    chosen: Sequence[Variant],
    settings: Settings,
    log: AnswerLog,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Answer what the log lacks; `progress` gets the answers given and the answers to give."""
    missing = {item: _unanswered(item, chosen, log) for item in items}
    total = sum(map(len, missing.values()))
    done = 0
    for item, unanswered in missing.items():
        try:
            for record in answer_item(pipeline, item, unanswered, settings):
                log.append(record)
                done += 1
                progress(done, total)
        except ValueError as error:
            raise ValueError(f"item {item.id!r}: {error}") from error


def _unanswered(item: Item, chosen: Sequence[Variant], log: AnswerLog) -> list[Variant]:
    return [variant for variant in chosen if (item.id, variant) not in log.answers]


def answer_item(
    pipeline: Pipeline, item: Item, chosen: Sequence[Variant], settings: Settings
) -> Iterator[dict]:
    """The record of every variant; the encoder runs once, equal prefixes are answered once."""
    if not chosen:
        return
    audios = pipeline.segments(item.audio, settings.long_audio)
    encoded = [pipeline.encode(audio) for audio in audios]
    turns = [Turn("user", fill(settings.prompt, item), len(audios))]
    answers: dict[Variant, dict] = {}
    for variant in chosen:
        alike = same_prefix(variant)
        if alike not in answers:
            level = parse_level(variant.level, positions=variant.positions, attention=variant.attention)
            layout = pipeline.lay_out(turns, audios, level, settings.max_new_tokens)
            merged = [compress(pipeline, rows, variant.method, level) for rows in encoded]
            answers[alike] = _answer(pipeline, layout, merged, settings.max_new_tokens)
        yield {"item": item.id} | asdict(variant) | answers[alike]


def _answer(pipeline: Pipeline, layout: Layout, merged: list[MergedAudio], max_new_tokens: int) -> dict:
    (ids,) = pipeline.greedy([pipeline.prefix(layout, merged)], max_new_tokens)
    return {
        "text": pipeline.prompter.answer_text(ids),
        "finish_reason": "length" if len(ids) == max_new_tokens else "stop",
        "tokens_in": layout.tokens_in,
        "tokens_out": layout.tokens_out,
    }


def fill(prompt: str, item: Item) -> str:
    """The prompt with the item's question and choices in their places."""
    texts = {"{question}": item.question, "{choices}": "\n".join(item.choices)}
    return re.sub(r"\{question\}|\{choices\}", lambda match: texts[match[0]], prompt)
