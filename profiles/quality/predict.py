"""Answers to a benchmark's items at every level and method, appended to a file so that a killed run goes on where it stopped."""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ...runtime.bundle import Bundle
from ...runtime.levels import parse_level
from ...runtime.session import Session
from ...runtime.stages.encoder import encode
from ...runtime.stages.splice import splice
from .batch import compress, greedy
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
        write_text(out / ITEMS, "\n".join(map(item_line, items)) + "\n")
        write_text(
            out / SETTINGS, json.dumps(asdict(settings), indent=1)
        )  # last: it says that the folder is whole
    former = read_settings(out)
    changed = [
        f"{field.name} was {getattr(former, field.name)!r}, now {getattr(settings, field.name)!r}"
        for field in fields(Settings)
        if getattr(former, field.name) != getattr(settings, field.name)
    ]
    if changed:
        raise ValueError(
            f"{out} holds answers under other settings ({'; '.join(changed)}); give another --out, or delete it"
        )
    return AnswerLog(out / ANSWERS)


def read_settings(out) -> Settings:
    path = Path(out) / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} holds no answers: no {SETTINGS}; run `ltbm eval caption`, `mcq` or `asr` first"
        )
    try:
        return Settings(**json.loads(path.read_text(encoding="utf-8")))
    except TypeError as error:
        raise ValueError(
            f"{path} is not what this ltbm writes ({error}); run the evaluation again into another folder"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text, encoding="utf-8")
    scratch.rename(path)


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
        self._stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()
        self.answers[_key(record)] = record


def read_answers(path) -> tuple[dict[Key, dict], int]:
    """The answers of a file and the bytes they fill: a last line without its end is left out."""
    path, answers, whole = Path(path), {}, 0
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
    session: Session,
    items: Sequence[Item],
    chosen: Sequence[Variant],
    settings: Settings,
    log: AnswerLog,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Answer what the log lacks; `progress` gets the answers given and the answers to give."""
    todo = {item: [variant for variant in chosen if (item.id, variant) not in log.answers] for item in items}
    done, total = 0, sum(map(len, todo.values()))
    for item, lacking in todo.items():
        try:
            for record in answer_item(session, item, lacking, settings):
                log.append(record)
                done += 1
                progress(done, total)
        except ValueError as error:
            raise ValueError(f"item {item.id!r}: {error}") from error


def answer_item(
    session: Session, item: Item, chosen: Sequence[Variant], settings: Settings
) -> Iterator[dict]:
    """The record of every variant; the encoder runs once, equal prefixes are answered once."""
    if not chosen:
        return
    audios = session.features(item.audio, settings.long_audio)
    prompt_ids = session.prompter.prompt_ids(fill(settings.prompt, item), len(audios))
    encoded = [encode(session.encoder, windows) for windows in audios]
    heard: dict[Variant, dict] = {}
    for variant in chosen:
        alike = same_prefix(variant)
        if alike not in heard:
            heard[alike] = _answer(session, encoded, prompt_ids, variant, settings.max_new_tokens)
        yield {"item": item.id} | asdict(variant) | heard[alike]


def _answer(
    session: Session, encoded: list, prompt_ids: list[int], variant: Variant, max_new_tokens: int
) -> dict:
    level = parse_level(variant.level, positions=variant.positions, attention=variant.attention)
    merged = [compress(session, groups, variant.method, level) for groups in encoded]
    prefix = splice(prompt_ids, merged, session.manifest.prompt.audio_token_id, session.embeddings, level)
    limit = session.manifest.decoder.max_positions
    if prefix.next_position + max_new_tokens > limit:
        raise ValueError(
            f"the prompt takes {prefix.next_position} positions and the answer up to {max_new_tokens} more, the model has {limit}"
        )
    (ids,) = greedy(session, [prefix], max_new_tokens)
    return {
        "text": session.prompter.decode(ids),
        "finish_reason": "length" if len(ids) == max_new_tokens else "stop",
        "tokens_in": sum(audio.tokens_in for audio in merged),
        "tokens_out": sum(audio.tokens_out for audio in merged),
    }


def fill(prompt: str, item: Item) -> str:
    """The prompt with the item's question and choices in their places."""
    texts = {"{question}": item.question, "{choices}": "\n".join(item.choices)}
    return re.sub(r"\{question\}|\{choices\}", lambda place: texts[place[0]], prompt)
