"""What is measured here: how fast this machine reads memory and multiplies matrices, what a process holds,
how figures spread."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..runtime.machine import Machine, find_gpu, find_jetson, find_memory

PERCENTILES = (50, 90, 95, 99)
STREAM_BYTES = 256 * 2**20  # beyond the caches that one process gets on most machines
STREAM_REPEATS = 5
MATRIX = 1024  # rows and columns of the multiplied matrices
MATRIX_REPEATS = 8
FIRST_CORE = "sys/devices/system/cpu/cpu0"
GPU_CLOCKS = (
    "nvidia-smi",
    "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit",
    "--format=csv,noheader",
)


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Percentiles and spread (the interquartile range) of one figure, a value a round."""
    if not len(values):
        raise ValueError("no values to summarise: at least one round must have been measured")
    rounds = np.asarray(values, np.float64)
    lower, upper = np.percentile(rounds, (25, 75))
    figures = {f"p{p}": float(np.percentile(rounds, p)) for p in PERCENTILES}
    return figures | {"mean": float(rounds.mean()), "spread": float(upper - lower)}


def memory_bandwidth(threads: int = 1, size: int = STREAM_BYTES) -> float:
    """Bytes a second that `threads` threads move at best: the faster of reading (a maximum)
    and copying (bytes in and out)."""
    sources = [np.ones(size // threads // 4, np.float32) for _ in range(threads)]
    targets = [np.zeros_like(source) for source in sources]
    moved = sum(source.nbytes for source in sources)
    with ThreadPoolExecutor(threads) as pool:
        read = fastest(lambda: list(pool.map(np.max, sources)), STREAM_REPEATS)
        copied = fastest(lambda: list(pool.map(np.copyto, targets, sources)), STREAM_REPEATS)
    return max(moved / read, 2 * moved / copied)


def matrix_rate(size: int = MATRIX) -> float:
    """Floating-point operations a second of numpy's float32 matrix product,
    on the threads that its BLAS was started with."""
    left = np.random.default_rng(0).standard_normal((size, size), np.float32)
    right = left.T.copy()
    _ = left @ right  # starts the threads
    return 2 * size**3 / fastest(lambda: left @ right, MATRIX_REPEATS)


def fastest(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of `repeats` calls."""
    return min(_seconds(call) for _ in range(repeats))


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


# --- one process ---


def process_memory() -> dict[str, int]:
    """Bytes of this process: resident now, how much of it is mapped files,
    and the peak so far (Linux's VmRSS, RssFile, VmHWM)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())

    def read(name: str) -> int:
        return int(status[name].split()[0]) * 1024

    return {"resident": read("VmRSS"), "mapped": read("RssFile"), "peak": read("VmHWM")}


def resident_of(folder) -> int:
    """Bytes of this process that are resident pages of mapped files in `folder`."""
    folder = str(Path(folder).resolve())
    total = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):  # the header of a mapping, its file last
            inside = len(words) == 6 and words[5].startswith(folder + "/")
        elif inside and words[0] == "Rss:":
            total += int(words[1]) * 1024
    return total


# --- the machine ---


def _gpu(machine: Machine):
    """None also where a driver is there and does not answer, as in a container that was not given the GPU."""
    try:
        return find_gpu(machine)
    except RuntimeError:
        return None


def machine_facts(machine: Machine | None = None) -> dict:
    """What a reader needs to know of this machine to read its figures;
    None for what the system does not tell."""
    machine = machine or Machine()
    clocks = machine.run(GPU_CLOCKS)
    memory = find_memory(machine)
    gpu = _gpu(machine)
    jetson = find_jetson(machine)
    return {
        "cpu": _cpu_field(machine, "model name")
        or _cpu_field(machine, "Model")
        or platform.processor()
        or None,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory and memory.total,
        "last_level_cache_bytes": _last_level_cache(machine),
        "board": jetson and asdict(jetson),
        "gpu": gpu and asdict(gpu),
        "gpu_clocks": clocks.out if clocks.status == 0 and clocks.out else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    } | machine_state(machine)


def machine_state(machine: Machine | None = None) -> dict:
    """What changes from minute to minute: the load before a measurement,
    the governor and the clock of the first core."""
    machine = machine or Machine()
    kilohertz = machine.read(f"{FIRST_CORE}/cpufreq/scaling_cur_freq")
    return {
        "load_average": os.getloadavg()[0],
        "governor": machine.read(f"{FIRST_CORE}/cpufreq/scaling_governor"),
        "clock_mhz": float(kilohertz) / 1000
        if kilohertz
        else float(_cpu_field(machine, "cpu MHz") or 0) or None,
    }


def _cpu_field(machine: Machine, name: str) -> str | None:
    for line in (machine.read("proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _last_level_cache(machine: Machine) -> int | None:
    """Bytes of the largest cache the first core sees (in a virtual machine: the host's,
    shared with others)."""
    units = {"K": 2**10, "M": 2**20}
    sizes = [machine.read(f"{FIRST_CORE}/cache/index{index}/size") for index in range(8)]
    return max(
        (int(size[:-1]) * units[size[-1]] for size in sizes if size and size[-1] in units), default=None
    )
