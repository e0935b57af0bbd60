"""Jobs of `ltbm.profiles.latency.worker`, each in a process that is gone when the job is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from tempfile import TemporaryFile

from .job_records import Job, kind


def run_job(job: Job) -> tuple[dict, int]:
    """The result of a job of `ltbm.profiles.latency.worker`,
    and its peak memory in bytes as the system accounts for it (getrusage).

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
        result = json.loads(answer) if answer else {"error": last_words(process.returncode, errors.read())}
    if "error" in result:
        raise RuntimeError(result["error"])
    return result, usage.ru_maxrss * 1024


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
