"""Probes of the machine itself: its memory, its GPU, and on a Jetson its software and its power mode."""

import platform
import sys

from ..machine import driver_version
from .facts import OK, PROBLEM, WARNING, Facts, Finding, dots, gib

LITTLE_MEMORY, SMALL_DEVICE = 2**30, 16 * 2**30  # bytes
OLDEST_L4T = (36, 4)  # the first Jetson Linux with a TensorRT 10
JETPACKS: dict[tuple[int, ...], str] = {
    (36, 3): "6.0",
    (36, 4): "6.1 or 6.2",
    (36, 5): "6.2",
    (38, 2): "7.0",
    (38, 4): "7.1",
    (39, 2): "7.2",
}
RELEASE_FILE = "/etc/nv_tegra_release"


def python(facts: Facts) -> Finding:
    return Finding("python", OK, f"{platform.python_version()} on {platform.machine()} {sys.platform}")


def memory(facts: Facts) -> Finding:
    found = facts.memory
    if found is None:
        return Finding("memory", WARNING, "unknown: there is no /proc/meminfo")
    shared = ", shared by CPU and GPU" if facts.jetson else ""
    text = (
        f"{gib(found.total)}{shared}, {gib(found.available)} available, swap {gib(found.swap)}, zram "
        f"{gib(found.zram)}"
    )
    if found.available < LITTLE_MEMORY:
        desktop = ", the desktop too (sudo systemctl set-default multi-user.target)" if facts.jetson else ""
        return Finding("memory", WARNING, f"{text}: end other programs{desktop}")
    if facts.jetson and found.total <= SMALL_DEVICE and not found.swap:
        return Finding(
            "memory",
            WARNING,
            f"{text}: `ltbm build` needs more than running does, and zram takes it from the same memory: "
            "add a swap file, and turn zram off (sudo systemctl disable nvzramconfig)",
        )
    return Finding("memory", OK, text)


def jetson(facts: Facts) -> Finding | None:
    found = facts.jetson
    if found is None:
        return None
    if not found.l4t:
        return Finding(
            "Jetson",
            WARNING,
            f"{found.model}, Jetson Linux unknown: run the container with -v "
            f"{RELEASE_FILE}:{RELEASE_FILE}:ro",
        )
    query = facts.machine.run(["dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack"])
    jetpack = query.out if query.status == 0 and query.out else JETPACKS.get(found.l4t[:2], "unknown")
    text = f"{found.model}, Jetson Linux {dots(found.l4t)}, JetPack {jetpack}"
    if found.l4t[:2] < OLDEST_L4T:
        return Finding(
            "Jetson", PROBLEM, f"{text}: its TensorRT is older than 10: install JetPack 6.2 or newer"
        )
    return Finding("Jetson", OK, text)


def power(facts: Facts) -> Finding | None:
    """nvpmodel's mode, and whether jetson_clocks holds the GPU at its highest clock."""
    if facts.jetson is None:
        return None
    modes = [line for line in facts.machine.run(["nvpmodel", "-q"]).out.splitlines() if "Power Mode:" in line]
    if not modes:
        return Finding(
            "power", WARNING, "mode unknown: nvpmodel -q does not answer; in a container, ask on the host"
        )
    mode = modes[0].split(":", 1)[1].strip()
    text = f"mode {mode}, {_gpu_clock(facts)}"
    if not mode.upper().startswith("MAXN"):
        return Finding(
            "power",
            WARNING,
            f"{text}: MAXN is faster: sudo nvpmodel -m with its number in /etc/nvpmodel.conf",
        )
    return Finding("power", OK, text)


def _gpu_clock(facts: Facts) -> str:
    for folder in sorted((facts.machine.root / "sys/class/devfreq").glob("*gpu*")):
        lowest, highest = (facts.machine.read(folder / f"{end}_freq") for end in ("min", "max"))
        if lowest and highest:
            return (
                "GPU clock fixed"
                if lowest == highest
                else "GPU clock follows the load (before measuring: sudo jetson_clocks)"
            )
    return "GPU clock unknown"


def gpu(facts: Facts) -> Finding:
    if facts.gpu_fault:
        return Finding("GPU", PROBLEM, facts.gpu_fault)
    found = facts.gpu
    if found is None:
        return Finding("GPU", OK, "no NVIDIA driver, needed only for device=cuda and backend=tensorrt")
    place = "of the machine's memory" if found.integrated else "of its own"
    return Finding(
        "GPU",
        OK,
        f"{found.name}, architecture {found.architecture}, {gib(found.memory)} {place}, "
        f"driver {driver_version(facts.machine) or 'of unknown version'} for CUDA up to {dots(found.cuda)}",
    )


DEVICE_PROBES = (python, memory, jetson, power, gpu)
