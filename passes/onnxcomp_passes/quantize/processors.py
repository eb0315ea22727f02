"""What the processor that this runs on does with integers.

ONNX Runtime multiplies unsigned by signed bytes. Without VNNI, x86 processors add two such
products in 16 bits, which overflow (saturate); with it, and on ARM, sums have 32 bits.
"""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

X86 = {"amd64", "i386", "i686", "x86_64"}

EXACT = {"avx512_vnni", "avx512vnni", "avx_vnni", "avxvnni", "amx_int8"}
"""Instruction sets that add in 32 bits, as Linux and macOS call them."""

FLAGS = Path("/proc/cpuinfo")


def detected_profile() -> str:
    """Return the profile of this processor; ``cpu`` where nothing is known of it."""
    return profile_of(platform.machine(), instruction_sets(platform.system()))


def profile_of(machine: str, found: Collection[str]) -> str:
    """Return the profile of a processor.

    Args:
        machine: Its architecture.
        found: Its instruction sets, in lower case; none where they are not known.
    """
    saturates = machine.lower() in X86 and bool(found) and not EXACT & set(found)
    return "avx2" if saturates else "cpu"


def instruction_sets(system: str) -> frozenset[str]:
    """Return the instruction sets of this processor; none where the system does not say."""
    try:
        if system == "Linux":
            told = FLAGS.read_text(encoding="utf-8", errors="replace")
            lines = re.findall(r"^flags\s*:(.*)$", told, re.MULTILINE)
            return frozenset(lines[0].lower().split()) if lines else frozenset()
        if system == "Darwin":
            ran = subprocess.run(
                [
                    "/usr/sbin/sysctl",
                    "-n",
                    "machdep.cpu.features",
                    "machdep.cpu.leaf7_features",
                ],
                capture_output=True,
                text=True,
                check=False,
                timeout=5,
            )
            return frozenset(ran.stdout.lower().split())
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset()
