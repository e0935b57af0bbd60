"""Many short answers at once: greedy decoding of prefixes in batches, for evaluation."""

from collections.abc import Sequence

import numpy as np

from ...plugins.baselines import plan
from ...plugins.merge import apply_plan
from ...runtime.levels import Level, parse_level
from ...runtime.session import Session
from ...runtime.stages.decoder import Decoder
from ...runtime.stages.encoder import EncodedRows
from ...runtime.stages.merge import MergedAudio, Row, merge
from ...runtime.stages.splice import Prefix

BATCH_ROWS = 50
UNMERGED = parse_level("full")


def compress(session: Session, groups: list[EncodedRows], method: str, level: Level) -> MergedAudio:
    """One audio brought down to `level` by `method` (ltbm.plugins.baselines.METHODS), through the merge engine.

    The engine itself merges for ltbm; another method's tokens pass it unmerged, for the projector.
    """
    if method == "ltbm":
        return merge(session.merge_engine, groups, level)
    rows = [
        np.asarray(group.audio_embeds)[row, : group.tokens] for group in groups for row in range(group.rows)
    ]
    plans = [plan(method, tokens, level.target(len(tokens))) for tokens in rows]
    kept = [
        EncodedRows(apply_plan(chosen, tokens)[None], len(chosen.sizes))
        for chosen, tokens in zip(plans, rows)
    ]
    sizes, anchors, source_maps = (
        np.concatenate([getattr(chosen, name) for chosen in plans])
        for name in ("sizes", "anchors", "source_map")
    )
    return MergedAudio(
        merge(session.merge_engine, kept, UNMERGED).merged_embeds,
        sizes,
        anchors,
        source_maps,
        tuple(Row(len(tokens), len(chosen.sizes)) for chosen, tokens in zip(plans, rows)),
    )


def answer_all(session: Session, prefixes: Sequence[Prefix], max_new_tokens: int) -> list[str]:
    """The greedy answer to every prefix, in order; those of similar length run together."""
    order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i].token_ids))
    answers = [""] * len(prefixes)
    for start in range(0, len(order), BATCH_ROWS):
        rows = order[start : start + BATCH_ROWS]
        for row, ids in zip(rows, greedy(session, [prefixes[row] for row in rows], max_new_tokens)):
            answers[row] = session.prompter.decode(ids)
    return answers


def greedy(session: Session, prefixes: Sequence[Prefix], max_new_tokens: int) -> list[list[int]]:
    """Token ids of each prefix's answer up to its end token; rows that have ended go along until all have."""
    capacity = max(len(prefix.token_ids) for prefix in prefixes) + max_new_tokens
    decoder = Decoder(session.decoder, session.manifest.decoder, capacity, len(prefixes))
    ends = np.array(session.manifest.prompt.eos_token_ids)
    tokens = [decoder.prefill(prefixes).argmax(-1)]
    ended = np.isin(tokens[0], ends)
    while not ended.all() and len(tokens) < max_new_tokens:
        tokens.append(decoder.step(session.embeddings[tokens[-1]]).argmax(-1))
        ended |= np.isin(tokens[-1], ends)
    rows = np.stack(tokens, axis=1)
    stops = [int(np.append(np.flatnonzero(np.isin(row, ends)), len(row))[0]) for row in rows]
    return [row[:stop].tolist() for row, stop in zip(rows, stops)]
