"""One job of a profile in a process of its own: `python -m ltbm.profiles.latency.worker` reads it from stdin,
one line of JSON.

The result is one line of JSON on stdout. The process ends when its stdin does,
so it never outlives who started it.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..json_records import plain
from .job_records import KINDS, FidelityJob, LevelJob, ListenJob, MachineJob
from .runs import ClipAnswer, LevelRun, MachineState, ProcessMemory, RequestTimes, RunMemory

if TYPE_CHECKING:  # each job imports what it measures
    from ...runtime.answer import Answer
    from ...runtime.levels import Level
    from ...runtime.session import Session
    from .listening.runs import ListenRun
    from .records import Fidelity, MachineFacts


def main() -> None:
    data = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        kind = data.pop("job")
        result = plain(MEASURES[kind](KINDS[kind](**data)))
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)


def _end_with_stdin() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever sent: it returns when the other end is gone
    os._exit(1)


def measure_machine(job: MachineJob) -> "MachineFacts":
    """Facts about the machine, and its bandwidth and matrix rate on the job's `threads`."""
    from .. import measure
    from .records import MachineFacts

    return MachineFacts(
        **measure.machine_facts(),
        bandwidth=measure.memory_bandwidth(job.threads),
        matrix_rate=measure.matrix_rate(),
        threads=job.threads,
    )


def measure_level(job: LevelJob) -> LevelRun:
    """Requests at one level in a fresh session."""
    from ...runtime.levels import parse_level
    from ...runtime.session import Session
    from ..measure import machine_state, resident_of

    if job.backend == "onnxruntime":
        from ...runtime.backends import ort  # noqa: F401  libraries count as the interpreter's memory
    level = parse_level(job.level, window=job.window, positions=job.positions, attention=job.attention)
    state = MachineState(**machine_state())
    before = memory_now()
    start = time.perf_counter()
    with Session.open(
        job.bundle,
        job.backend,
        job.device,
        job.threads,
        reuse=False,
        low_memory=job.low_memory,
        kv_cache=job.kv_cache,
        packed=job.packed,
        native_products=job.native_products,
    ) as session:
        open_ms = (time.perf_counter() - start) * 1e3
        opened = memory_now()
        for _ in range(job.warmup):
            _answer_all(session, level, job)
        rounds = [_answer_all(session, level, job) for _ in range(job.repeats)]
        return LevelRun(
            open_ms=open_ms,
            state=state,
            clips=tuple(_clip_answer(answer) for answer in rounds[-1]),
            rounds=tuple(tuple(map(_times, answers)) for answers in rounds),
            memory=RunMemory(before, opened, memory_now(), resident_of(job.bundle)),
        )


def memory_now() -> ProcessMemory:
    from ..measure import process_memory

    return ProcessMemory(**process_memory())


def _answer_all(session: "Session", level: "Level", job: LevelJob) -> "list[Answer]":
    return [_answer(session, clip, level, job) for clip in job.clips]


def _answer(session: "Session", clip: str, level: "Level", job: LevelJob) -> "Answer":
    return session.generate(
        clip, job.prompt, level, max_new_tokens=job.max_new_tokens, long_audio=job.long_audio
    )


def _times(answer: "Answer") -> RequestTimes:
    return RequestTimes(answer.timings, tuple(answer.step_ms))


def _clip_answer(answer: "Answer") -> ClipAnswer:
    """What is the same in every round (greedy decoding)."""
    return ClipAnswer(
        text=answer.text,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        window=answer.window,
        applied=answer.applied,
        reason=answer.reason,
        finish_reason=answer.finish_reason,
        kv_bytes=answer.kv_bytes,
        kv_allocated_bytes=answer.kv_allocated_bytes,
        prompt_tokens=len(answer.prompt_token_ids),
        answer_tokens=len(answer.token_ids),
    )


def measure_fidelity(job: FidelityJob) -> "Fidelity":
    from .fidelity import fidelity

    return fidelity(job)


def measure_listening(job: ListenJob) -> "ListenRun":
    from .listening.play import measure

    return measure(job)


MEASURES: dict[str, Callable[[Any], Any]] = {
    "machine": measure_machine,
    "level": measure_level,
    "fidelity": measure_fidelity,
    "listen": measure_listening,
}


if __name__ == "__main__":
    main()
