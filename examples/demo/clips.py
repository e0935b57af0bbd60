"""The ten clips that ship with the demo: `python -m ltbm.demo.clips` writes them again, bit for bit.

The rule: the first ten seeds of the test split, every second with recurring sounds, whatever the model makes
of them. Needs a checkout of ltbm, as training does (`train.py`): an installed wheel has the clips only.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from .language import caption, questions
from .scenes import SAMPLE_RATE, Event, Scene, held_out_scene, split_seeds

CLIPS = 10
FOLDER = Path(__file__).parent / "clips"
BITS = 14  # of resolution: FLAC leaves out the two unused ones, and ten clips stay under 1 MB
UNUSED = 16 - BITS


def clip_seeds() -> range:
    return split_seeds("test", CLIPS)


def write_clips(folder: Path = FOLDER) -> None:
    """Ten FLAC files, 16 kHz mono 16 bit, and clips.json with what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, seed in enumerate(clip_seeds(), start=1):
        scene = held_out_scene(seed)
        name = f"clip{number:02d}.flac"
        soundfile.write(folder / name, quantised(scene.waveform), SAMPLE_RATE, subtype="PCM_16")
        records.append(_scene_record(name, scene))
    (folder / "clips.json").write_text(json.dumps(records, indent=1) + "\n")


def quantised(waveform: np.ndarray) -> np.ndarray:
    """int16 [samples] of a waveform within full scale, rounded to BITS."""
    steps = np.round(waveform.astype(np.float64) * (2 ** (BITS - 1) - 1))
    return (steps * 2**UNUSED).astype(np.int16)


def _scene_record(name: str, scene: Scene) -> dict:
    question = questions(scene)[0]
    return {
        "file": name,
        "seed": scene.seed,
        "seconds": round(scene.seconds, 2),
        "recurring": scene.recurring,
        "caption": caption(scene.events),
        "events": [_event_record(event) for event in scene.events],
        "question": question.text,
        "options": list(question.options),
        "answer": question.answer,
    }


def _event_record(event: Event) -> dict:
    assert event.start_s is not None and event.end_s is not None, "events of a scene have their times"
    return {
        "sound": event.sound,
        "count": event.count,
        "pitch": event.pitch,
        "duration": event.duration,
        "start_s": round(event.start_s, 2),
        "end_s": round(event.end_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the ten clips that ship with the demo.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the clips")
    write_clips(parser.parse_args().out)


if __name__ == "__main__":
    main()
