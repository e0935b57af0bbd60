"""Clips of 17 to 28 s for `ltbm eval whisper`, joined from short public recordings, in two halves.

The recordings are split before they are joined, so the half that is looked at while choosing and the half
that is reported share none.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.files import read_text
from ...runtime.stages.audio import load_audio
from .items import Item, item_line
from .transcripts import DIGITS

RATE = 16_000  # Hz
SHORTEST, LONGEST = 17.0, 28.0  # seconds of a clip
GAP_SECONDS = 0.3  # silence between two recordings
HALVES = ("look", "report")
FIRST_TAKE = 5  # of FSDD; the takes before are its published test set, left for a check from outside
FEWEST_WORDS = 4  # of a prompt
PROMPT = re.compile(r"(?P<name>[\w/-]+): (?P<text>.*)")
SENTENCE = re.compile(r"<s> (?P<text>.*) </s> \((?P<name>.*)\)")


@dataclass(frozen=True)
class Recording:
    """One short recording and what is said in it; only those of one voice are joined."""

    path: Path
    text: str
    voice: str


def asterisk(folder: Path, transcripts: Path | None) -> list[Recording]:
    """The prompts of `core-sounds-en.txt` whose text is words alone, at least four of them."""
    if transcripts is None:
        raise ValueError("the prompts' words are in a file of their own: give --transcripts FILE")
    recordings = []
    for line in read_text(transcripts).splitlines():
        match = PROMPT.fullmatch(line.strip())
        if match is None or re.search(r"[\[\]<>()]", match["text"]):
            continue
        path = folder / f"{match['name']}.wav"
        if path.is_file() and len(match["text"].split()) >= FEWEST_WORDS:
            recordings.append(Recording(path, match["text"], "asterisk"))
    return recordings


def fsdd(folder: Path, _: Path | None = None) -> list[Recording]:
    """Free Spoken Digit Dataset without its test set: DIGIT_SPEAKER_TAKE.wav."""
    recordings = []
    for path in sorted(folder.glob("*_*_*.wav")):
        digit, speaker, take = path.stem.split("_")
        if int(take) >= FIRST_TAKE:
            recordings.append(Recording(path, DIGITS[int(digit)], speaker))
    return recordings


def librivox(folder: Path, _: Path | None = None) -> list[Recording]:
    """pocketsphinx's test data: NAME.wav and a file `transcription`."""
    recordings = []
    for line in read_text(folder / "transcription").splitlines():
        match = SENTENCE.fullmatch(line.strip())
        if match:
            recordings.append(Recording(folder / f"{match['name']}.wav", match["text"], "librivox"))
    return recordings


SOURCES: dict[str, Callable[[Path, Path | None], list[Recording]]] = {
    "asterisk": asterisk,
    "fsdd": fsdd,
    "librivox": librivox,
}


def write_halves(name: str, recordings: Sequence[Recording], out: Path, seed: int) -> dict[str, int]:
    """NAME-look.jsonl and NAME-report.jsonl with their clips in `out`; how many clips each holds."""
    if not recordings:
        raise FileNotFoundError(f"no recordings of {name}: check the folder")
    shuffled = list(recordings)
    random.Random(seed).shuffle(shuffled)
    counts = {}
    for index, half in enumerate(HALVES):
        items = []
        for number, clip in enumerate(_clips(shuffled[index::2])):
            items.append(_written(f"{name}-{half}-{number:03d}", clip, out))
        lines = "".join(item_line(item) + "\n" for item in items)
        (out / f"{name}-{half}.jsonl").write_text(lines, encoding="utf-8")
        counts[half] = len(items)
    return counts


def _clips(recordings: Sequence[Recording]) -> list[list[tuple[Recording, np.ndarray]]]:
    """Recordings of each voice joined up to SHORTEST seconds; voices take turns, a short rest is left out."""
    by_voice: dict[str, list[list]] = {}
    open_clips: dict[str, list] = {}
    for recording in recordings:
        waveform = load_audio(recording.path, RATE)
        clip = open_clips.setdefault(recording.voice, [])
        if _seconds([*clip, (recording, waveform)]) > LONGEST:
            continue
        clip.append((recording, waveform))
        if _seconds(clip) >= SHORTEST:
            by_voice.setdefault(recording.voice, []).append(open_clips.pop(recording.voice))
    most = max(map(len, by_voice.values()), default=0)
    turns = []
    for turn in range(most):
        turns += [clips[turn] for clips in by_voice.values() if turn < len(clips)]
    return turns


def _seconds(clip: Sequence[tuple[Recording, np.ndarray]]) -> float:
    return sum(len(waveform) / RATE + GAP_SECONDS for _, waveform in clip)


def _written(name: str, clip: Sequence[tuple[Recording, np.ndarray]], out: Path) -> Item:
    import soundfile

    gap = np.zeros(int(GAP_SECONDS * RATE), np.float32)
    parts = []
    for _, waveform in clip:
        parts += [waveform, gap]
    out.mkdir(parents=True, exist_ok=True)
    soundfile.write(out / f"{name}.wav", np.concatenate(parts), RATE)
    text = " ".join(recording.text for recording, _ in clip)
    return Item(name, f"{name}.wav", (text,), group=clip[0][0].voice)


def write_single(name: str, recordings: Sequence[Recording], out: Path) -> int:
    """NAME.jsonl of the recordings as they are, one a clip."""
    items = [Item(one.path.stem, str(one.path.resolve()), (one.text,)) for one in recordings]
    out.mkdir(parents=True, exist_ok=True)
    lines = "".join(item_line(item) + "\n" for item in items)
    (out / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return len(items)
