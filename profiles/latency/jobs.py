"""Jobs of `ltbm.profiles.latency.worker`, each in a process that is gone when the job is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from tempfile import TemporaryFile
from typing import Any, Protocol, TypeVar

from .job_records import Job, kind


class JobResult(Protocol):
    """A record that the worker sends back."""

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Any: ...


Result = TypeVar("Result", bound=JobResult)


def run_job(job: Job, result: type[Result]) -> tuple[Result, int]:
    """The result of a job of `ltbm.profiles.latency.worker`, a record of the type `result`,
    and the process's peak memory in bytes as the system accounts for it (getrusage).

    RuntimeError, with the worker's own words, if it failed.
    """
    with TemporaryFile("w+") as errors, _worker(job.threads, errors) as process:
        assert process.stdin and process.stdout, "both are pipes"
        try:
            process.stdin.write(json.dumps({"job": kind(job)} | asdict(job)) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead already: its exit code and last words follow
        answer = process.stdout.readline()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        data = json.loads(answer) if answer else {"error": last_words(process.returncode, errors.read())}
    if "error" in data:
        raise RuntimeError(data["error"])
    return result.from_json(data), usage.ru_maxrss * 1024


def last_words(code: int, errors: str) -> str:
    end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = (
        " (out of memory? keep fewer tokens, or use a smaller precision)" if code == -signal.SIGKILL else ""
    )
    return " ".join([f"the process {end}{hint}", *errors.strip().splitlines()[-1:]])


@contextmanager
def _worker(threads: int | None, errors) -> Iterator[subprocess.Popen]:
    """A worker in a process group of its own, which is gone at the end, however that comes."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")} if threads else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "ltbm.profiles.latency.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
        env=os.environ | limits,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                if stream:
                    stream.close()
