"""The sounds that ship with the demo: `python -m ltbm.demo.clips` writes the ten clips again, bit for bit.

The rule: the first ten scenes of the test split over the recordings that ship, whatever the model makes of
them; but the second clip is the first scene of SECOND_SAMPLES samples, which tests of sound files count.
`--packages DIR` takes the recordings from DIR/debian anew before. Needs a checkout of ltbm, as training does.
"""

import argparse
import json
import shutil
from itertools import count
from pathlib import Path

import numpy as np
import soundfile

from .language import caption, questions
from .recordings import SAMPLE_RATE, SHIPPED, Pool, read_pool
from .scenes import Scene, held_out_scene
from .sounds import MUSIC, SAMPLES, VOICE, Event

CLIPS = 10
SECOND_SAMPLES = 98_560  # 6.16 s
FOLDER = Path(__file__).parent / "clips"
BITS = 14  # of resolution: FLAC leaves out the two unused ones
UNUSED = 16 - BITS
MUSIC_S = 40  # seconds of the piece of music that ship
ORIGINS = {  # folder -> Debian package, licence
    SAMPLES: ("sonic-pi-samples", "CC0-1.0"),
    MUSIC: ("asterisk-moh-opsound-wav", "CC-BY-SA-3.0"),
    VOICE: ("asterisk-core-sounds-en-wav", "CC-BY-SA-3.0"),
}


def write_recordings(packages: Path, out: Path = SHIPPED) -> None:
    """The packages' recordings that are kept for testing, as they are; of the music the first MUSIC_S."""
    for recordings in read_pool(packages, "test").values():
        for recording in recordings:
            path = recording.path.relative_to(packages)
            if path.parts[0] != "debian":
                continue
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            if recording.sound == "music":
                wave, rate = soundfile.read(recording.path, dtype="int16")
                soundfile.write((out / path).with_suffix(".flac"), wave[: MUSIC_S * rate], rate)
            else:
                shutil.copy(recording.path, out / path)


def write_clips(folder: Path = FOLDER) -> None:
    """Ten FLAC files, 16 kHz mono 16 bit, and clips.json with what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index, scene in enumerate(clip_scenes(), start=1):
        name = f"clip{index:02d}.flac"
        soundfile.write(folder / name, quantised(scene.waveform), SAMPLE_RATE, subtype="PCM_16")
        records.append(_scene_record(name, scene))
    (folder / "clips.json").write_text(json.dumps(records, indent=1) + "\n")


def clip_scenes() -> list[Scene]:
    pool = read_pool(SHIPPED, "test")
    scenes = [held_out_scene(pool, number) for number in range(CLIPS)]
    scenes[1] = _second_scene(pool)
    return scenes


def _second_scene(pool: Pool) -> Scene:
    scenes = (held_out_scene(pool, number) for number in count(CLIPS))
    return next(scene for scene in scenes if len(scene.waveform) == SECOND_SAMPLES)


def quantised(waveform: np.ndarray) -> np.ndarray:
    """int16 [samples] of a waveform within full scale, rounded to BITS."""
    steps = np.round(waveform.astype(np.float64) * (2 ** (BITS - 1) - 1))
    return (steps * 2**UNUSED).astype(np.int16)


def _scene_record(name: str, scene: Scene) -> dict:
    question = questions(scene.events, scene.seed)[0]
    return {
        "file": name,
        "seed": scene.seed,
        "seconds": round(scene.seconds, 2),
        "caption": caption(scene.events),
        "events": [_event_record(event) for event in scene.events],
        "question": question.text,
        "options": list(question.options),
        "answer": question.answer,
        "recordings": [_recording_record(path) for path in dict.fromkeys(scene.sources)],
    }


def _event_record(event: Event) -> dict:
    return {
        "sound": event.sound,
        "count": event.count,
        "duration": event.duration,
        "digits": event.digits,
        "start_s": round(event.start_s, 2),
        "end_s": round(event.end_s, 2),
    }


def _recording_record(path: Path) -> dict:
    inside = path.relative_to(SHIPPED)
    package, licence = next(origin for folder, origin in ORIGINS.items() if inside.is_relative_to(folder))
    return {"file": inside.name, "package": package, "licence": licence}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the ten clips that ship with the demo.")
    parser.add_argument("--packages", type=Path, help="folder with debian/: take the recordings anew")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the clips")
    options = parser.parse_args()
    if options.packages:
        write_recordings(options.packages)
    write_clips(options.out)


if __name__ == "__main__":
    main()
