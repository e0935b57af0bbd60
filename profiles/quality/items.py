"""Benchmark items, one JSON line each, and the published layouts they are made from.

{"id": "7fmOlUlwoNg", "audio": "7fmOlUlwoNg_20.wav", "references":
["Constant rattling noise and sharp vibrations", ...]} {"id": "3fe6", "audio": "3fe6.wav", "references":
["Man"], "question": "Who speaks?", "choices": ["Man", "Child"], "group": "sound"} {"id": "61-70968-0000",
"audio": "61-70968-0000.flac", "references": ["HE BEGAN A CONFUSED COMPLAINT"]}
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime.files import BYTE_ORDER_MARK, as_utf8, read_text

BENCHMARKS = ("caption", "mcq", "asr", "whisper", "demo")
AUDIO_SUFFIXES = ("", ".wav", ".flac", ".mp3", ".ogg")


@dataclass(frozen=True)
class Item:
    """One clip and what is right about it.

    audio: a path; in a manifest, from the manifest's folder (demo: the recordings that were mixed)
    references: its captions (caption), the right choice (mcq) or the transcript (asr, whisper);
        for demo its caption, then the answer to each line of `question`
    group: for mcq, what accuracy is also given for, such as MMAU's sound, music and speech
    """

    id: str
    audio: str
    references: tuple[str, ...]
    question: str = ""
    choices: tuple[str, ...] = ()
    group: str = ""


def read_items(path, benchmark: str) -> list[Item]:
    """The items of a manifest, each fit for `benchmark` (BENCHMARKS) and with its audio at hand.

    Raises FileNotFoundError or ValueError with the line's number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no manifest {path}; make one with `ltbm eval import`")
    items = []
    lines = read_text(path).removeprefix(BYTE_ORDER_MARK).split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                items.append(check_item(parse_item(line), benchmark))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    check_ids(items, path)
    return [_with_audio(item, path.parent) for item in items]


def parse_item(line: str) -> Item:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"an item is an object, this is {line[:40]}")
    unknown = record.keys() - Item.__dataclass_fields__
    absent = {"id", "audio", "references"} - record.keys()
    if unknown or absent:
        raise ValueError(
            f"an item has id, audio, references, question, choices and group; "
            f"unknown here: {sorted(unknown)}, missing: {sorted(absent)}"
        )
    if not isinstance(record["references"], list) or not isinstance(record.get("choices", []), list):
        raise ValueError("references and choices are lists of strings")
    fields: dict[str, Any] = dict(record)
    for name in ("references", "choices"):
        fields[name] = tuple(record.get(name, ()))
    return Item(**fields)


def item_line(item: Item) -> str:
    values = {name: value for name, value in asdict(item).items() if value}
    return as_utf8(json.dumps(values, ensure_ascii=False)).decode()


def check_item(item: Item, benchmark: str) -> Item:
    """The item, or ValueError for what `benchmark` cannot use."""
    texts = (item.id, item.audio, *item.references, item.question, *item.choices, item.group)
    if (
        not all(isinstance(text, str) for text in texts)
        or not item.id
        or not item.audio
        or not all(item.references)
    ):
        raise ValueError(
            f"item {item.id!r}: every field holds text, and id, audio and references are not empty"
        )
    if benchmark == "caption" and not item.references:
        raise ValueError(f"item {item.id!r} has no reference caption")
    if benchmark != "caption" and len(item.references) != 1:
        raise ValueError(f"item {item.id!r} has {len(item.references)} references, {benchmark} takes one")
    if benchmark == "mcq" and (
        len(item.choices) < 2 or item.references[0] not in item.choices or not item.question
    ):
        raise ValueError(
            f"item {item.id!r} needs a question, at least two choices, and its reference among them"
        )
    return item


def check_ids(items: Sequence[Item], where) -> None:
    """ValueError for no items, or two with one id."""
    if not items:
        raise ValueError(f"{where} holds no items")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"{where} has two items {item.id!r}")
        seen.add(item.id)


def _with_audio(item: Item, folder: Path) -> Item:
    path = folder / item.audio
    if not path.is_file():
        raise FileNotFoundError(
            f"item {item.id!r}: no audio file {path}; `ltbm eval import --allow-missing` leaves such items "
            "out"
        )
    return replace(item, audio=str(path.resolve()))


def import_items(layout: str, source, audio_dir=None) -> tuple[list[Item], list[str]]:
    """Items of a published layout (LAYOUTS) whose audio was found,
    and the names of audio files that were not.

    source: the layout's file (librispeech: its folder); audio_dir: where the clips are,
        the source's folder when left out
    """
    made_of = LAYOUTS[layout]
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"no {source}; the layout {layout} is {made_of.files}")
    folder = Path(audio_dir) if audio_dir else source if source.is_dir() else source.parent
    items = []
    missing = []
    for item, names in made_of.read(source):
        found = next(
            (
                path
                for name in names
                for suffix in AUDIO_SUFFIXES
                if (path := folder / f"{name}{suffix}").is_file()
            ),
            None,
        )
        check_item(item, made_of.benchmark)
        if found is None:
            missing.append(names[0])
        else:
            items.append(replace(item, audio=str(found.resolve())))
    if items:
        check_ids(items, source)
    return items, missing


def _audiocaps(source: Path) -> Iterator[tuple[Item, list[str]]]:
    clips: dict[tuple[str, str], list[dict]] = {}
    for row in _rows(source, "audiocap_id", "youtube_id", "start_time", "caption"):
        clips.setdefault((row["youtube_id"], row["start_time"]), []).append(row)
    for (video, start), rows in clips.items():
        names = [f"{video}_{start}", f"Y{video}", video, *(row["audiocap_id"] for row in rows)]
        yield Item(f"{video}_{start}", names[0], tuple(row["caption"] for row in rows)), names


def _clotho(source: Path) -> Iterator[tuple[Item, list[str]]]:
    captions = [f"caption_{i}" for i in range(1, 6)]
    for row in _rows(source, "file_name", *captions):
        name = row["file_name"]
        yield Item(name, name, tuple(row[column] for column in captions)), [name, name.strip()]


def _mmau(source: Path) -> Iterator[tuple[Item, list[str]]]:
    for record in _json_list(source):
        absent = [
            name
            for name in ("id", "audio_id", "question", "choices", "answer", "task")
            if not record.get(name)
        ]
        if absent:
            raise ValueError(
                f"{source}: item {record.get('id')!r} lacks {', '.join(absent)} (the answers of MMAU's test "
                "set are withheld; "
                "test-mini has them)"
            )
        name = record["audio_id"]
        yield (
            Item(
                record["id"],
                name,
                (record["answer"],),
                record["question"],
                tuple(record["choices"]),
                record["task"],
            ),
            [name, Path(name).name],
        )


def _librispeech(source: Path) -> Iterator[tuple[Item, list[str]]]:
    for transcripts in sorted(source.rglob("*.trans.txt")):
        for line in read_text(transcripts).strip().split("\n"):
            name, _, text = line.partition(" ")
            path = str(transcripts.parent.relative_to(source) / name)
            yield Item(name, path, (text,)), [path]


@dataclass(frozen=True)
class Layout:
    """How a published benchmark's files are read.

    read: its file -> every item, its audio not yet found, and the names the audio may have,
        without the suffix or with it
    """

    benchmark: str
    files: str  # what it is made of, in words
    read: Callable[[Path], Iterator[tuple[Item, list[str]]]]


LAYOUTS = {
    "audiocaps": Layout(
        "caption",
        "a CSV with audiocap_id, youtube_id, start_time and caption, a row per caption; "
        "clips named YOUTUBEID_START, YYOUTUBEID, YOUTUBEID or by one of their audiocap_ids",
        _audiocaps,
    ),
    "clotho": Layout("caption", "a CSV with file_name and caption_1 to caption_5", _clotho),
    "mmau": Layout(
        "mcq", "a JSON list of objects with id, audio_id, question, choices, answer and task", _mmau
    ),
    "librispeech": Layout(
        "asr", "a folder with *.trans.txt files, `ID TRANSCRIPT` a line, the clips beside them", _librispeech
    ),
}


def _json_list(source: Path) -> list[dict]:
    try:
        records = json.loads(read_text(source).removeprefix(BYTE_ORDER_MARK))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{source} is not JSON ({error})") from None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{source} is not a JSON list of objects")
    return records


def _rows(source: Path, *columns: str) -> Iterator[dict]:
    if source.is_dir():
        raise IsADirectoryError(f"{source} is a folder; give the CSV file in it")
    reader = csv.DictReader(io.StringIO(read_text(source).removeprefix(BYTE_ORDER_MARK), newline=""))
    absent = [name for name in columns if name not in (reader.fieldnames or ())]
    if absent:
        raise ValueError(
            f"{source} has no column {', '.join(absent)}; its columns are "
            f"{', '.join(reader.fieldnames or ())}"
        )
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{source}, line {reader.line_num} is no CSV ({error})") from None
