"""`ltbm demo`: the shipped model describes ten clips at several levels."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltbm.export.precision import PRECISIONS
from ltbm.export.progress import to_stderr
from ltbm.runtime.arguments import add_command, whole
from ltbm.runtime.levels import NAMED_RATIOS

from .language import CAPTION_PROMPT, parse_caption
from .metrics import score_clip, summarise

if TYPE_CHECKING:
    from ltbm.runtime.session import Session

CLIPS = Path(__file__).parent / "clips"
CLIP_COUNT = 10
LEVELS = ("full", "keep50", "keep25", "keep12")
CAPTION_TOKENS = 48  # of the longest caption
NOTE = (
    "A pretrained Whisper's encoder under a language model of 0.8 M weights that knows fifteen sounds: "
    "it shows the mechanism, not what a 7B model hears."
)
LEGEND = (
    "Audio tokens and KV cache are sums over the clips; events: F1 of the sounds that captions name;\n"
    "'=' marks a caption that is word for word what was played."
)
DESCRIPTION = (
    "Export the model that ships with ltbm, let it describe ten clips that it was not trained on at several\n"
    "levels, and print its captions, the true ones, audio tokens, time to first token and KV cache.\n"
    "The clips are drawn by a seed from recordings, whatever the model makes of them (clips/clips.json).\n"
)


@dataclass(frozen=True)
class Clip:
    """One of the shipped clips."""

    path: Path
    seconds: float
    caption: str  # the true one


@dataclass(frozen=True)
class Caption:
    """What the model answered for a clip at one level, and what that took."""

    text: str
    tokens: int  # audio tokens that the LLM read
    ttft_ms: float  # time to the first token
    encoder_ms: float
    kv_bytes: int


@dataclass(frozen=True)
class ClipResult:
    """The captions of one clip by level."""

    clip: Clip
    captions: dict[str, Caption]

    def to_json(self) -> dict:
        heard = {level: asdict(caption) for level, caption in self.captions.items()}
        return {"file": self.clip.path.name, "played": self.clip.caption, "heard": heard}

    def score(self, level: str) -> dict[str, int]:
        """What `ltbm.demo.metrics` counts of the caption."""
        return score_clip(parse_caption(self.clip.caption), self.captions[level].text)


@dataclass(frozen=True)
class LevelSummary:
    """One level over all clips."""

    level: str
    keep_ratio: float
    audio_tokens: int  # sum over the clips
    ttft_ms_median: float
    kv_bytes: int  # sum over the clips
    captions_exact: int  # clips whose caption is the true one, word for word
    event_f1: float  # 0 to 1


def add_commands(commands) -> None:
    parser = add_command(
        commands,
        "demo",
        run_demo,
        "export the shipped model and let it describe ten clips at several levels",
        DESCRIPTION + NOTE,
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="of the exported engines (default float32)"
    )
    parser.add_argument(
        "--clips",
        type=whole(1, CLIP_COUNT),
        default=CLIP_COUNT,
        metavar="N",
        help=f"how many of the ten clips (default {CLIP_COUNT})",
    )
    parser.add_argument("--json", action="store_true", help="print one object instead of the text")


def run_demo(args) -> None:
    from ltbm.runtime.session import Session

    from .bundle import demo_bundle

    clips = read_clips(args.clips)
    with demo_bundle(args.precision, to_stderr) as bundle:
        with Session.open(bundle, reuse=False) as session:  # no reuse: every level runs the encoder
            results = _describe_clips(session, clips, show=not args.json)
    levels = [_summarise(level, results) for level in LEVELS]
    if args.json:
        print(_to_json(results, levels))
    else:
        _print_summary(levels, len(clips))


def read_clips(count: int) -> list[Clip]:
    """The first `count` of the shipped clips."""
    records = json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))
    return [Clip(CLIPS / record["file"], record["seconds"], record["caption"]) for record in records[:count]]


def _describe_clips(session: "Session", clips: list[Clip], show: bool) -> list[ClipResult]:
    session.generate(str(clips[0].path), CAPTION_PROMPT)  # warm-up, not shown
    results = []
    for clip in clips:
        if show:
            print(f"{clip.path.name}  {clip.seconds:.1f} s\n  played  {clip.caption}")
        results.append(_describe_clip(session, clip, CAPTION_PROMPT, show))
    return results


def _describe_clip(session: "Session", clip: Clip, prompt: str, show: bool) -> ClipResult:
    """The captions of one clip, each printed as soon as it is there."""
    captions = {}
    for level in LEVELS:
        answer = session.generate(str(clip.path), prompt, level, max_new_tokens=CAPTION_TOKENS)
        captions[level] = Caption(
            text=answer.text,
            tokens=answer.tokens_out,
            ttft_ms=answer.timings["ttft"],
            encoder_ms=answer.timings["encoder"],
            kv_bytes=answer.kv_bytes,
        )
        if show:
            _print_caption(clip, level, captions[level])
    return ClipResult(clip, captions)


def _summarise(level: str, results: list[ClipResult]) -> LevelSummary:
    captions = [result.captions[level] for result in results]
    ttft_ms = sorted(caption.ttft_ms for caption in captions)
    scores = [result.score(level) for result in results]
    return LevelSummary(
        level=level,
        keep_ratio=float(NAMED_RATIOS[level]),
        audio_tokens=sum(caption.tokens for caption in captions),
        ttft_ms_median=ttft_ms[len(ttft_ms) // 2],
        kv_bytes=sum(caption.kv_bytes for caption in captions),
        captions_exact=sum(score["exact"] for score in scores),
        event_f1=summarise(scores)["event_f1"],
    )


def _to_json(results: list[ClipResult], levels: list[LevelSummary]) -> str:
    clips = [result.to_json() for result in results]
    return json.dumps({"note": NOTE, "clips": clips, "levels": [asdict(level) for level in levels]})


def _print_caption(clip: Clip, level: str, caption: Caption) -> None:
    mark = "=" if caption.text == clip.caption else " "
    cost = f"[{caption.tokens} tokens, {caption.ttft_ms:.0f} ms]"
    print(f"  {level:<7}{mark}{caption.text}  {cost}", flush=True)


def _print_summary(levels: list[LevelSummary], clips: int) -> None:
    costs = f"{'audio tokens':>13}{'TTFT ms (median)':>18}{'KV cache KiB':>14}"
    print(f"\n{'level':<8}{costs}{'captions exact':>16}{'events %':>10}")
    for row in levels:
        figures = f"{row.audio_tokens:>13}{row.ttft_ms_median:>18.1f}{row.kv_bytes / 1024:>14.0f}"
        scores = f"{f'{row.captions_exact} of {clips}':>16}{100 * row.event_f1:>10.0f}"
        print(f"{row.level:<8}{figures}{scores}")
    print(f"\n{NOTE}\n{LEGEND}")
