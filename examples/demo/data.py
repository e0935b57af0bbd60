"""Training examples: scenes as encoder tokens, and batches that pack several dialogues behind one clip."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tokenizers import Tokenizer

from . import language
from .encoder import AudioEncoder
from .scenes import SECONDS, Scene
from .sounds import DIGITS, DURATIONS, MAX_COUNT, SOUNDS, Event

TOKENS_PER_SECOND = 25
BUCKET_TOKENS = TOKENS_PER_SECOND  # clips of one batch differ by less than this
IGNORE = -100  # target of what carries no loss

PREFIX = "<|im_start|>user\nAudio 1: <|audio_bos|>"
DIALOGUE = "<|audio_eos|>\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
SHARED = 0  # dialogue number of the prefix and the audio, which every dialogue sees
PADDING = -1  # dialogue number of what nothing sees


def _labels() -> tuple[str, ...]:
    """What a token can be in: a digit, a counted sound's k-th stroke, a sound that has lasted so long."""
    labels = list(DIGITS)
    for sound in SOUNDS.values():
        extents = range(1, MAX_COUNT + 1) if sound.counted else DURATIONS
        labels += [f"{sound.name} {extent}" for extent in extents]
    return tuple(labels)


LABELS = _labels()  # the token classifier's classes
BACKGROUND = len(LABELS)  # its class for "no sound"
LONG_AFTER_S = (SECONDS["brief"][1] + SECONDS["long"][0]) / 2


@dataclass(frozen=True)
class Example:
    """One scene ready for training."""

    seed: int
    events: tuple[Event, ...]
    audio: np.ndarray  # [T, D] float16, the encoder's tokens
    labels: np.ndarray  # [T] int64, of LABELS or BACKGROUND


@dataclass(frozen=True)
class Batch:
    """One step's tensors; S counts prefix, audio and all packed dialogues."""

    audio: torch.Tensor  # [B, T, D] float32, zeros after each clip
    audio_start: int  # where it stands in S
    labels: torch.Tensor  # [B, T] int64, IGNORE after the clip
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


def make_example(scene: Scene, encoder: AudioEncoder) -> Example:
    audio = encoder.tokens(scene.waveform)
    labels = token_labels(scene.events, len(audio))
    return Example(scene.seed, scene.events, audio.astype(np.float16), labels)


def token_labels(events: Sequence[Event], tokens: int) -> np.ndarray:
    """What each token is in [T] int64, as far as it can be known by then; else BACKGROUND.

    A token that knows how often a sound has been heard can stand for its neighbours when they merge.
    """
    middles_s = (np.arange(tokens) + 0.5) / TOKENS_PER_SECOND
    labels = np.full(tokens, BACKGROUND)
    for event in events:
        for start_s, label in _changes(event):
            labels[(middles_s >= start_s) & (middles_s < event.end_s)] = LABELS.index(label)
    return labels


def _changes(event: Event) -> list[tuple[float, str]]:
    """(second, label) from where on each label holds."""
    starts = [start_s for start_s, _ in event.strokes]
    if event.digits is not None:
        return list(zip(starts, event.digits))
    if event.count is not None:
        return [(start_s, f"{event.sound} {k}") for k, start_s in enumerate(starts, start=1)]
    return [(starts[0], f"{event.sound} brief"), (starts[0] + LONG_AFTER_S, f"{event.sound} long")]


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
    buckets = np.array([math.ceil(len(example.audio) / BUCKET_TOKENS) for example in examples])
    groups = []
    for bucket in np.unique(buckets):
        members = rng.permutation(np.flatnonzero(buckets == bucket))
        for first in range(0, len(members) - size + 1, size):
            groups.append(members[first : first + size])
    return [groups[k] for k in rng.permutation(len(groups))]


def make_batch(examples: Sequence[Example], tokenizer: Tokenizer, draw: int) -> Batch:
    longest = max(len(example.audio) for example in examples)
    rows = [_pack(example, longest, tokenizer, draw) for example in examples]
    audio = np.zeros((len(examples), longest, examples[0].audio.shape[1]), dtype=np.float32)
    for k, example in enumerate(examples):
        audio[k, : len(example.audio)] = example.audio
    return Batch(
        audio=torch.from_numpy(audio),
        audio_start=len(tokenizer.encode(PREFIX).ids),
        labels=_padded([example.labels for example in examples], IGNORE),
        tokens=_padded([row.tokens for row in rows], 0),
        positions=_padded([row.positions for row in rows], 0),
        dialogues=_padded([row.dialogues for row in rows], PADDING),
        targets=_padded([row.targets for row in rows], IGNORE),
    )


def _pack(example: Example, audio_tokens: int, tokenizer: Tokenizer, draw: int) -> PackedTokens:
    """One clip's row: prefix and audio, then its caption and questions."""
    prefix = tokenizer.encode(PREFIX).ids
    audio = [token_id(tokenizer, language.AUDIO_TOKEN)] * audio_tokens
    audio_end = len(prefix) + len(example.audio)
    parts = [_part(prefix + audio, 0, SHARED)]
    for number, (prompt, answer) in enumerate(dialogues(example.events, example.seed, draw), start=1):
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


def dialogues(events: Sequence[Event], seed: int, draw: int) -> list[tuple[str, str]]:
    """(prompt, answer) of the caption and of the questions."""
    pairs = [(language.CAPTION_PROMPT, language.caption(events))]
    for question in language.questions(events, seed, draw=draw):
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
