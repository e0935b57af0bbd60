"""Transcripts by a pretrained Whisper whose decoder sees merged tokens, appended to a file as they come."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...runtime.stages.audio import load_audio
from .encoder_store import WindowTokens, read_window, write_window
from .items import Item
from .predict import AnswerLog
from .variants import Variant
from .whisper_merge import Compressed, compress_window
from .whisper_model import Whisper

BATCH_ROWS = 48
CLIPS_AT_ONCE = 8
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".json")


def checkpoint_hash(checkpoint: str) -> str:
    """sha256 of a folder's weights and settings; a hub id as it is."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return checkpoint
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in WEIGHT_SUFFIXES:
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Job:
    """A clip's transcript that the log lacks."""

    item: Item
    variant: Variant
    compressed: Compressed


def transcribe_items(
    whisper: Whisper,
    items: Sequence[Item],
    chosen: Sequence[Variant],
    log: AnswerLog,
    max_new_tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Transcribe what the log lacks; encoder tokens are kept in a folder beside it."""
    for first in range(0, len(items), CLIPS_AT_ONCE):
        clips = items[first : first + CLIPS_AT_ONCE]
        jobs = []
        for item in clips:
            jobs += _missing_jobs(whisper, item, chosen, log)
        jobs.sort(key=_decoder_tokens)
        for start in range(0, len(jobs), BATCH_ROWS):
            batch = jobs[start : start + BATCH_ROWS]
            for record in _transcribe(whisper, batch, max_new_tokens):
                log.append(record)
        progress(first + len(clips), len(items))


def _missing_jobs(whisper: Whisper, item: Item, chosen: Sequence[Variant], log: AnswerLog) -> list[_Job]:
    missing = [variant for variant in chosen if (item.id, variant) not in log.answers]
    if not missing:
        return []
    window = encoded(whisper, item, log.path.parent / "encoder")
    return [_Job(item, variant, compress_window(window, variant)) for variant in missing]


def _decoder_tokens(job: _Job) -> int:
    """What jobs are sorted by: rows of a batch are then alike in length, and loop together if they do."""
    return job.compressed.tokens_out


def encoded(whisper: Whisper, item: Item, folder: Path) -> WindowTokens:
    """The clip's encoder tokens, from `folder` if they were made before."""
    window = read_window(item.id, folder)
    if window is not None:
        return window
    try:
        window = whisper.encode(load_audio(item.audio, whisper.sampling_rate))
    except ValueError as error:
        raise ValueError(f"item {item.id!r}: {error}") from error
    write_window(item.id, folder, window)
    return window


def _transcribe(whisper: Whisper, batch: Sequence[_Job], max_new_tokens: int) -> list[dict]:
    answers = whisper.transcribe([job.compressed.decoder_input for job in batch], max_new_tokens)
    records = []
    for job, ids in zip(batch, answers):
        records.append(
            {"item": job.item.id}
            | asdict(job.variant)
            | {
                "text": whisper.decode(ids),
                "finish_reason": "length" if len(ids) == max_new_tokens else "stop",
                "tokens_in": job.compressed.tokens_in,
                "tokens_out": job.compressed.tokens_out,
            }
        )
    return records
