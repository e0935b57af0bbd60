"""Transcripts by a pretrained Whisper whose decoder sees merged tokens, appended to a file as they come."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...runtime.files import as_utf8
from ...runtime.stages.audio import load_audio
from .items import Item
from .predict import AnswerLog
from .variants import Variant
from .whisper_merge import compress_window
from .whisper_model import Whisper, WindowTokens

BATCH_ROWS = 24
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


def transcribe_items(
    whisper: Whisper,
    items: Sequence[Item],
    chosen: Sequence[Variant],
    log: AnswerLog,
    max_new_tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Transcribe what the log lacks; encoder tokens are kept in a folder beside it."""
    for done, item in enumerate(items, start=1):
        missing = [variant for variant in chosen if (item.id, variant) not in log.answers]
        if missing:
            window = encoded(whisper, item, log.path.parent / "encoder")
            for first in range(0, len(missing), BATCH_ROWS):
                batch = missing[first : first + BATCH_ROWS]
                for record in _transcribe(whisper, window, batch, max_new_tokens):
                    log.append({"item": item.id} | record)
        progress(done, len(items))


def encoded(whisper: Whisper, item: Item, folder: Path) -> WindowTokens:
    """The clip's encoder tokens, from `folder` if they were made before."""
    path = folder / f"{hashlib.sha256(as_utf8(item.id)).hexdigest()[:16]}.npz"
    if path.is_file():
        with np.load(path) as arrays:
            return WindowTokens(arrays["tokens"], arrays["power"], int(arrays["length"]))
    try:
        window = whisper.encode(load_audio(item.audio, whisper.sampling_rate))
    except ValueError as error:
        raise ValueError(f"item {item.id!r}: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part.npz")
    np.savez(scratch, tokens=window.tokens, power=window.power, length=window.length)
    scratch.rename(path)
    return window


def _transcribe(
    whisper: Whisper, window: WindowTokens, batch: Sequence[Variant], max_new_tokens: int
) -> list[dict]:
    compressed = [compress_window(window, variant) for variant in batch]
    answers = whisper.transcribe([one.decoder_input for one in compressed], max_new_tokens)
    records = []
    for variant, one, ids in zip(batch, compressed, answers):
        records.append(
            asdict(variant)
            | {
                "text": whisper.decode(ids),
                "finish_reason": "length" if len(ids) == max_new_tokens else "stop",
                "tokens_in": one.tokens_in,
                "tokens_out": one.tokens_out,
            }
        )
    return records
