"""Training examples: scenes as cached log-mels, and batches that pack several dialogues behind one clip."""

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
TAIL_FRAMES = 4  # of silence after the segment, so that the end of the longest clip is not mirrored
FRAMES_PER_TOKEN = FRAMES_PER_POSITION * POSITIONS_PER_TOKEN
EXTRACTOR = feature_extractor()

CLAUSES = tuple(language.CLAUSES)  # the frame classifier's classes: every event that can be described
BACKGROUND = len(CLAUSES)  # its class for "no sound"
IGNORE = -100  # target of what carries no loss

PREFIX = "<|im_start|>user\nAudio 1: <|audio_bos|>"
DIALOGUE = "<|audio_eos|>\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
SHARED = 0  # dialogue number of the prefix and the audio, which every dialogue sees
PADDING = -1  # dialogue number of what nothing sees


@dataclass(frozen=True)
class Example:
    """One scene ready for training."""

    scene: Scene  # without its waveform, so that ten thousand fit into memory
    features: np.ndarray  # [MELS, F] float16 log-mels, F frames of the bucket
    frames: int  # valid mel frames
    labels: np.ndarray  # [T] int64, the clause of each audio token


@dataclass(frozen=True)
class Batch:
    """One step's tensors; S counts prefix, audio and all packed dialogues."""

    features: torch.Tensor  # [B, MELS, F] float32
    frames: torch.Tensor  # [B] int64, valid mel frames
    labels: torch.Tensor  # [B, T] int64, BACKGROUND where nothing sounds, IGNORE after the clip
    tokens: torch.Tensor  # [B, S] int64, the audio token wherever audio stands
    positions: torch.Tensor  # [B, S] int64, every dialogue goes on where the clip ends
    dialogues: torch.Tensor  # [B, S] int64, SHARED, PADDING or the dialogue's number from 1 on
    targets: torch.Tensor  # [B, S] int64, the token that follows each one, IGNORE outside answers


@dataclass(frozen=True)
class PackedTokens:
    """Tokens of one clip's row, or a run of them; the fields as in `Batch`, each [S] int64."""

    tokens: np.ndarray
    positions: np.ndarray
    dialogues: np.ndarray
    targets: np.ndarray


def make_tokenizer() -> Tokenizer:
    with TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        language.write_tokenizer(path)
        return Tokenizer.from_file(str(path))


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that the vocabulary has."""
    index = tokenizer.token_to_id(token)
    assert index is not None, f"{token} is not in the vocabulary"
    return index


def log_mels(waveform: np.ndarray, frames: int) -> np.ndarray:
    """Whisper's log-mels float32 [MELS, frames], the clip padded with its floor as in a full segment."""
    samples = (MAX_FRAMES + TAIL_FRAMES) * HOP
    features = EXTRACTOR(waveform, sampling_rate=SAMPLE_RATE, max_length=samples)
    return features["input_features"][0][:, :frames]


def make_example(scene: Scene) -> Example:
    frames = len(scene.waveform) // HOP
    bucket = min(MAX_FRAMES, math.ceil(frames / BUCKET_FRAMES) * BUCKET_FRAMES)
    return Example(
        scene=replace(scene, waveform=scene.waveform[:0].copy()),
        features=log_mels(scene.waveform, bucket).astype(np.float16),
        frames=frames,
        labels=token_labels(scene, bucket),
    )


def token_labels(scene: Scene, frames: int) -> np.ndarray:
    """The clause of the event that each audio token lies in [T] int64, its pauses included; else BACKGROUND.

    A token that knows its whole event (sound, count, pitch, duration) can stand for its neighbours when they
    merge.
    """
    tokens = frames // FRAMES_PER_TOKEN
    step_s = FRAMES_PER_TOKEN / FRAMES_PER_SECOND
    middles_s = (np.arange(tokens) + 0.5) * step_s
    labels = np.full(tokens, BACKGROUND)
    for event in scene.events:
        assert event.start_s is not None and event.end_s is not None, "events of a scene have their times"
        inside = (middles_s >= event.start_s) & (middles_s < event.end_s)
        labels[inside] = CLAUSES.index(language.describe(event))
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
    """Every example once, in batches of one bucket, in random order; incomplete batches are left out."""
    widths = np.array([example.features.shape[1] for example in examples])
    groups = []
    for width in np.unique(widths):
        members = rng.permutation(np.flatnonzero(widths == width))
        for first in range(0, len(members) - size + 1, size):
            groups.append(members[first : first + size])
    return [groups[k] for k in rng.permutation(len(groups))]


def make_batch(examples: Sequence[Example], tokenizer: Tokenizer, draw: int) -> Batch:
    rows = [_pack(example, tokenizer, draw) for example in examples]
    features = np.stack([example.features for example in examples])
    labels = np.stack([example.labels for example in examples])
    return Batch(
        features=torch.from_numpy(features).float(),
        frames=torch.tensor([example.frames for example in examples]),
        labels=torch.from_numpy(labels),
        tokens=_padded([row.tokens for row in rows], 0),
        positions=_padded([row.positions for row in rows], 0),
        dialogues=_padded([row.dialogues for row in rows], PADDING),
        targets=_padded([row.targets for row in rows], IGNORE),
    )


def _pack(example: Example, tokenizer: Tokenizer, draw: int) -> PackedTokens:
    """One clip's row: prefix and audio, then its caption and questions."""
    prefix = tokenizer.encode(PREFIX).ids
    audio = [token_id(tokenizer, language.AUDIO_TOKEN)] * (example.features.shape[1] // FRAMES_PER_TOKEN)
    audio_end = len(prefix) + token_count(example.frames)
    parts = [_part(prefix + audio, 0, SHARED)]
    for number, (prompt, answer) in enumerate(dialogues(example.scene, draw), start=1):
        prompt_ids = tokenizer.encode(DIALOGUE.format(prompt=prompt)).ids
        answer_ids = tokenizer.encode(answer + language.TURN_END).ids
        targets = [IGNORE] * (len(prompt_ids) - 1) + answer_ids
        parts.append(_part(prompt_ids + answer_ids[:-1], audio_end, number, targets))
    row = PackedTokens(
        tokens=np.concatenate([part.tokens for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        dialogues=np.concatenate([part.dialogues for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
    )
    row.dialogues[audio_end : len(prefix) + len(audio)] = PADDING
    return row


def _part(
    token_ids: list[int], first_position: int, dialogue: int, targets: list[int] | None = None
) -> PackedTokens:
    """Consecutive tokens of one dialogue; without targets they carry no loss."""
    length = len(token_ids)
    return PackedTokens(
        tokens=np.array(token_ids),
        positions=first_position + np.arange(length),
        dialogues=np.full(length, dialogue),
        targets=np.full(length, IGNORE) if targets is None else np.array(targets),
    )


def dialogues(scene: Scene, draw: int) -> list[tuple[str, str]]:
    """(prompt, answer) of the caption and of three questions."""
    pairs = [(language.CAPTION_PROMPT, language.caption(scene.events))]
    for question in language.questions(scene, draw=draw):
        pairs.append((question.text, question.answer))
    return pairs


def _padded(rows: list[np.ndarray], fill: int) -> torch.Tensor:
    """Rows of different lengths as one tensor [B, S], `fill` after each row's end."""
    longest = max(len(row) for row in rows)
    padded = np.full((len(rows), longest), fill, dtype=np.int64)
    for k, row in enumerate(rows):
        padded[k, : len(row)] = row
    return torch.from_numpy(padded)


def block_mask(dialogues: torch.Tensor) -> torch.Tensor:
    """Additive mask [B, 1, S, S]: each token sees what is shared and its own dialogue, up to itself."""
    queries = dialogues[:, :, None]
    keys = dialogues[:, None, :]
    visible = ((queries == keys) | (keys == SHARED)) & (keys != PADDING)
    length = dialogues.shape[1]
    visible &= torch.ones(length, length, dtype=torch.bool).tril()
    return additive(visible)[:, None]


def additive(visible: torch.Tensor) -> torch.Tensor:
    """A mask of booleans as added to attention logits: 0 for a visible key, else the least float32."""
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
