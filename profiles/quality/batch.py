"""Many short answers at once: greedy decoding of prefixes in batches, for evaluation."""

from collections.abc import Sequence

import numpy as np

from ltbm.plugins.baselines import plan
from ltbm.plugins.merge import apply_plan
from ltbm.runtime.levels import Level
from ltbm.runtime.session import Session
from ltbm.runtime.stages.decoder import Decoder
from ltbm.runtime.stages.encoder import EncodedRows
from ltbm.runtime.stages.merge import MergedAudio, merge
from ltbm.runtime.stages.splice import Prefix

BATCH_ROWS = 50


def compress(session: Session, groups: list[EncodedRows], method: str, level: Level) -> MergedAudio:
    """One audio brought down to `level` by `method` (ltbm.plugins.baselines.METHODS), through the merge engine.

    The engine itself merges for ltbm; another method's tokens pass it unmerged, for the projector.
    """
    if method == "ltbm":
        return merge(session.merge_engine, groups, level)
    (group,) = groups
    length = int(group.lengths[0])
    chosen = plan(method, group.audio_embeds[0, :length], level.target(length))
    kept = apply_plan(chosen, group.audio_embeds[0, :length])
    outputs = session.merge_engine.run({
        "audio_embeds": kept[None], "lengths": np.array([len(kept)], np.int32), "targets": np.array([len(kept)], np.int32),
        "keep": np.array([len(kept)], np.int64), "window": np.array([level.merge_window], np.int32)})
    return MergedAudio(outputs["merged_embeds"][0], chosen.sizes, chosen.anchors, chosen.source_map, length)


def answer_all(session: Session, prefixes: Sequence[Prefix], max_new_tokens: int) -> list[str]:
    """The greedy answer to every prefix, in order; those of similar length run together."""
    order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i].token_ids))
    answers = [""] * len(prefixes)
    for start in range(0, len(order), BATCH_ROWS):
        rows = order[start:start + BATCH_ROWS]
        for row, ids in zip(rows, _greedy(session, [prefixes[row] for row in rows], max_new_tokens)):
            answers[row] = session.prompter.decode(ids)
    return answers


def _greedy(session: Session, prefixes: list[Prefix], max_new_tokens: int) -> list[list[int]]:
    """Token ids of each row up to its end token; rows that have ended go along until all have."""
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
