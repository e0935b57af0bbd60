"""The least time each stage could take on this machine: its bytes at the measured bandwidth,
its operations at the measured rate.

Weights are counted as the bundle stores them, once a run;
what a backend unpacks or copies beyond that is distance from the floor.
"""

from collections.abc import Sequence

from ..budgets.counts import Work, decode_work, encoder_work, merge_work, prefill_work, segment_lengths
from ..budgets.model import Model
from .records import Floor
from .runs import ClipAnswer


def floors(
    model: Model, bandwidth: float, matrix_rate: float, clips: Sequence[ClipAnswer], seconds: Sequence[float]
) -> dict[str, Floor]:
    """The mean floor of each stage over the clips; `decode` is of one token.

    bandwidth: bytes a second; matrix_rate: operations a second
    seconds: the clips' lengths
    """
    counted = [_works(model, clip, length) for clip, length in zip(clips, seconds)]
    return {
        stage: _floor([works[stage] for works in counted], bandwidth, matrix_rate) for stage in counted[0]
    }


def _works(model: Model, clip: ClipAnswer, seconds: float) -> dict[str, Work]:
    return {
        "encoder": encoder_work(model, segment_lengths(model, seconds)),
        "merge": merge_work(model, clip.tokens_out),
        "prefill": prefill_work(model, clip.prompt_tokens),
        "decode": decode_work(model, clip.prompt_tokens + clip.answer_tokens / 2),
    }


def _floor(works: list[Work], bandwidth: float, matrix_rate: float) -> Floor:
    moved = sum(work.weight_bytes for work in works) / len(works)
    operations = sum(work.linear + work.attention for work in works) / len(works)
    memory_ms, matrix_ms = moved / bandwidth * 1e3, operations / matrix_rate * 1e3
    return Floor(
        bytes=moved,
        operations=operations,
        ms=max(memory_ms, matrix_ms),
        bound="memory" if memory_ms >= matrix_ms else "matrix",
    )
