"""Writes what the C++ example reads: a clip's log-mels, the prompt's token ids and the level;
and reads its answer.

python examples/cpp/prepare.py ./bundle clip.wav --prompt "What do you hear?" --level keep25 --out request
ltbm_example ... request | python examples/cpp/prepare.py ./bundle --decode
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from ltbm.runtime.bundle import Bundle
from ltbm.runtime.levels import Level, parse_level
from ltbm.runtime.prompt import Prompter
from ltbm.runtime.stages.audio import load_audio
from ltbm.runtime.stages.segments import cut_segments


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    parser.add_argument("audio", nargs="?", help="WAV, FLAC, OGG or MP3, one segment at most")
    parser.add_argument(
        "--prompt", help="default: What do you hear?, or nothing where the model only transcribes"
    )
    parser.add_argument("--level", help="default: the bundle's")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("request"))
    parser.add_argument("--decode", action="store_true", help="token ids on stdin become text")
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    if args.decode:
        print(Prompter(bundle).answer_text([int(token) for token in sys.stdin.read().split()]))
    elif args.audio is None:
        parser.error("give a clip, or --decode")
    else:
        level = parse_level(args.level or bundle.manifest.default_level)
        question = "" if bundle.manifest.prompt.transcript else "What do you hear?"
        prompt = question if args.prompt is None else args.prompt
        write_request(bundle, args.audio, prompt, level, args.max_new_tokens, args.out)


def write_request(bundle: Bundle, audio, prompt: str, level: Level, max_new_tokens: int, out: Path) -> None:
    """input_features.npy [1, n_mels, F] float32 and request.txt, lines of a name and numbers.

    audio: a path, or samples [n] float32 at the model's rate
    """
    spec = bundle.manifest.audio
    segments = cut_segments(load_audio(audio, spec.sampling_rate, spec.sampling_rate), spec)
    if len(segments) != 1 or not segments[0].tokens:
        raise ValueError(
            f"the example takes one segment of {spec.segment_seconds:g} s at most, the clip has "
            f"{len(segments)}"
        )
    (segment,) = segments
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "input_features.npy", segment.input_features[None])
    lines = {
        "frame_length": [segment.frame_length],
        "encoder_tokens": [spec.rows(segment.frames)],
        "tokens": [segment.tokens],
        "target": [level.target(segment.tokens)],
        "window": [level.merge_window],
        "original_positions": [int(level.positions == "original")],
        "bias_strength": [level.bias_strength],
        "prompt_ids": Prompter(bundle).prompt_ids(prompt, 1),
        "audio_token_id": [bundle.manifest.prompt.audio_token_id],
        "eos_token_ids": bundle.manifest.prompt.eos_token_ids,
        "max_new_tokens": [max_new_tokens],
    }
    (out / "request.txt").write_text(
        "".join(f"{name} {' '.join(map(str, numbers))}\n" for name, numbers in lines.items())
    )


if __name__ == "__main__":
    main()
