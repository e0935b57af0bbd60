"""How far Global Merge reaches, and on how many clips it merges as LTBM does.

python -m ltbm.profiles.quality.merge_reach FOLDER...

Folders are those of `ltbm eval whisper`; the encoder tokens that it left there are merged again, nothing
is transcribed.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ...plugins.baselines import plan
from ...plugins.merge import MergePlan
from ...runtime.levels import Level, parse_level
from .encoder_store import read_window
from .predict import ANSWERS, read_answers

FAR_TOKENS = 25  # of 40 ms: one second


@dataclass(frozen=True)
class Reach:
    """Global Merge at one level, over all clips.

    far: share of the tokens that stand more than FAR_TOKENS from the token into which they are merged
    same: share of the clips on which LTBM merges the same tokens
    """

    level: str
    far: float
    same: float


def reach(folder: Path) -> Iterator[Reach]:
    """One record for each level below full in `folder`; ValueError if its encoder tokens are not there."""
    answers, _ = read_answers(folder / ANSWERS)
    clips = dict.fromkeys(item for item, _ in answers)
    tokens = [_clip_tokens(item, folder) for item in clips]
    names = {variant.level for _, variant in answers}
    for name in sorted(names, key=_share, reverse=True):
        level = parse_level(name)
        if level.ratio == 1:
            continue
        anywhere = [_merged("global", clip, level) for clip in tokens]
        nearby = [_merged("ltbm", clip, level) for clip in tokens]
        same = []
        for one, other in zip(anywhere, nearby):
            same.append(np.array_equal(one.source_map, other.source_map))
        yield Reach(
            name, float(np.mean(np.concatenate([_far(one) for one in anywhere]))), float(np.mean(same))
        )


def _share(level: str) -> Fraction:
    return parse_level(level).ratio


def _clip_tokens(item: str, folder: Path) -> np.ndarray:
    window = read_window(item, folder / "encoder")
    if window is None:
        raise ValueError(f"{folder} has no encoder tokens of {item!r}: run `ltbm eval whisper` again")
    return window.tokens[: window.length]


def _merged(method: str, clip: np.ndarray, level: Level) -> MergePlan:
    return plan(method, clip, level.target(len(clip)), level.merge_window)


def _far(one: MergePlan) -> np.ndarray:
    """Of each token, whether it went far."""
    return np.abs(np.arange(len(one.source_map)) - one.anchors[one.source_map]) > FAR_TOKENS


def main(folders: list[str]) -> None:
    print("| clips | level | merged over more than a second | clips merged as LTBM does |")
    print("|---|---|---|---|")
    for folder in folders:
        for row in reach(Path(folder)):
            print(f"| {Path(folder).name} | {row.level} | {100 * row.far:.1f} % | {100 * row.same:.0f} % |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m ltbm.profiles.quality.merge_reach FOLDER...")
    main(sys.argv[1:])
