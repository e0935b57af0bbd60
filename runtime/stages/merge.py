"""Stage 3, merge: similar neighbouring audio tokens become one (LTBM), then the projector takes them to the LLM's width."""

from dataclasses import dataclass

import numpy as np

from ltbm.runtime.engine import Engine
from ltbm.runtime.levels import Level
from ltbm.runtime.stages.encoder import EncodedRows


@dataclass(frozen=True)
class MergedAudio:
    """One audio as the LLM will see it; K kept tokens of all its windows in temporal order.

    merged_embeds: [K, H] in the bundle's precision
    sizes: [K] int32, encoder tokens that each kept token holds
    anchors: [K] int32, place of each kept token on the audio's own time axis, in encoder tokens
    source_map: [tokens_in] int32, the kept token that each encoder token went to
    tokens_in: encoder tokens before merging
    """

    merged_embeds: np.ndarray
    sizes: np.ndarray
    anchors: np.ndarray
    source_map: np.ndarray
    tokens_in: int

    @property
    def tokens_out(self) -> int:
        return len(self.sizes)


def merge(engine: Engine, groups: list[EncodedRows], level: Level) -> MergedAudio:
    """Merge each window on its own (rows never mix) and put their kept tokens one after the other."""
    parts: dict[str, list[np.ndarray]] = {"merged_embeds": [], "sizes": [], "anchors": [], "source_map": []}
    tokens_in = tokens_out = 0
    for group in groups:
        targets = np.array([level.target(int(length)) for length in group.lengths], np.int32)
        outputs = _merge_rows(engine, group, targets, level.merge_window)
        for row, (length, target) in enumerate(zip(group.lengths, targets)):
            parts["merged_embeds"].append(outputs["merged_embeds"][row, :target])
            parts["sizes"].append(outputs["sizes"][row, :target])
            parts["anchors"].append(outputs["anchors"][row, :target] + tokens_in)
            parts["source_map"].append(outputs["source_map"][row, :length] + tokens_out)
            tokens_in, tokens_out = tokens_in + int(length), tokens_out + int(target)
    return MergedAudio(**{name: np.concatenate(values) for name, values in parts.items()}, tokens_in=tokens_in)


def _merge_rows(engine: Engine, group: EncodedRows, targets: np.ndarray, window: int) -> dict[str, np.ndarray]:
    return engine.run({
        "audio_embeds": group.audio_embeds,
        "lengths": group.lengths,
        "targets": targets,
        "keep": np.array([max(1, targets.max())], np.int64),
        "window": np.array([window], np.int32),
    })
