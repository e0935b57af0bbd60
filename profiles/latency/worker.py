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
from typing import Any

from .job_records import KINDS, FidelityJob, LevelJob, MachineJob


def main() -> None:
    data = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        kind = data.pop("job")
        result = MEASURES[kind](KINDS[kind](**data))
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)


def _end_with_stdin() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever sent: it returns when the other end is gone
    os._exit(1)


def measure_machine(job: MachineJob) -> dict:
    """Facts about the machine, and its bandwidth and matrix rate on the job's `threads`."""
    from .. import measure

    return measure.machine_facts() | {
        "bandwidth": measure.memory_bandwidth(job.threads),
        "matrix_rate": measure.matrix_rate(),
        "threads": job.threads,
    }


def measure_level(job: LevelJob) -> dict:
    """Requests at one level in a fresh session: per round and clip the milliseconds of each stage;
    and this process's memory."""
    from ...runtime.levels import parse_level
    from ...runtime.session import Session
    from ..measure import machine_state, process_memory, resident_of

    if job.backend == "onnxruntime":
        from ...runtime.backends import ort  # noqa: F401  libraries count as the interpreter's memory
    level = parse_level(job.level, window=job.window, positions=job.positions, attention=job.attention)
    state, before, start = machine_state(), process_memory(), time.perf_counter()
    with Session.open(
        job.bundle,
        job.backend,
        job.device,
        job.threads,
        reuse=False,
        low_memory=job.low_memory,
        kv_cache=job.kv_cache,
    ) as session:
        open_ms, opened = (time.perf_counter() - start) * 1e3, process_memory()

        def answer_all() -> list:
            return [_answer(session, clip, level, job) for clip in job.clips]

        for _ in range(job.warmup):
            answer_all()
        rounds = [answer_all() for _ in range(job.repeats)]
        return {
            "open_ms": open_ms,
            "state": state,
            "clips": [_constant_figures(answer) for answer in rounds[-1]],
            "rounds": [[_request(answer) for answer in answers] for answers in rounds],
            "memory": {
                "before": before,
                "opened": opened,
                "end": process_memory(),
                "weights_mapped": resident_of(job.bundle),
            },
        }


def _answer(session, clip: str, level, job: LevelJob):
    return session.generate(
        clip, job.prompt, level, max_new_tokens=job.max_new_tokens, long_audio=job.long_audio
    )


def _request(answer) -> dict:
    return {"timings": answer.timings, "step_ms": answer.step_ms}


def _constant_figures(answer) -> dict:
    """What is the same in every round (greedy decoding)."""
    names = (
        "text",
        "tokens_in",
        "tokens_out",
        "window",
        "applied",
        "reason",
        "finish_reason",
        "kv_bytes",
        "kv_allocated_bytes",
    )
    return {name: getattr(answer, name) for name in names} | {
        "prompt_tokens": len(answer.prompt_token_ids),
        "answer_tokens": len(answer.token_ids),
    }


def measure_fidelity(job: FidelityJob) -> dict:
    from .fidelity import fidelity
    from .records import plain

    return plain(fidelity(job))


MEASURES: dict[str, Callable[[Any], dict]] = {
    "machine": measure_machine,
    "level": measure_level,
    "fidelity": measure_fidelity,
}


if __name__ == "__main__":
    main()
