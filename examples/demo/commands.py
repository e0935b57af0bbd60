"""`ltbm demo`."""

import json
import sys
from pathlib import Path

from ltbm.export.precision import PRECISIONS
from ltbm.runtime.arguments import UsageError, add_command
from ltbm.runtime.levels import NAMED_RATIOS

CLIPS = Path(__file__).parent / "clips"
LEVELS = ("full", "keep50", "keep25", "keep12")
HONESTY = "A small model of synthetic scenes, trained for this demo: it shows the mechanism, not what a 7B model hears."


def add_commands(commands) -> None:
    parser = add_command(
        commands,
        "demo",
        run_demo,
        "export the shipped model and hear ten clips at every level",
        (
            "Export the model that ships with ltbm, hear ten clips nobody trained on at several levels,\n"
            "and print what was played, what was heard, tokens, time to first token and KV cache.\n" + HONESTY
        ),
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the exported engines")
    parser.add_argument(
        "--clips", type=int, default=10, metavar="N", help="how many of the ten clips (default 10)"
    )
    parser.add_argument("--json", action="store_true", help="print one object instead of the text")


def run_demo(args) -> None:
    from ltbm.runtime.session import Session

    from .bundle import demo_bundle

    def progress(line: str) -> None:
        print(line, file=sys.stderr)

    records = json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))
    if not 1 <= args.clips <= len(records):
        raise UsageError(f"--clips {args.clips} is outside 1..{len(records)}")
    records = records[: args.clips]
    with (
        demo_bundle(args.precision, progress) as bundle,
        Session.open(bundle, reuse=False) as session,
    ):  # each level pays the encoder
        session.generate(str(CLIPS / records[0]["file"]), "what do you hear ?")  # warm-up, not shown
        clips = [_hear(session, record, not args.json) for record in records]
    levels = [_summary(level, clips) for level in LEVELS]
    if args.json:
        print(json.dumps({"note": HONESTY, "clips": clips, "levels": levels}))
        return
    _print_summary(levels, len(clips))


def _hear(session, record: dict, show: bool) -> dict:
    """Caption one clip at every level."""
    from .language import CAPTION_PROMPT

    heard = {}
    if show:
        print(f"{record['file']}  {record['seconds']:.1f} s\n  played  {record['caption']}")
    for level in LEVELS:
        answer = session.generate(str(CLIPS / record["file"]), CAPTION_PROMPT, level, max_new_tokens=48)
        heard[level] = {
            "text": answer.text,
            "tokens": answer.tokens_out,
            "ttft_ms": answer.timings["ttft"],
            "encoder_ms": answer.timings["encoder"],
            "kv_bytes": answer.kv_bytes,
        }
        if show:
            mark = "=" if answer.text == record["caption"] else " "
            print(
                f"  {level:<7}{mark}{answer.text}  [{answer.tokens_out} tokens, {answer.timings['ttft']:.0f} ms]",
                flush=True,
            )
    return {"file": record["file"], "played": record["caption"], "heard": heard}


def _summary(level: str, clips: list[dict]) -> dict:
    rows = [clip["heard"][level] for clip in clips]
    ttft = sorted(row["ttft_ms"] for row in rows)
    return {
        "level": level,
        "keep_ratio": float(NAMED_RATIOS[level]),
        "audio_tokens": sum(row["tokens"] for row in rows),
        "ttft_ms_median": ttft[len(ttft) // 2],
        "kv_bytes": sum(row["kv_bytes"] for row in rows),
        "captions_exact": sum(clip["heard"][level]["text"] == clip["played"] for clip in clips),
    }


def _print_summary(levels: list[dict], clips: int) -> None:
    print(
        f"\n{'level':<8}{'audio tokens':>13}{'TTFT ms (median)':>18}{'KV cache KiB':>14}{'captions exact':>16}"
    )
    for row in levels:
        print(
            f"{row['level']:<8}{row['audio_tokens']:>13}{row['ttft_ms_median']:>18.1f}{row['kv_bytes'] / 1024:>14.0f}"
            f"{row['captions_exact']:>11} of {clips}"
        )
    print(
        f"\n{HONESTY}\nAudio tokens and KV cache are sums over the clips; '=' marks a caption that is word for word what was played."
    )
