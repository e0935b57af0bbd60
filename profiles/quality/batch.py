"""Many short answers at once: methods compared at equal tokens, prefixes answered in batches,
for evaluation."""

from collections.abc import Sequence

from ...plugins.baselines import plan
from ...runtime.levels import Level, parse_level
from ...runtime.pipeline import Pipeline
from ...runtime.stages.encoder import EncodedRows, segment_tokens
from ...runtime.stages.merge import MergedAudio
from ...runtime.stages.splice import Prefix
from .merged_values import NORMED, merged_values

BATCH_ROWS = 50
UNMERGED = parse_level("full")


def compress(pipeline: Pipeline, encoded: list[EncodedRows], method: str, level: Level) -> MergedAudio:
    """One audio brought down to `level` by `method` (of ltbm.plugins.baselines.METHODS or NORMED),
    through the merge engine.

    The engine itself merges for ltbm; another method's tokens pass it unmerged, for the projector.
    """
    if method == "ltbm":
        return pipeline.merge(encoded, level)
    rows = segment_tokens(encoded)
    plans = []
    kept = []
    for tokens in rows:
        merge_plan = plan(NORMED.get(method, method), tokens, level.target(len(tokens)), level.merge_window)
        plans.append(merge_plan)
        values = merged_values(method, merge_plan, tokens)
        kept.append(EncodedRows(values[None], len(merge_plan.sizes)))
    return MergedAudio.of_plans(pipeline.merge(kept, UNMERGED).merged_embeds, plans)


def greedy_all(pipeline: Pipeline, prefixes: Sequence[Prefix], max_new_tokens: int) -> list[list[int]]:
    """The greedy tokens after every prefix, in order; those of similar length run together."""
    by_length = sorted(range(len(prefixes)), key=lambda index: len(prefixes[index]))
    answers: list[list[int]] = [[] for _ in prefixes]
    for start in range(0, len(by_length), BATCH_ROWS):
        batch = by_length[start : start + BATCH_ROWS]
        token_ids = pipeline.greedy([prefixes[index] for index in batch], max_new_tokens)
        for index, ids in zip(batch, token_ids):
            answers[index] = ids
    return answers
