"""Probes of the machine itself: its memory, its GPU, and on a Jetson its software and its power mode."""

import platform
import sys

from ..machine import driver_version
from ..versions import dots
from .facts import CUDA_USE, OK, PROBLEM, WARNING, Facts, Finding, gib

LITTLE_MEMORY = 2**30  # bytes available; below, little runs
SMALL_DEVICE = 16 * 2**30  # bytes in all; below, building engines may need swap
OLDEST_L4T = (36, 4)  # the first Jetson Linux with a TensorRT 10
JETPACKS: dict[tuple[int, ...], str] = {  # Jetson Linux -> JetPack
    (36, 3): "6.0",
    (36, 4): "6.1 or 6.2",
    (36, 5): "6.2",
    (38, 2): "7.0",
    (38, 4): "7.1",
    (39, 2): "7.2",
}
RELEASE_FILE = "/etc/nv_tegra_release"
SWAP_ADVICE = (
    "`ltbm build` needs more than running does, and zram takes it from the same memory: "
    "add a swap file, and turn zram off (sudo systemctl disable nvzramconfig)"
)


def python(facts: Facts) -> Finding:
    return Finding("python", OK, f"{platform.python_version()} on {platform.machine()} {sys.platform}")


def memory(facts: Facts) -> Finding:
    memory = facts.memory
    if memory is None:
        return Finding("memory", WARNING, "unknown: there is no /proc/meminfo")
    shared = ", shared by CPU and GPU" if facts.jetson else ""
    text = (
        f"{gib(memory.total)}{shared}, {gib(memory.available)} available, "
        f"swap {gib(memory.swap)}, zram {gib(memory.zram)}"
    )
    if memory.available < LITTLE_MEMORY:
        desktop = ", the desktop too (sudo systemctl set-default multi-user.target)" if facts.jetson else ""
        return Finding("memory", WARNING, f"{text}: end other programs{desktop}")
    if facts.jetson and memory.total <= SMALL_DEVICE and not memory.swap:
        return Finding("memory", WARNING, f"{text}: {SWAP_ADVICE}")
    return Finding("memory", OK, text)


def jetson(facts: Facts) -> Finding | None:
    jetson = facts.jetson
    if jetson is None:
        return None
    if not jetson.l4t:
        advice = f"run the container with -v {RELEASE_FILE}:{RELEASE_FILE}:ro"
        return Finding("Jetson", WARNING, f"{jetson.model}, Jetson Linux unknown: {advice}")
    text = f"{jetson.model}, Jetson Linux {dots(jetson.l4t)}, JetPack {_jetpack(facts, jetson.l4t)}"
    if jetson.l4t[:2] < OLDEST_L4T:
        advice = "its TensorRT is older than 10: install JetPack 6.2 or newer"
        return Finding("Jetson", PROBLEM, f"{text}: {advice}")
    return Finding("Jetson", OK, text)


def _jetpack(facts: Facts, l4t: tuple[int, ...]) -> str:
    """As its package says, which containers do not have, else as it belongs to a Jetson Linux."""
    package = facts.machine.run(["dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack"])
    if package.status == 0 and package.out:
        return package.out
    return JETPACKS.get(l4t[:2], "unknown")


def power(facts: Facts) -> Finding | None:
    """nvpmodel's mode, and whether jetson_clocks holds the GPU at its highest clock."""
    if facts.jetson is None:
        return None
    lines = facts.machine.run(["nvpmodel", "-q"]).out.splitlines()
    modes = [line.split(":", 1)[1].strip() for line in lines if "Power Mode:" in line]
    if not modes:
        advice = "nvpmodel -q does not answer; in a container, run it on the host"
        return Finding("power", WARNING, f"mode unknown: {advice}")
    text = f"mode {modes[0]}, {_gpu_clock(facts)}"
    if not modes[0].upper().startswith("MAXN"):
        advice = "MAXN is faster: sudo nvpmodel -m with its number in /etc/nvpmodel.conf"
        return Finding("power", WARNING, f"{text}: {advice}")
    return Finding("power", OK, text)


def _gpu_clock(facts: Facts) -> str:
    for folder in sorted((facts.machine.root / "sys/class/devfreq").glob("*gpu*")):
        lowest = facts.machine.read(folder / "min_freq")
        highest = facts.machine.read(folder / "max_freq")
        if lowest and lowest == highest:
            return "GPU clock fixed"
        if lowest and highest:
            return "GPU clock follows the load (before measuring: sudo jetson_clocks)"
    return "GPU clock unknown"


def gpu(facts: Facts) -> Finding:
    if facts.gpu_fault:
        return Finding("GPU", PROBLEM, facts.gpu_fault)
    gpu = facts.gpu
    if gpu is None:
        return Finding("GPU", OK, f"no NVIDIA driver, {CUDA_USE}")
    whose = "of the machine's memory" if gpu.integrated else "of its own"
    driver = driver_version(facts.machine) or "of unknown version"
    return Finding(
        "GPU",
        OK,
        f"{gpu.name}, architecture {gpu.architecture}, {gib(gpu.memory)} {whose}, "
        f"driver {driver} for CUDA up to {dots(gpu.cuda)}",
    )


DEVICE_PROBES = (python, memory, jetson, power, gpu)
