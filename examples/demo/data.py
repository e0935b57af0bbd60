"""Training examples: scenes as cached log-mels, and batches that pack a caption and three questions behind one clip."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tokenizers import Tokenizer

from . import language
from .model import (
    FRAMES_PER_POSITION,
    FRAMES_PER_SECOND,
    HOP,
    POSITIONS_PER_TOKEN,
    feature_extractor,
    token_count,
)
from .scenes import MAX_SCENE_S, SAMPLE_RATE, Scene

MAX_FRAMES = int(MAX_SCENE_S * FRAMES_PER_SECOND)
BUCKET_FRAMES = FRAMES_PER_SECOND  # clips of one batch differ by less than this
TAIL_FRAMES = 4  # of silence beyond the window, so that the end of the longest clip is not mirrored
FRAMES_PER_TOKEN = FRAMES_PER_POSITION * POSITIONS_PER_TOKEN
CLAUSES = tuple(language.CLAUSES)  # the frame classifier's classes: every event that can be described
BACKGROUND = len(CLAUSES)  # its class for "no sound"
IGNORE = -100  # target of what carries no loss

PREFIX = "<|im_start|>user\nAudio 1: <|audio_bos|>"
SEGMENT = "<|audio_eos|>\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Example:
    """One scene ready for training: log-mels float16 [MELS, F] and the clause int64 [T] of each audio token."""

    scene: Scene  # without its waveform, so that ten thousand fit into memory
    features: np.ndarray
    frames: int  # valid mel frames; F is the bucket's
    labels: np.ndarray


@dataclass(frozen=True)
class Batch:
    """One step's tensors. S counts prefix, audio and all packed segments; -1 in `segment` is padding, 0 the prefix."""

    features: torch.Tensor  # [B, MELS, F] float32
    frames: torch.Tensor  # [B] int64, valid mel frames
    labels: torch.Tensor  # [B, T] int64, BACKGROUND where nothing sounds, IGNORE after the clip
    tokens: torch.Tensor  # [B, S] int64, audio places hold the audio token
    positions: torch.Tensor  # [B, S] int64: every segment goes on where the clip ends
    segment: torch.Tensor  # [B, S] int64
    targets: torch.Tensor  # [B, S] int64, the token after each place, IGNORE outside answers


def make_tokenizer() -> Tokenizer:
    with TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        language.write_tokenizer(path)
        return Tokenizer.from_file(str(path))


def log_mels(waveform: np.ndarray, frames: int) -> np.ndarray:
    """Whisper's log-mels float32 [MELS, frames], the clip padded with its floor as in a full window."""
    samples = (MAX_FRAMES + TAIL_FRAMES) * HOP
    found = _EXTRACTOR(waveform, sampling_rate=SAMPLE_RATE, max_length=samples)
    return found["input_features"][0][:, :frames]


_EXTRACTOR = feature_extractor()


def make_example(scene: Scene) -> Example:
    frames = len(scene.waveform) // HOP
    bucket = min(MAX_FRAMES, math.ceil(frames / BUCKET_FRAMES) * BUCKET_FRAMES)
    features = log_mels(scene.waveform, bucket).astype(np.float16)
    return Example(
        replace(scene, waveform=scene.waveform[:0].copy()), features, frames, token_labels(scene, bucket)
    )


def token_labels(scene: Scene, frames: int) -> np.ndarray:
    """The clause of the event that each audio token lies in [T] int64, its pauses included; else BACKGROUND.

    A token that knows its whole event (sound, count, pitch, duration) can stand for its neighbours when they merge.
    """
    tokens = frames // FRAMES_PER_TOKEN
    step = FRAMES_PER_TOKEN / FRAMES_PER_SECOND
    middles = (np.arange(tokens) + 0.5) * step
    labels = np.full(tokens, BACKGROUND)
    for event in scene.events:
        labels[(middles >= event.start_s) & (middles < event.end_s)] = CLAUSES.index(language.describe(event))
    labels[token_count(len(scene.waveform) // HOP) :] = IGNORE
    return labels


def batches(
    examples: Sequence[Example], tokenizer: Tokenizer, size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Batches without end, each from one length bucket; every pass asks the scenes other questions."""
    draw = 0
    while True:
        for indices in _shuffled(examples, size, rng):
            yield make_batch([examples[k] for k in indices], tokenizer, draw)
        draw += 1


def _shuffled(examples: Sequence[Example], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every example once, in batches of one bucket, in random order; what does not fill a batch is left out."""
    widths = np.array([example.features.shape[1] for example in examples])
    groups = []
    for width in np.unique(widths):
        members = rng.permutation(np.flatnonzero(widths == width))
        groups += [members[k : k + size] for k in range(0, len(members) - size + 1, size)]
    return [groups[k] for k in rng.permutation(len(groups))]


def make_batch(examples: Sequence[Example], tokenizer: Tokenizer, draw: int) -> Batch:
    rows = [_pack(example, tokenizer, draw) for example in examples]
    tokens, positions, segment, targets = (
        _padded([row[k] for row in rows], fill) for k, fill in enumerate(_FILLS)
    )
    return Batch(
        torch.from_numpy(np.stack([example.features for example in examples])).float(),
        torch.tensor([example.frames for example in examples]),
        torch.from_numpy(np.stack([example.labels for example in examples])),
        tokens,
        positions,
        segment,
        targets,
    )


_FILLS = (0, 0, -1, IGNORE)  # padding of tokens, positions, segment, targets


def _pack(example: Example, tokenizer: Tokenizer, draw: int) -> list[np.ndarray]:
    """tokens, positions, segment and targets [S] of one clip: prefix, audio, then caption and questions."""
    audio, slots = token_count(example.frames), example.features.shape[1] // FRAMES_PER_TOKEN
    prefix = tokenizer.encode(PREFIX).ids
    parts = [(prefix, 0, 0, [IGNORE] * len(prefix))]
    parts += [([tokenizer.token_to_id(language.AUDIO_TOKEN)] * slots, len(prefix), 0, [IGNORE] * slots)]
    for number, (prompt, answer) in enumerate(dialogues(example.scene, draw), start=1):
        asked = tokenizer.encode(SEGMENT.format(prompt=prompt)).ids
        said = tokenizer.encode(answer + language.TURN_END).ids
        targets = [IGNORE] * (len(asked) - 1) + said
        parts.append((asked + said[:-1], len(prefix) + audio, number, targets))
    tokens = np.concatenate([ids for ids, *_ in parts])
    positions = np.concatenate([first + np.arange(len(ids)) for ids, first, *_ in parts])
    segment = np.concatenate([np.full(len(ids), number) for ids, _, number, _ in parts])
    segment[len(prefix) + audio : len(prefix) + slots] = -1
    return [tokens, positions, segment, np.concatenate([targets for *_, targets in parts])]


def dialogues(scene: Scene, draw: int) -> list[tuple[str, str]]:
    """(prompt, answer) of the caption and of three questions."""
    asked = language.questions(scene, draw=draw)
    caption = (language.CAPTION_PROMPT, language.caption(scene.events))
    return [caption, *((question.text, question.answer) for question in asked)]


def _padded(rows: list[np.ndarray], fill: int) -> torch.Tensor:
    out = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for k, row in enumerate(rows):
        out[k, : len(row)] = row
    return torch.from_numpy(out)


def block_mask(segment: torch.Tensor) -> torch.Tensor:
    """Additive mask [B, 1, S, S]: each place sees the prefix and its own segment, up to itself."""
    same = segment[:, :, None] == segment[:, None, :]
    seen = (same | (segment[:, None, :] == 0)) & (segment[:, None, :] >= 0)
    seen &= torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
