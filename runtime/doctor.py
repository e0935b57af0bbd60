"""`ltbm doctor`: what this machine has and lacks for ltbm, with what to do."""

from collections.abc import Callable

from .machine import Machine
from .probes.bundle import BUNDLE_PROBES
from .probes.device import DEVICE_PROBES
from .probes.facts import WARNING, Facts, Finding
from .probes.nvidia import NVIDIA_PROBES
from .probes.packages import PACKAGE_PROBES

PROBES = (*DEVICE_PROBES, *NVIDIA_PROBES, *PACKAGE_PROBES)


def examine(bundle: str | None = None, machine: Machine | None = None) -> list[Finding]:
    """Every finding about this machine, and about a bundle if one is named."""
    facts = Facts.gather(machine or Machine())
    findings: list[Finding] = []
    for probe in PROBES:
        findings += _run(probe, facts)
    if bundle is not None:
        for probe in BUNDLE_PROBES:
            findings += _run(probe, facts, bundle)
    return findings


def _run(probe: Callable, *arguments) -> list[Finding]:
    """A probe gives a finding, several, or None; one that fails becomes a warning, the others still run."""
    try:
        result = probe(*arguments)
    except Exception as error:
        name = probe.__name__.replace("_", " ")
        return [Finding(name, WARNING, f"could not be examined: {type(error).__name__}: {error}")]
    if result is None:
        return []
    return result if isinstance(result, list) else [result]
