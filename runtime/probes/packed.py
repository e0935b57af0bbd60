"""Probes of a bundle's packed weights on this machine."""

from ..backends.packed_store import packed_differences, stored_packed, this_host, unreadable_packed
from ..bundle import Bundle
from .facts import OK, WARNING, Facts, Finding, mib

SUBJECT = "packed weights"


def packed_weights(facts: Facts, opened: Bundle) -> list[Finding]:
    """Those of `ltbm pack`: which this machine maps, and why not the others."""
    host = this_host(facts.machine)
    pack = f"`ltbm pack {opened.path}`"
    findings = []
    for one in stored_packed(opened):
        reasons = packed_differences(one, opened, host) + one.damage(verify=True)
        name = f"{one.path.name}, {one.key.graph}"
        if reasons:
            text = f"{name}, will not be mapped: {', '.join(reasons)}: {pack}"
            findings.append(Finding(SUBJECT, WARNING, text))
        else:
            text = f"{name}, {mib(one.size)} of {one.made[:16]}, mapped here"
            findings.append(Finding(SUBJECT, OK, text))
    for path, reason in unreadable_packed(opened).items():
        text = f"{path.name} will not be mapped: {reason}: delete the folder, and {pack}"
        findings.append(Finding(SUBJECT, WARNING, text))
    if not findings and opened.manifest.precision.obstacle("cpu") == "":
        text = f"none: {pack} takes less memory and starts sooner on the CPU, for as much disk"
        findings.append(Finding(SUBJECT, OK, text))
    return findings


def mapped_bytes(facts: Facts, opened: Bundle) -> int:
    """Bytes of packed weights that this machine maps; without hashing them."""
    host = this_host(facts.machine)
    total = 0
    for one in stored_packed(opened):
        if not packed_differences(one, opened, host) and not one.damage():
            total += one.size
    return total
