"""Scores of the answers that `predict` wrote, with bootstrap intervals; offline,
so that a metric can be added later."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ltbm.demo.language import parse_caption
from ltbm.demo.metrics import RATIOS, score_clip

from ...runtime.files import read_text
from .captions import aac_scores, cider
from .choices import matches
from .items import Item, parse_item
from .predict import ANSWERS, ITEMS, Key, Settings, read_answers, read_settings
from .results import ScoreDifference, ScoredRow, ScoreResult
from .transcripts import normalizer, word_errors
from .variants import Variant

MAIN_METRIC = {
    "caption": "cider_d",
    "mcq": "accuracy",
    "asr": "wer",
    "whisper": "wer",
    "demo": "event_f1",
}
LOOP_WORDS = 1.5  # words given for each word spoken, above which a clip loops
DRAWS = 2000  # of the bootstrap over items
CONFIDENCE = 0.95
Tally = np.ndarray
"""[items, 2]: what each item adds above and below a metric's fraction bar;
sums over redrawn items give its interval."""


@dataclass(frozen=True)
class Options:
    """How to score.

    extra: further metrics of captions, from aac-metrics: spider, fense
    normalizer: of transcripts (transcripts.NORMALIZERS)
    partial: score the items that every variant has answered, where some lack others
    """

    extra: tuple[str, ...] = ()
    normalizer: str = "plain"
    partial: bool = False


@dataclass(frozen=True)
class Scored:
    """The answers of a folder, counted item by item.

    items: those that were scored
    tallies: by variant and metric
    """

    settings: Settings
    manifest_items: int
    items: list[Item]
    answers: dict[Key, dict]
    tallies: dict[Variant, dict[str, Tally]]


def read_scored(folder, options: Options = Options()) -> Scored:
    """The tallies of every variant in `folder`; ValueError if answers are missing."""
    folder = Path(folder)
    settings = read_settings(folder)
    items = [parse_item(line) for line in read_text(folder / ITEMS).strip().split("\n")]
    answers, _ = read_answers(folder / ANSWERS)
    chosen = list(dict.fromkeys(variant for _, variant in answers))
    scored = answered_by_all(items, chosen, answers, options.partial)
    tallies = {
        variant: tally(
            settings.benchmark, scored, [answers[item.id, variant]["text"] for item in scored], options
        )
        for variant in chosen
    }
    return Scored(settings, len(items), scored, answers, tallies)


def score(folder, options: Options = Options()) -> ScoreResult:
    """Rows (one a variant), comparisons and what they rest on, of the answers in `folder`;
    ValueError if some are missing."""
    scored = read_scored(folder, options)
    weights = redraw(len(scored.items))
    rows = []
    for variant, tallies in scored.tallies.items():
        rows.append(_row(variant, scored.items, scored.answers, tallies, weights))
    return ScoreResult(
        name=Path(folder).resolve().name,
        benchmark=scored.settings.benchmark,
        metric=MAIN_METRIC[scored.settings.benchmark],
        items=len(scored.items),
        manifest_items=scored.manifest_items,
        normalizer=options.normalizer,
        draws=DRAWS,
        confidence=CONFIDENCE,
        settings=scored.settings,
        rows=tuple(rows),
        comparisons=tuple(compare(scored.tallies, weights)),
    )


def answered_by_all(
    items: Sequence[Item], chosen: Sequence[Variant], answers: dict[Key, dict], partial: bool
) -> list[Item]:
    """The items with an answer of every variant; ValueError if there are none,
    or some with answers of a few only."""
    whole = [item for item in items if all((item.id, variant) in answers for variant in chosen)]
    begun = [item for item in items if any((item.id, variant) in answers for variant in chosen)]
    if not whole or not chosen:
        raise ValueError(
            f"no item has answers of every level and method ({len(begun)} have some); run the evaluation "
            "again, it goes on"
        )
    if len(whole) < len(begun) and not partial:
        raise ValueError(
            f"{len(begun) - len(whole)} of {len(begun)} items lack answers of some levels or methods; run "
            "the evaluation "
            f"again, it goes on, or score the {len(whole)} others with --partial"
        )
    return whole


def tally(
    benchmark: str, items: Sequence[Item], texts: Sequence[str], options: Options = Options()
) -> dict[str, Tally]:
    """What each item's answer adds to every metric of the benchmark, the main metric first."""
    counters = {
        "caption": _captions,
        "mcq": _choices,
        "asr": _transcripts,
        "whisper": _decoded,
        "demo": _scenes,
    }
    count = counters[benchmark]
    return {
        metric: np.array(columns, np.float64).T for metric, columns in count(items, texts, options).items()
    }


def _captions(items: Sequence[Item], texts: Sequence[str], options: Options) -> dict:
    references = [item.references for item in items]
    scores = cider(texts, references) | {
        metric: aac_scores(metric, texts, references) for metric in options.extra
    }
    return {metric: (scores[metric], np.ones(len(items))) for metric in ("cider_d", "cider", *options.extra)}


def _choices(items: Sequence[Item], texts: Sequence[str], options: Options) -> dict:
    right = np.array([matches(text, item.references[0], item.choices) for item, text in zip(items, texts)])
    groups = {
        group: np.array([item.group == group for item in items])
        for group in dict.fromkeys(item.group for item in items)
        if group
    }
    return {"accuracy": (right, np.ones(len(items)))} | {
        group: (right & inside, inside) for group, inside in groups.items()
    }


def _transcripts(items: Sequence[Item], texts: Sequence[str], options: Options) -> dict:
    normal = normalizer(options.normalizer)
    spoken = [normal(item.references[0]).split() for item in items]
    errors = [word_errors(words, normal(text).split()) for words, text in zip(spoken, texts)]
    return {"wer": (errors, [len(words) for words in spoken])}


def _decoded(items: Sequence[Item], texts: Sequence[str], options: Options) -> dict:
    """Word error rate; the same with each clip's errors capped at its words, since a clip that loops moves
    the mean by tens of points; and the share of clips that loop."""
    normal = normalizer(options.normalizer)
    errors, spoken = _transcripts(items, texts, options)["wer"]
    given = [len(normal(text).split()) for text in texts]
    capped = np.minimum(errors, spoken)
    loops = np.array(given) > LOOP_WORDS * np.array(spoken)
    return {"wer": (errors, spoken), "wer_capped": (capped, spoken), "loops": (loops, np.ones(len(items)))}


def _scenes(items: Sequence[Item], texts: Sequence[str], options: Options) -> dict:
    """Of each scene what its caption and its answers count; a metric that no scene asks for is left out."""
    counts = []
    for item, text in zip(items, texts):
        true_caption, *right = item.references
        given_caption, *answers = text.split("\n")
        counts.append(score_clip(parse_caption(true_caption), given_caption, right, answers))
    tallies = {}
    for metric, (above, below) in RATIOS.items():
        if any(clip[below] for clip in counts):
            tallies[metric] = ([clip[above] for clip in counts], [clip[below] for clip in counts])
    return tallies


def redraw(items: int, seed: int = 0) -> np.ndarray:
    """[DRAWS, items]: how often each redraw takes each item; one array for all variants,
    so that comparisons are paired."""
    return (
        np.random.default_rng(seed)
        .multinomial(items, np.full(items, 1 / items), size=DRAWS)
        .astype(np.float64)
    )


def compare(tallies: dict[Variant, dict[str, Tally]], weights: np.ndarray) -> list[ScoreDifference]:
    """Every variant minus each of its baselines that was measured, item by item."""
    rows = []
    for variant, mine in tallies.items():
        for baseline, other in baselines(variant, tallies).items():
            for metric, theirs in tallies[other].items():
                low, high = _interval(_ratio(weights @ mine[metric]) - _ratio(weights @ theirs))
                difference = float(_ratio(mine[metric].sum(axis=0)) - _ratio(theirs.sum(axis=0)))
                rows.append(ScoreDifference(variant, baseline, metric, low, high, difference))
    return rows


def baselines(variant: Variant, measured: Collection[Variant]) -> dict[str, Variant]:
    """What a variant is compared with: the uncompressed one, and at its level other methods in its mode,
    and its own method in proportional attention."""
    if variant.level == "full":
        return {}
    candidates = {method: replace(variant, method=method) for method in ("global", "pool", "ltbm")}
    candidates["proportional"] = replace(variant, attention="proportional")
    if not variant.method.startswith("ltbm-"):
        del candidates["ltbm"]  # the difference to Global and to pooling says it already
    chosen = {other.level: other for other in measured if other.level == "full"}
    for name, other in candidates.items():
        if other in measured and other != variant:
            chosen[name] = other
    return chosen


def _row(
    variant: Variant,
    items: Sequence[Item],
    answers: dict[Key, dict],
    tallies: dict[str, Tally],
    weights: np.ndarray,
) -> ScoredRow:
    given = [answers[item.id, variant] for item in items]
    return ScoredRow(
        variant,
        tokens_in=sum(answer["tokens_in"] for answer in given),
        tokens_out=sum(answer["tokens_out"] for answer in given),
        cut_off=sum(answer["finish_reason"] == "length" for answer in given),
        figures={metric: float(_ratio(counts.sum(axis=0))) for metric, counts in tallies.items()},
        intervals={metric: _interval(_ratio(weights @ counts)) for metric, counts in tallies.items()},
    )


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Above over below [..., 2]; NaN where a redraw took no item of a group."""
    return np.divide(
        sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] != 0
    )


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
